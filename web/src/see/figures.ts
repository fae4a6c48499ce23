import type { Key } from "../api/types";
import { type Choose, type Samples, type Series, histogram, quantile, sumsBy } from "./metrics";

/** What a chart of times may be of. */
export interface Timed {
  name: string;
  metric: string;
  /** The label by which it is split. */
  by: string;
}

export const FIRST_TOKEN: Timed = { name: "first token", metric: "gen_ai_server_time_to_first_token_seconds", by: "gen_ai_request_model" };
export const TIMES: readonly Timed[] = [
  FIRST_TOKEN,
  { name: "whole turn", metric: "gen_ai_server_request_duration_seconds", by: "gen_ai_request_model" },
  { name: "call to a model", metric: "gen_ai_client_operation_duration_seconds", by: "gen_ai_request_model" },
  { name: "answer begins (HTTP)", metric: "http_server_request_duration_seconds", by: "route" },
];

/** Whether a series counts what callers asked: probes, the console's files and what operators look at do not. */
export const isTraffic: Choose = ({ route }) => route === undefined || !/^(health|console|preflight|openapi|admin)\b/.test(route);

export interface TimesOf {
  name: string;
  count: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

/** Of each model or route: how many, and how long. Most first. */
export function timesBy(samples: Samples, { metric, by }: Timed): TimesOf[] {
  const counts = sumsBy(samples, `${metric}_count`, (labels) => (isTraffic(labels) ? labels[by] ?? null : null));
  const all = [...counts].map(([name, count]) => {
    const buckets = histogram(samples, metric, (labels) => isTraffic(labels) && labels[by] === name);
    return { name, count, p50: quantile(buckets, 0.5), p95: quantile(buckets, 0.95), p99: quantile(buckets, 0.99) };
  });
  return all.filter(({ count }) => count > 0).sort((one, other) => other.count - one.count);
}

/** What a chart of failures may be of. */
export interface Failing {
  name: string;
  metric: string;
  /** What a series is called if it counts failures. */
  failed: (labels: Series["labels"]) => string | null;
}

const REQUESTS: Failing = {
  name: "requests",
  metric: "http_server_request_duration_seconds_count",
  failed: (labels) => (isTraffic(labels) && /^[45]/.test(labels["status"] ?? "") ? `${labels["status"]} ${labels["route"]}` : null),
};
/** A turn's end that nobody wanted; who stops one, or reaches the length asked for, has what was asked for. */
const TURN_FAILED = /^(failed|lost)$/;
export const FAILURES: readonly Failing[] = [
  REQUESTS,
  {
    name: "turns",
    metric: "colloquy_turns_ended_total",
    failed: ({ status, reason }) => (TURN_FAILED.test(status ?? "") || reason === "interrupted" ? [status, reason].filter(Boolean).join(": ") : null),
  },
  {
    name: "calls to models",
    metric: "colloquy_llm_attempts_total",
    failed: ({ deployment, outcome }) => (outcome === "succeeded" || outcome === "cancelled" ? null : `${deployment}: ${outcome}`),
  },
  {
    name: "systems of others",
    metric: "colloquy_external_errors_total",
    failed: ({ system, name, code }) => `${system} ${name}: ${code}`,
  },
  { name: "callers refused", metric: "colloquy_access_refused_total", failed: ({ code }) => code ?? null },
  { name: "rate limits", metric: "colloquy_rate_limited_total", failed: ({ limit }) => limit ?? null },
  { name: "budgets", metric: "colloquy_budget_refused_total", failed: ({ code }) => code ?? null },
  { name: "database", metric: "colloquy_database_errors_total", failed: (labels) => labels["class"] ?? null },
];

export function failures(samples: Samples, { metric, failed }: Failing): Map<string, number> {
  return sumsBy(samples, metric, failed);
}

/** How many requests came, failed or not. */
export function requests(samples: Samples): number {
  const sums = sumsBy(samples, REQUESTS.metric, (labels) => (isTraffic(labels) ? "all" : null));
  return sums.get("all") ?? 0;
}

/** Keeps the largest apart and puts the rest together: a chart has so many colours. */
export function ranked(all: ReadonlyMap<string, number>, most: number): { names: string[]; place: (name: string) => number } {
  const names = [...all].filter(([, value]) => value > 0).sort(([, one], [, other]) => other - one).map(([name]) => name);
  const shown = names.length > most ? [...names.slice(0, most - 1), "others"] : names;
  return { names: shown, place: (name) => (shown.includes(name) ? shown.indexOf(name) : shown.length - 1) };
}

/** Calls of one deployment since its process began. */
export interface Calls {
  all: number;
  failed: number;
  retries: number;
  inARow: number;
}

export function callsOf(samples: Samples, name: string): Calls {
  const mine = (metric: string, choose: (labels: Readonly<Record<string, string>>) => boolean) =>
    sumsBy(samples, metric, (labels) => (choose(labels) ? "all" : null)).get("all") ?? 0;
  const attempts = "colloquy_llm_attempts_total";
  return {
    all: mine(attempts, ({ deployment }) => deployment === name),
    failed: mine(attempts, ({ deployment, outcome }) => deployment === name && outcome !== "succeeded" && outcome !== "cancelled"),
    retries: mine("colloquy_llm_retries_total", ({ deployment }) => deployment === name),
    inARow: mine("colloquy_external_failing", ({ system, name: of }) => system === "model" && of === name),
  };
}

/** How a key stands, as access checks see it. */
export function keyState({ revoked_at, expires_at }: Key, now: number = Date.now()): "revoked" | "ended" | "in force" {
  if (revoked_at !== null) return "revoked";
  return expires_at !== null && Date.parse(expires_at) <= now ? "ended" : "in force";
}
