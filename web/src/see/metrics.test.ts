import { describe, expect, it } from "vitest";
import { History, counted, histogram, parse, quantile, seriesOf, stretches, sumsBy } from "./metrics";

const text = (ok: number, bad: number) => `# instance one
# HELP http_server_request_duration_seconds Time
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{route="a",status="200",le="0.1"} ${ok / 2}
http_server_request_duration_seconds_bucket{route="a",status="200",le="0.5"} ${ok}
http_server_request_duration_seconds_bucket{route="a",status="200",le="+Inf"} ${ok}
http_server_request_duration_seconds_count{route="a",status="200"} ${ok}
http_server_request_duration_seconds_count{route="b \\"x\\" {y}",status="500"} ${bad}
other_total 7
`;
const WANTED = ["http_server"];
const byStatus = (labels: Readonly<Record<string, string>>) => labels["status"] ?? null;
const COUNT = "http_server_request_duration_seconds_count";

describe("metrics", () => {
  it("reads what is wanted, with labels as they were", () => {
    const { instance, samples } = parse(text(4, 1), WANTED);
    expect(instance).toBe("one");
    expect([...samples.keys()].some((key) => key.startsWith("other"))).toBe(false);
    const odd = [...samples.keys()].find((key) => key.includes("500")) ?? "";
    expect(seriesOf(odd)).toEqual({ name: COUNT, labels: { route: 'b "x" {y}', status: "500" } });
    expect(sumsBy(samples, COUNT, byStatus)).toEqual(new Map([["200", 4], ["500", 1]]));
  });

  it("counts between looks, of each process by itself, and all of one that began anew", () => {
    const history = new History();
    const of = (instance: string, ok: number) => ({ ...parse(text(ok, 0), WANTED), instance });
    history.add(of("one", 10), 1_000);
    expect(history.points).toEqual([]);
    history.add(of("two", 100), 2_000);
    history.add(of("one", 12), 3_000);
    history.add(of("two", 104), 4_000);
    history.add(of("two", 3), 5_000);
    expect(history.points.map(({ counted }) => sumsBy(counted, COUNT, byStatus).get("200"))).toEqual([2, 4, 3]);
    expect(sumsBy(history.total, COUNT, byStatus).get("200")).toBe(15);
    expect(history.processes).toBe(2);
    const [, second, third] = stretches(history.points, 3, 1_000, 5_000);
    expect([second?.at, sumsBy(second?.counted ?? new Map(), COUNT, byStatus).get("200")]).toEqual([4_000, 4]);
    expect(sumsBy(third?.counted ?? new Map(), COUNT, byStatus).get("200")).toBe(3);
  });

  it("forgets what is older than an hour", () => {
    const history = new History();
    for (const [value, at] of [[1, 0], [2, 1_000], [3, 3_700_000]] as const) history.add(parse(text(value, 0), WANTED), at);
    expect(history.points.map(({ at }) => at)).toEqual([3_700_000]);
  });

  it("tells quantiles as Prometheus does", () => {
    const buckets = histogram(parse(text(4, 0), WANTED).samples, "http_server_request_duration_seconds");
    expect(counted(buckets)).toBe(4);
    expect(quantile(buckets, 0.5)).toBeCloseTo(0.1);
    expect(quantile(buckets, 0.25)).toBeCloseTo(0.05);
    expect(quantile(buckets, 0.75)).toBeCloseTo(0.3);
    expect(quantile([{ bound: 1, count: 0 }, { bound: Infinity, count: 5 }], 0.9)).toBe(1);
    expect(quantile([], 0.9)).toBeNull();
    expect(quantile([{ bound: Infinity, count: 0 }], 0.9)).toBeNull();
  });
});
