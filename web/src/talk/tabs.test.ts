import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Channel, Tabs } from "./tabs";

/** Tabs of one browser: what one says all others hear. */
class Browser {
  #tabs = new Map<Channel, (event: MessageEvent) => void>();
  open(mine: () => string | null = () => null) {
    const channel: Channel = {
      postMessage: (data) => [...this.#tabs].filter(([other]) => other !== channel).forEach(([, hear]) => hear({ data } as MessageEvent)),
      addEventListener: (_, listener) => void this.#tabs.set(channel, listener),
    };
    const seen = { changes: 0 };
    return { tabs: new Tabs(channel, mine, () => (seen.changes += 1)), seen, close: () => this.#tabs.delete(channel) };
  }
}

describe("turns of other tabs", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("are known when they begin, and no longer when they end", () => {
    const browser = new Browser();
    const [one, other] = [browser.open(), browser.open()];
    one.tabs.began("conv_1", "resp_1");
    expect([other.tabs.runs("conv_1"), other.tabs.runs("conv_2"), one.tabs.runs("conv_1")]).toEqual(["resp_1", null, null]);
    one.tabs.ended("conv_1");
    expect([other.tabs.runs("conv_1"), other.seen.changes]).toEqual([null, 2]);
  });

  it("that began before are told to who asks", () => {
    const browser = new Browser();
    browser.open(() => "resp_1");
    const late = browser.open();
    const stop = late.tabs.watch("conv_1");
    expect(late.tabs.runs("conv_1")).toBe("resp_1");
    stop();
  });

  it("are forgotten when their tab is gone", () => {
    const browser = new Browser();
    const one = browser.open(() => "resp_1");
    const other = browser.open();
    const stop = other.tabs.watch("conv_1");
    vi.advanceTimersByTime(60_000);
    expect(other.tabs.runs("conv_1")).toBe("resp_1");
    expect(other.seen.changes).toBe(1);
    one.close();
    vi.advanceTimersByTime(30_000);
    expect(other.tabs.runs("conv_1")).toBeNull();
    stop();
  });
});
