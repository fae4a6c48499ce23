import { beforeEach, describe, expect, it, vi } from "vitest";
import { begin, end, renew } from "./oidc";
import { SessionEnded } from "./tokens";

const ISSUER = "https://login.test/tenant/v2.0";
const CONFIG = { issuer: ISSUER, client_id: "spa", scope: "openid offline_access", token: "access" as const };

/** The issuer, and the browser as far as a sign-in needs it. */
const world = {
  kept: new Map<string, string>(),
  went: null as URL | null,
  asked: [] as URLSearchParams[],
  /** What its answer is changed by. */
  claims: {} as Record<string, unknown>,
  tokens: {} as Record<string, unknown>,
  refusal: null as Record<string, string> | null,
  metadata: {} as Record<string, unknown>,
};

const base64url = (text: string) => btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const part = (value: object) => base64url(JSON.stringify(value));
const idToken = (claims: object) => `${part({ alg: "RS256", kid: "k" })}.${part(claims)}.c2lnbmF0dXJl`;
const answer = (status: number, body: object) => new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });

async function issuer(input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const url = String(input instanceof Request ? input.url : input);
  if (url === `${ISSUER}/.well-known/openid-configuration`) {
    return answer(200, { issuer: ISSUER, authorization_endpoint: "https://login.test/authorize", token_endpoint: "https://login.test/token", jwks_uri: "https://login.test/keys", ...world.metadata });
  }
  expect(url).toBe("https://login.test/token");
  world.asked.push(new URLSearchParams(String(init?.body)));
  if (world.refusal) return answer(400, world.refusal);
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: ISSUER, aud: "spa", sub: "ada", iat: now, exp: now + 600, nonce: world.went?.searchParams.get("nonce"), ...world.claims };
  return answer(200, { access_token: "access", token_type: "Bearer", expires_in: 300, refresh_token: "refresh", id_token: idToken(claims), ...world.tokens });
}

beforeEach(() => {
  Object.assign(world, { kept: new Map(), went: null, asked: [], claims: {}, tokens: {}, refusal: null, metadata: {} });
  vi.stubGlobal("fetch", issuer);
  vi.stubGlobal("sessionStorage", {
    getItem: (name: string) => world.kept.get(name) ?? null,
    setItem: (name: string, value: string) => world.kept.set(name, value),
    removeItem: (name: string) => world.kept.delete(name),
  });
  vi.stubGlobal("window", { location: { href: "https://chat.test/#/usage", hash: "#/usage", assign: (to: URL) => (world.went = to) } });
});

const back = (change: Record<string, string> = {}) =>
  new URLSearchParams({ code: "a code", state: world.went?.searchParams.get("state") ?? "", ...change });

describe("a sign-in", () => {
  it("asks for a code bound to state, nonce and verifier, and ends with tokens and the place left", async () => {
    await begin(CONFIG);
    const asked = world.went?.searchParams;
    expect(Object.fromEntries(asked ?? [])).toMatchObject({ response_type: "code", client_id: "spa", redirect_uri: "https://chat.test/", scope: CONFIG.scope, code_challenge_method: "S256" });
    const { by, back: place } = await end(back());
    expect([by.tokens.sent, by.tokens.refresh, place]).toEqual(["access", "refresh", "#/usage"]);
    const [exchange] = world.asked;
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(exchange?.get("code_verifier") ?? ""));
    expect(base64url(String.fromCharCode(...new Uint8Array(hash)))).toBe(asked?.get("code_challenge"));
    expect([exchange?.get("grant_type"), exchange?.get("code"), exchange?.get("client_secret")]).toEqual(["authorization_code", "a code", null]);
  });

  it("sends the ID token where that is what the server takes, and knows its end", async () => {
    await begin({ ...CONFIG, token: "id" });
    const { by } = await end(back());
    expect(by.tokens.sent.split(".")).toHaveLength(3);
    expect(by.tokens.expires_at - Date.now()).toBeGreaterThan(590_000);
  });

  it("that somebody else began, or that was ended before, ends with nobody signed in", async () => {
    await expect(end(back())).rejects.toThrow("not begun in this tab");
    await begin(CONFIG);
    await expect(end(back({ state: "another" }))).rejects.toThrow("not what was asked for");
    expect(world.asked).toEqual([]);
    await expect(end(back())).rejects.toThrow("not begun in this tab");
  });

  it.each([
    ["another nonce", { nonce: "another" }],
    ["another issuer", { iss: "https://evil.test" }],
    ["another client", { aud: "other" }],
    ["a token that has ended", { exp: 1 }],
  ])("with %s ends with nobody signed in", async (_, claims) => {
    await begin(CONFIG);
    world.claims = claims;
    await expect(end(back())).rejects.toThrow("not what was asked for");
  });

  it("tells what the issuer says", async () => {
    await begin(CONFIG);
    const refused = new URLSearchParams({ error: "access_denied", error_description: "You may not", state: back().get("state") ?? "" });
    await expect(end(refused)).rejects.toThrow("You may not (access_denied)");
    await begin(CONFIG);
    world.refusal = { error: "invalid_grant", error_description: "The code is old" };
    await expect(end(back())).rejects.toThrow("The code is old (invalid_grant)");
  });

  it("with an issuer that calls itself otherwise, or that is away, is not begun", async () => {
    world.metadata = { issuer: "https://evil.test" };
    await expect(begin(CONFIG)).rejects.toThrow("not what was asked for");
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(begin(CONFIG)).rejects.toThrow("cannot be reached");
    expect(world.went).toBeNull();
  });
});

describe("a renewal", () => {
  const tokens = { sent: "access", expires_at: 0, refresh: "refresh" };

  it("keeps the refresh token unless there is a new one", async () => {
    world.tokens = { access_token: "second", refresh_token: undefined, id_token: undefined };
    expect(await renew(CONFIG, tokens)).toMatchObject({ sent: "second", refresh: "refresh" });
    expect(world.asked[0]?.get("grant_type")).toBe("refresh_token");
  });

  it("that is refused ends the sign-in; an issuer that is away does not", async () => {
    world.refusal = { error: "invalid_grant", error_description: "It was revoked" };
    await expect(renew(CONFIG, tokens)).rejects.toThrow(new SessionEnded("It was revoked (invalid_grant)"));
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(renew(CONFIG, tokens)).rejects.not.toBeInstanceOf(SessionEnded);
  });

  it("that brings no ID token where one is sent ends the sign-in", async () => {
    world.tokens = { id_token: undefined };
    await expect(renew({ ...CONFIG, token: "id" }, tokens)).rejects.toThrow(SessionEnded);
  });
});
