import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Silence, watched } from "./watched";

const encoder = new TextEncoder();

/** An answer whose body is written by hand. */
function answer(type: string) {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({ start: (given) => void (controller = given) });
  const fetcher = watched(async () => new Response(body, { headers: { "content-type": type } }), 1_000);
  return { fetcher, write: (text: string) => controller.enqueue(encoder.encode(text)), close: () => controller.close() };
}

describe("a watched stream", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("passes on what comes", async () => {
    const { fetcher, write, close } = answer("text/event-stream");
    const response = await fetcher("/");
    write("data: 1\n\n");
    close();
    expect(await response.text()).toBe("data: 1\n\n");
  });

  it("fails when nothing comes any more, and not while something does", async () => {
    const { fetcher, write } = answer("text/event-stream");
    const reader = (await fetcher("/")).body!.getReader();
    for (const text of [": 1", ": 2", ": 3"]) {
      write(text);
      await reader.read();
      await vi.advanceTimersByTimeAsync(900);
    }
    const last = expect(reader.read()).rejects.toThrow(Silence);
    await vi.advanceTimersByTimeAsync(3_000);
    await last;
  });

  it("leaves other answers alone", async () => {
    const { fetcher, write, close } = answer("application/json");
    const response = await fetcher("/");
    await vi.advanceTimersByTimeAsync(10_000);
    write("{}");
    close();
    expect(await response.json()).toEqual({});
  });
});
