import type { UsageDay } from "../api/types";

/** By what a day's bar is split. */
export type By = "model" | "owner" | "route" | "api_key" | "deployment" | "provider";
/** What is added up. */
export type Measure = "cost" | "tokens" | "turns";

export interface Sums {
  days: { day: string; parts: number[]; total: number }[];
  /** What the parts are, the largest first; what is small beyond the colours is one. */
  names: string[];
  total: number;
}

const PARTS_MAX = 6;
const REST = "others";

export function measure(row: UsageDay, what: Measure): number {
  if (what === "cost") return row.cost_micros;
  return what === "turns" ? row.turns : row.input_tokens + row.output_tokens;
}

/** What a route of events spends stands under a key that is called so. */
const ROUTE = "route:";

function nameOf(row: UsageDay, by: By): string {
  const key = row.api_key ?? "a token";
  if (by === "api_key") return key;
  if (by === "route") return key.startsWith(ROUTE) ? key.slice(ROUTE.length) : "no route";
  return row[by];
}

/** Every day from `from` to `to` (UTC, both included), also those without a row. */
export function sums(rows: readonly UsageDay[], from: string, to: string, what: Measure, by: By): Sums {
  const totals = new Map<string, number>();
  for (const row of rows) totals.set(nameOf(row, by), (totals.get(nameOf(row, by)) ?? 0) + measure(row, what));
  const ranked = [...totals.keys()].sort((one, other) => (totals.get(other) ?? 0) - (totals.get(one) ?? 0));
  const names = ranked.length > PARTS_MAX ? [...ranked.slice(0, PARTS_MAX - 1), REST] : ranked;
  const place = (name: string) => (names.includes(name) ? names.indexOf(name) : names.length - 1);

  const days = each(from, to).map((day) => {
    const parts = names.map(() => 0);
    for (const row of rows) {
      const at = place(nameOf(row, by));
      if (row.day === day) parts[at] = (parts[at] ?? 0) + measure(row, what);
    }
    return { day, parts, total: parts.reduce((sum, part) => sum + part, 0) };
  });
  const total = days.reduce((sum, day) => sum + day.total, 0);
  return { days, names, total };
}

export function each(from: string, to: string): string[] {
  const days: string[] = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86_400_000) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}

/** The UTC day so many days before today. */
export function daysAgo(days: number, now: number = Date.now()): string {
  return new Date(now - days * 86_400_000).toISOString().slice(0, 10);
}
