import { describe, expect, it } from "vitest";
import { FAILURES, FIRST_TOKEN, callsOf, failures, keyState, ranked, requests, timesBy } from "./figures";

const REQUESTS = "http_server_request_duration_seconds_count";
const first = (part: string, model: string, more = "") => `gen_ai_server_time_to_first_token_seconds_${part}{gen_ai_request_model="${model}"${more}}`;

describe("figures", () => {
  it("times each model, most asked first", () => {
    const samples = new Map([
      [first("count", "small"), 2],
      [first("bucket", "small", ',le="1"'), 2],
      [first("bucket", "small", ',le="+Inf"'), 2],
      [first("count", "large"), 4],
      [first("bucket", "large", ',le="1"'), 0],
      [first("bucket", "large", ',le="2"'), 4],
      [first("bucket", "large", ',le="+Inf"'), 4],
    ]);
    const all = timesBy(samples, FIRST_TOKEN);
    expect(all.map(({ name, count }) => [name, count])).toEqual([["large", 4], ["small", 2]]);
    expect(all[0]?.p50).toBeCloseTo(1.5);
  });

  it("counts what callers asked, and what of it failed; looking does not count", () => {
    const of = (route: string, status: string) => `${REQUESTS}{route="${route}",status="${status}"}`;
    const samples = new Map([
      [of("responses.create", "200"), 7],
      [of("responses.create", "503"), 2],
      [of("models.list", "401"), 1],
      [of("health", "503"), 50],
      [of("admin.turns.list", "400"), 50],
    ]);
    expect(requests(samples)).toBe(10);
    const [asked] = FAILURES;
    expect(asked && failures(samples, asked)).toEqual(new Map([["503 responses.create", 2], ["401 models.list", 1]]));
  });

  it("takes for a failed turn what nobody chose", () => {
    const of = (status: string, reason: string) => `colloquy_turns_ended_total{reason="${reason}",status="${status}"}`;
    const samples = new Map([[of("completed", "completed"), 9], [of("cancelled", "cancelled"), 3], [of("failed", "provider_error"), 2], [of("incomplete", "interrupted"), 1]]);
    const turns = FAILURES.find(({ name }) => name === "turns");
    expect(turns && failures(samples, turns)).toEqual(new Map([["failed: provider_error", 2], ["incomplete: interrupted", 1]]));
  });

  it("tells a deployment's calls, and how many failed", () => {
    const samples = new Map([
      ['colloquy_llm_attempts_total{deployment="demo",outcome="succeeded"}', 8],
      ['colloquy_llm_attempts_total{deployment="demo",outcome="timeout"}', 2],
      ['colloquy_llm_attempts_total{deployment="other",outcome="timeout"}', 5],
      ['colloquy_external_failing{name="demo",system="model"}', 2],
    ]);
    expect(callsOf(samples, "demo")).toEqual({ all: 10, failed: 2, retries: 0, inARow: 2 });
  });

  it("has colours for so many and puts the rest together", () => {
    const { names, place } = ranked(new Map([["a", 1], ["b", 5], ["c", 3], ["d", 0]]), 2);
    expect(names).toEqual(["b", "others"]);
    expect(["b", "a", "c"].map(place)).toEqual([0, 1, 1]);
  });
});

describe("a key", () => {
  it("is in force until it ends or is ended", () => {
    const key = { id: "key_1", name: "k", owner: "o", scopes: [], limits: {}, created_at: "", created_by: "", expires_at: null, revoked_at: null, replaced_by: null, last_used_day: null };
    const now = Date.parse("2026-01-02T00:00:00Z");
    expect(keyState(key, now)).toBe("in force");
    expect(keyState({ ...key, expires_at: "2026-01-03T00:00:00Z" }, now)).toBe("in force");
    expect(keyState({ ...key, expires_at: "2026-01-01T00:00:00Z" }, now)).toBe("ended");
    expect(keyState({ ...key, revoked_at: "2026-01-01T00:00:00Z" }, now)).toBe("revoked");
  });
});
