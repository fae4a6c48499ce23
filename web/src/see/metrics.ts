/** Prometheus' text format, as far as a chart needs it: what was counted between two looks, and quantiles of that. */

/** Values by series, each named as the text names it: `name{label="value",…}`. */
export type Samples = ReadonlyMap<string, number>;

export interface Series {
  name: string;
  labels: Readonly<Record<string, string>>;
}

/** A look: which process answered, and what it counts. */
export interface Look {
  instance: string;
  samples: Samples;
}

/** What a process tells in its first line; without it all looks are taken for one process's. */
const INSTANCE = /^# instance (\S+)/m;
const LINE = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)/;

/** Series whose name begins with none of `wanted` are left out. */
export function parse(text: string, wanted: readonly string[]): Look {
  const samples = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (!wanted.some((name) => line.startsWith(name))) continue;
    const [, series, value] = LINE.exec(line) ?? [];
    const number = value === "+Inf" ? Infinity : Number(value);
    if (series !== undefined && !Number.isNaN(number)) samples.set(series, number);
  }
  return { instance: INSTANCE.exec(text)?.[1] ?? "", samples };
}

const KNOWN = new Map<string, Series>();

/** The name and labels of a series. */
export function seriesOf(text: string): Series {
  let series = KNOWN.get(text);
  if (!series) {
    const open = text.indexOf("{");
    const labels: Record<string, string> = {};
    for (const [, name, value] of (open < 0 ? "" : text.slice(open)).matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name ?? ""] = (value ?? "").replace(/\\(.)/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));
    }
    series = { name: open < 0 ? text : text.slice(0, open), labels };
    KNOWN.set(text, series);
  }
  return series;
}

/** What was counted between two looks at one process. */
export interface Point {
  /** Of the later look, in ms. */
  at: number;
  counted: Samples;
}

/** So long points are kept. */
export const KEPT_MS = 3_600_000;

/**
 * Looks, one after the other. Counters of several processes behind one address are told apart; one that fell was
 * begun anew, so all of it is new.
 */
export class History {
  /** Oldest first. */
  points: readonly Point[] = [];
  #latest = new Map<string, Samples>();

  add({ instance, samples }: Look, at: number): void {
    const before = this.#latest.get(instance);
    this.#latest.set(instance, samples);
    if (!before) return;
    const counted = new Map<string, number>();
    for (const [series, value] of samples) {
      const was = before.get(series) ?? 0;
      const more = value >= was ? value - was : value;
      if (more > 0) counted.set(series, more);
    }
    this.points = [...this.points.filter((point) => at - point.at <= KEPT_MS), { at, counted }];
  }

  /** What all processes that were met have counted since they began. */
  get total(): Samples {
    return added(this.#latest.values());
  }

  /** How many processes were met. */
  get processes(): number {
    return this.#latest.size;
  }
}

export function added(all: Iterable<Samples>): Samples {
  const sum = new Map<string, number>();
  for (const samples of all) {
    for (const [series, value] of samples) sum.set(series, (sum.get(series) ?? 0) + value);
  }
  return sum;
}

/** The points of `times` equal stretches of `every` ms that end at `now`, oldest first. */
export function stretches(points: readonly Point[], times: number, every: number, now: number): { at: number; counted: Samples }[] {
  const begin = now - times * every;
  return Array.from({ length: times }, (_, place) => {
    const [from, to] = [begin + place * every, begin + (place + 1) * every];
    return { at: to, counted: added(points.filter(({ at }) => at > from && at <= to).map(({ counted }) => counted)) };
  });
}

export type Choose = (labels: Series["labels"]) => boolean;

/** Sums of a metric by what `name` makes of its labels; what it makes nothing of is left out. */
export function sumsBy(samples: Samples, metric: string, name: (labels: Series["labels"]) => string | null): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [text, value] of samples) {
    const series = seriesOf(text);
    if (series.name !== metric) continue;
    const key = name(series.labels);
    if (key !== null) sums.set(key, (sums.get(key) ?? 0) + value);
  }
  return sums;
}

/** A histogram: how many were at most `bound`, by bound, the last being infinite. */
export type Buckets = readonly { bound: number; count: number }[];

export function histogram(samples: Samples, metric: string, choose: Choose = () => true): Buckets {
  const sums = sumsBy(samples, `${metric}_bucket`, (labels) => (choose(labels) ? labels["le"] ?? null : null));
  const buckets = [...sums].map(([le, count]) => ({ bound: le === "+Inf" ? Infinity : Number(le), count }));
  return buckets.sort((one, other) => one.bound - other.bound);
}

export function counted(buckets: Buckets): number {
  return buckets.at(-1)?.count ?? 0;
}

/**
 * Below what value the share `q` lies, taking values to be spread evenly within a bucket, as Prometheus does; `null`
 * of nothing. What lies beyond the last bound is told as that bound.
 */
export function quantile(buckets: Buckets, q: number): number | null {
  const rank = counted(buckets) * q;
  if (rank === 0) return null;
  const at = buckets.findIndex(({ count }) => count >= rank);
  const bucket = buckets[at];
  const below = buckets[at - 1] ?? { bound: 0, count: 0 };
  if (!bucket) return null;
  if (bucket.bound === Infinity) return below.bound;
  const within = (rank - below.count) / (bucket.count - below.count);
  return below.bound + (bucket.bound - below.bound) * within;
}
