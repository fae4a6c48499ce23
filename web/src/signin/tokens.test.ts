import { describe, expect, it } from "vitest";
import { EARLY, type Renew, SessionEnded, type SignedInBy, TokenSource, type Tokens } from "./tokens";

const CONFIG = { issuer: "https://login.test", client_id: "spa", scope: "openid", token: "access" as const };
const HOUR = 3_600_000;

function source(tokens: Tokens, renew: Renew, now: { at: number }) {
  const seen = { kept: [] as SignedInBy[], ends: 0 };
  const made = new TokenSource({ config: CONFIG, tokens }, renew, (by) => seen.kept.push(by), () => (seen.ends += 1), () => now.at);
  return { token: made.token, seen };
}

describe("a token", () => {
  it("is sent while it lasts and renewed in time, once for all who ask", async () => {
    const now = { at: 0 };
    let renewed = 0;
    const renew: Renew = async (_, { refresh }) => {
      renewed += 1;
      await Promise.resolve();
      return { sent: `second by ${refresh}`, expires_at: now.at + HOUR, refresh: "next" };
    };
    const { token, seen } = source({ sent: "first", expires_at: HOUR, refresh: "r" }, renew, now);
    expect(await token()).toBe("first");
    now.at = HOUR - EARLY;
    expect(await Promise.all([token(), token(), token()])).toEqual(Array(3).fill("second by r"));
    expect([renewed, seen.kept.at(-1)?.tokens.refresh]).toEqual([1, "next"]);
    expect(await token()).toBe("second by r");
    expect(renewed).toBe(1);
  });

  it("that cannot be renewed for a moment is sent as long as it lasts, and tried again", async () => {
    const now = { at: HOUR - 1 };
    let away = true;
    const renew: Renew = async () => {
      if (away) throw new TypeError("network");
      return { sent: "second", expires_at: now.at + HOUR, refresh: null };
    };
    const { token, seen } = source({ sent: "first", expires_at: HOUR, refresh: "r" }, renew, now);
    expect(await token()).toBe("first");
    now.at = HOUR;
    await expect(token()).rejects.toThrow("network");
    expect(seen.ends).toBe(0);
    away = false;
    expect(await token()).toBe("second");
  });

  it("that is refused, or has nothing to renew it, is the end of the sign-in", async () => {
    const now = { at: HOUR };
    const refused = source({ sent: "first", expires_at: HOUR, refresh: "r" }, () => Promise.reject(new SessionEnded("revoked")), now);
    await expect(refused.token()).rejects.toThrow(SessionEnded);
    const alone = source({ sent: "first", expires_at: HOUR, refresh: null }, () => Promise.reject(new Error("never asked")), { at: HOUR - 1 });
    expect(await alone.token()).toBe("first");
    const over = source({ sent: "first", expires_at: HOUR, refresh: null }, () => Promise.reject(new Error("never asked")), now);
    await expect(over.token()).rejects.toThrow(SessionEnded);
    expect([refused.seen.ends, alone.seen.ends, over.seen.ends]).toEqual([1, 0, 1]);
  });
});
