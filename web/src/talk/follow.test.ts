import { APIConnectionError, APIError } from "openai";
import { describe, expect, it, vi } from "vitest";
import type { StreamEvent } from "../api/types";
import { type Link, type Source, delay, follow } from "./follow";

const created = { type: "response.created", sequence_number: 0, response: { id: "resp_1", status: "in_progress", model: "demo", output: [], usage: null, error: null } } as StreamEvent;
const delta = (sequence_number: number): StreamEvent => ({ type: "response.output_text.delta", sequence_number, delta: `${sequence_number}` });
const completed = (sequence_number: number): StreamEvent => ({ ...created, type: "response.completed", sequence_number });

const refused = (status: number) => APIError.generate(status, { message: "no" }, "no", new Headers());

/** What a connection gives, and whether it breaks behind that. */
type Connection = { events?: StreamEvent[]; breaks?: boolean; refuses?: Error };

async function* play({ events = [], breaks, refuses }: Connection): AsyncGenerator<StreamEvent> {
  if (refuses) throw refuses;
  yield* events;
  if (breaks) throw new APIConnectionError({ message: "cut" });
}

function scene(...connections: Connection[]) {
  const asked: (string | number)[][] = [];
  const next = () => connections.shift() ?? { refuses: new Error("asked too often") };
  const source: Source = {
    begin: async () => (asked.push(["begin"]), play(next())),
    resume: async (id, after) => (asked.push(["resume", id, after]), play(next())),
  };
  return { source, asked };
}

async function all(source: Source, more: { id?: string; signal?: AbortSignal; links?: Link[] } = {}) {
  const numbers: number[] = [];
  const signal = more.signal ?? new AbortController().signal;
  const events = follow({ source, signal, id: more.id ?? null, onLink: (link) => more.links?.push(link), pause: async () => undefined });
  for await (const event of events) numbers.push(event.sequence_number);
  return numbers;
}

describe("follow", () => {
  it("gives each event once, in order, over a cut", async () => {
    const { source, asked } = scene({ events: [created, delta(1)], breaks: true }, { events: [delta(1), delta(2), completed(3)] });
    const links: Link[] = [];
    expect(await all(source, { links })).toEqual([0, 1, 2, 3]);
    expect(asked).toEqual([["begin"], ["resume", "resp_1", 1]]);
    expect(links.map(({ state }) => state)).toEqual(["connecting", "live", "live", "healing", "live", "live"]);
  });

  it("takes a stream that ends without its last event for a cut", async () => {
    const { source, asked } = scene({ events: [created] }, { events: [completed(1)] });
    expect(await all(source)).toEqual([0, 1]);
    expect(asked).toHaveLength(2);
  });

  it("begins again, under the same request, until the first event says which turn it is", async () => {
    const { source, asked } = scene({ breaks: true }, { events: [created, completed(1)] });
    expect(await all(source)).toEqual([0, 1]);
    expect(asked).toEqual([["begin"], ["begin"]]);
  });

  it("goes on with a turn that was begun before, from its start", async () => {
    const { source, asked } = scene({ events: [created, completed(1)] });
    expect(await all(source, { id: "resp_1" })).toEqual([0, 1]);
    expect(asked).toEqual([["resume", "resp_1", -1]]);
  });

  it("outlasts a server that is away for long", async () => {
    const away = Array.from({ length: 20 }, () => ({ refuses: refused(503) }));
    const { source } = scene({ events: [created], breaks: true }, ...away, { events: [completed(1)] });
    expect(await all(source)).toEqual([0, 1]);
  });

  it.each([400, 401, 403, 404, 409])("does not repeat what is refused with %i", async (status) => {
    const { source, asked } = scene({ refuses: refused(status) });
    await expect(all(source)).rejects.toMatchObject({ status });
    expect(asked).toHaveLength(1);
  });

  it("tells an outage of the model after three tries, when nothing has begun", async () => {
    const { source, asked } = scene(...Array.from({ length: 5 }, () => ({ refuses: refused(503) })));
    await expect(all(source)).rejects.toMatchObject({ status: 503 });
    expect(asked).toHaveLength(3);
  });

  it("ends quietly when it is told to", async () => {
    const end = new AbortController();
    const { source } = scene({ events: [created], breaks: true });
    const stop = vi.fn(async () => end.abort());
    const numbers: number[] = [];
    for await (const event of follow({ source, signal: end.signal, pause: stop })) numbers.push(event.sequence_number);
    expect(numbers).toEqual([0]);
    expect(stop).toHaveBeenCalledOnce();
  });

  it("waits longer each time, up to a bound, and never the same for all", () => {
    expect([1, 2, 3].map((attempt) => delay(attempt, 0.5))).toEqual([500, 1000, 2000]);
    expect(delay(50, 1)).toBe(12_500);
    expect(delay(1, 0)).not.toBe(delay(1, 1));
  });
});
