import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Pace } from "./pace";

const FRAME = 16;

describe("the pace of drawing", () => {
  let clock = 0;

  beforeEach(() => {
    clock = 0;
    vi.useFakeTimers({ toFake: ["setTimeout"] });
    vi.stubGlobal("performance", { now: () => clock });
    vi.stubGlobal("requestAnimationFrame", (draw: () => void) => setTimeout(draw, FRAME - (clock % FRAME)));
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  /** Something comes every ms, for so long; how often it is drawn where drawing takes so long. */
  async function drawn(lasts: number, takes: number): Promise<number> {
    let times = 0;
    const pace = new Pace(() => {
      times += 1;
      clock += takes;
    });
    for (let at = 0; at < lasts; at += 1) {
      pace.due();
      clock += 1;
      vi.advanceTimersByTime(1);
      await Promise.resolve();
    }
    return times;
  }

  it("is a frame's where drawing takes next to nothing", async () => {
    const times = await drawn(FRAME * 20, 0);
    expect(times).toBeGreaterThanOrEqual(18);
    expect(times).toBeLessThanOrEqual(20);
  });

  it("leaves the page most of the time where drawing takes long", async () => {
    const times = await drawn(1_000, 40);
    expect(times).toBeGreaterThanOrEqual(8);
    // Each is followed by twice its time.
    expect(times).toBeLessThanOrEqual(1_000 / 80);
  });

  it("goes on where there are no frames", async () => {
    vi.stubGlobal("requestAnimationFrame", () => 0);
    expect(await drawn(1_000, 0)).toBeGreaterThanOrEqual(8);
  });
});
