const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** `from` as seen at `now`, such as "3 min. ago". */
export function ago(from: string, now: number = Date.now()): string {
  const seconds = (Date.parse(from) - now) / 1000;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return RELATIVE.format(Math.round(seconds / size), unit);
}

export function exact(time: string): string {
  return new Date(time).toISOString().replace("T", " ").replace("Z", " UTC");
}

const NUMBER = new Intl.NumberFormat();
export function count(value: number): string {
  return NUMBER.format(value);
}

/** A time in seconds, with its unit. */
export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
/** A time of today, in ms. */
export function clock(at: number): string {
  return CLOCK.format(at);
}

const PERCENT = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
export function percent(share: number): string {
  return PERCENT.format(share);
}

/** Micro-units of the deployment's one currency, which has no name here. */
export function money(micros: number): string {
  const units = micros / 1_000_000;
  const digits = units !== 0 && Math.abs(units) < 1 ? 6 : 2;
  return units.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: digits });
}

/** JSON with line breaks; anything else as it is. */
export function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
