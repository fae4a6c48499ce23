// An issuer of OpenID Connect, as far as a sign-in by code with PKCE goes. Everybody is let in as Ada, an operator.
import { createHash, createSign, generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";

const base64url = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

export class Issuer {
  client = "console";
  /** Of tokens, in seconds. */
  lifetime = 3600;
  /** What it answers to who wants to sign in, instead of a code. */
  refusal = null;
  /** Refresh tokens are good for nothing. */
  revoked = false;
  /** Put into ID tokens instead of what was asked for. */
  nonce = null;
  refreshed = 0;
  #codes = new Map();
  #keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
  #server = createServer((request, response) => void this.#answer(request, response));

  async listen() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}/tenant`;
  }
  close() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    const json = (status, body) =>
      response.writeHead(status, { "content-type": "application/json", "access-control-allow-origin": "*", "cache-control": "no-store" }).end(JSON.stringify(body));
    switch (url.pathname.replace("/tenant", "")) {
      case "/.well-known/openid-configuration":
        return json(200, { issuer: this.url, authorization_endpoint: `${this.url}/authorize`, token_endpoint: `${this.url}/token`, jwks_uri: `${this.url}/keys` });
      case "/keys":
        return json(200, { keys: [{ ...this.#keys.publicKey.export({ format: "jwk" }), kid: "one", alg: "RS256", use: "sig" }] });
      case "/authorize":
        return response.writeHead(302, { location: this.#authorized(url.searchParams) }).end();
      case "/token": {
        let body = "";
        for await (const chunk of request) body += chunk;
        const given = this.#given(new URLSearchParams(body));
        return json(given.error ? 400 : 200, given);
      }
      default:
        return json(404, {});
    }
  }

  #authorized(asked) {
    const back = new URL(asked.get("redirect_uri"));
    back.searchParams.set("state", asked.get("state"));
    const sound = asked.get("response_type") === "code" && asked.get("client_id") === this.client && asked.get("code_challenge_method") === "S256";
    const error = this.refusal ?? (sound ? null : "invalid_request");
    if (error) back.searchParams.set("error", error);
    else {
      const code = randomUUID();
      this.#codes.set(code, { challenge: asked.get("code_challenge"), nonce: asked.get("nonce"), redirect: asked.get("redirect_uri") });
      back.searchParams.set("code", code);
    }
    return back.href;
  }

  #given(asked) {
    if (asked.get("grant_type") === "refresh_token") {
      if (this.revoked) return { error: "invalid_grant", error_description: "The grant was revoked" };
      this.refreshed += 1;
      return this.#tokens({});
    }
    const code = this.#codes.get(asked.get("code"));
    this.#codes.delete(asked.get("code"));
    const challenge = createHash("sha256").update(asked.get("code_verifier") ?? "").digest("base64url");
    const sound = code && code.challenge === challenge && code.redirect === asked.get("redirect_uri") && asked.get("client_id") === this.client;
    return sound ? this.#tokens({ nonce: this.nonce ?? code.nonce }) : { error: "invalid_grant", error_description: "No such code" };
  }

  #tokens(id) {
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: this.url, sub: "ada", iat: now, exp: now + this.lifetime };
    return {
      token_type: "Bearer",
      expires_in: this.lifetime,
      access_token: this.#signed({ ...claims, aud: "colloquy", roles: ["operator"] }),
      id_token: this.#signed({ ...claims, aud: this.client, ...id }),
      refresh_token: randomUUID(),
    };
  }

  #signed(claims) {
    const text = `${base64url({ alg: "RS256", kid: "one", typ: "JWT" })}.${base64url(claims)}`;
    return `${text}.${createSign("RSA-SHA256").update(text).sign(this.#keys.privateKey).toString("base64url")}`;
  }
}
