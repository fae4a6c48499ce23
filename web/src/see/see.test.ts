import { describe, expect, it } from "vitest";
import type { EventDetail, UsageDay, Work } from "../api/types";
import { daysAgo, each, sums } from "./sums";
import { timeline } from "./timeline";

const row = (day: string, model: string, cost_micros: number): UsageDay => ({
  day, model, owner: "dev", deployment: model, provider: "demo", api_key: null, attempts: 1, turns: 1, input_tokens: 10, output_tokens: 5, cost_micros, estimated_cost_micros: 0,
});

describe("usage", () => {
  it("has every day, also those without any", () => {
    expect(each("2026-02-27", "2026-03-02")).toEqual(["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]);
    expect(daysAgo(1, Date.parse("2026-03-01T00:00:00Z"))).toBe("2026-02-28");
  });

  it("adds up by day and part, the largest part first", () => {
    const made = sums([row("2026-01-01", "small", 1), row("2026-01-02", "large", 5), row("2026-01-02", "small", 2)], "2026-01-01", "2026-01-02", "cost", "model");
    expect(made).toMatchObject({ names: ["large", "small"], total: 8 });
    expect(made.days.map(({ parts }) => parts)).toEqual([[0, 1], [5, 2]]);
    expect(sums([row("2026-01-01", "small", 1)], "2026-01-01", "2026-01-01", "tokens", "model").total).toBe(15);
  });

  it("tells routes of events and keys apart by the key that paid", () => {
    const paid = (api_key: string | null, cost: number) => ({ ...row("2026-01-01", "small", cost), api_key });
    const rows = [paid("route:crm-answer", 5), paid("sales", 3), paid(null, 1)];
    const by = (by: "route" | "api_key") => sums(rows, "2026-01-01", "2026-01-01", "cost", by);
    expect([by("route").names, by("route").days[0]?.parts]).toEqual([["crm-answer", "no route"], [5, 4]]);
    expect(by("api_key").names).toEqual(["route:crm-answer", "sales", "a token"]);
  });

  it("puts what is small into one part, and loses nothing", () => {
    const rows = Array.from({ length: 9 }, (_, at) => row("2026-01-01", `m${at}`, 9 - at));
    const made = sums(rows, "2026-01-01", "2026-01-01", "cost", "model");
    expect(made.names).toEqual(["m0", "m1", "m2", "m3", "m4", "others"]);
    expect(made.total).toBe(45);
  });
});

describe("the timeline of an event", () => {
  const work = { kind: "callback", object: "consumer", route: "forward", created_at: "2026-01-01T00:00:02Z", due_at: "2026-01-01T00:00:02Z", error_code: null, error: null } as Work;
  const event = { source: "stripe", signed_at: null, received_at: "2026-01-01T00:00:01Z", stored_at: null, processed_at: "2026-01-01T00:00:02Z", verdict: "valid", work: [] as Work[] } as unknown as EventDetail;

  it("goes from the delivery to the callback's end, with every attempt", () => {
    const tries = [
      { attempt: 1, at: "2026-01-01T00:00:03Z", millis: 12, status: 500, error_code: "callback_refused" },
      { attempt: 2, at: "2026-01-01T00:00:09Z", millis: 8, status: 204, error_code: null },
    ];
    const done: Work = { ...work, state: "delivered", finished_at: "2026-01-01T00:00:09Z", tries };
    const moments = timeline({ ...event, work: [done] });
    expect(moments.map(({ tone }) => tone)).toEqual(["", "good", "", "bad", "good", "good"]);
    expect(moments[3]?.what).toBe("callback consumer (forward): attempt 1, callback_refused");
    expect(moments.at(-1)?.what).toBe("callback consumer (forward): delivered");
  });

  it("says what is still due, and what is dead", () => {
    const due: Work = { ...work, state: "pending", finished_at: null, tries: null };
    expect(timeline({ ...event, work: [due] }).at(-1)).toMatchObject({ tone: "wait" });
    const away: Work = { ...due, error_code: "provider_unavailable", error: "no answer" };
    expect(timeline({ ...event, work: [away] }).at(-1)).toMatchObject({ tone: "wait", detail: "no answer" });
    const dead: Work = { ...due, state: "dead", finished_at: "2026-01-01T01:00:00Z", error: "gave up" };
    expect(timeline({ ...event, work: [dead] }).at(-1)).toMatchObject({ tone: "bad", detail: "gave up" });
  });
});
