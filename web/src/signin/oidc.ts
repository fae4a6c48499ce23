import * as oauth from "oauth4webapi";
import type { SignInConfig } from "./config";
import { SessionEnded, type SignedInBy, type Tokens } from "./tokens";

/** What has to be the same when somebody comes back from the issuer; kept in the tab meanwhile. */
interface Begun {
  config: SignInConfig;
  state: string;
  nonce: string;
  verifier: string;
  /** Where in the console they were. */
  back: string;
}

const BEGUN = "colloquy.sign-in";

/** The console's own address, as the issuer knows it. */
export const redirectUri = (): string => new URL("/", window.location.href).href;

/** The server lets plain HTTP through on a developer's machine alone. */
const options = ({ issuer }: SignInConfig) => ({ [oauth.allowInsecureRequests]: new URL(issuer).protocol === "http:" });

async function discovered(config: SignInConfig): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(config.issuer);
  return oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: "oidc", ...options(config) }));
}

/** Leaves the page for the issuer's. */
export async function begin(config: SignInConfig): Promise<void> {
  const { authorization_endpoint } = await told(discovered(config));
  if (!authorization_endpoint) throw new Error("The issuer names no page to sign in at.");
  const begun: Begun = {
    config,
    state: oauth.generateRandomState(),
    nonce: oauth.generateRandomNonce(),
    verifier: oauth.generateRandomCodeVerifier(),
    back: window.location.hash,
  };
  sessionStorage.setItem(BEGUN, JSON.stringify(begun));
  const to = new URL(authorization_endpoint);
  const asked = {
    response_type: "code",
    client_id: config.client_id,
    redirect_uri: redirectUri(),
    scope: config.scope,
    state: begun.state,
    nonce: begun.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(begun.verifier),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(asked)) to.searchParams.set(name, value);
  window.location.assign(to);
}

/**
 * Somebody comes back with `query`. Each sign-in can be ended once, whatever comes of it: its state, nonce and verifier
 * are forgotten first.
 */
export async function end(query: URLSearchParams): Promise<{ by: SignedInBy; back: string }> {
  const text = sessionStorage.getItem(BEGUN);
  sessionStorage.removeItem(BEGUN);
  if (text === null) throw new Error("This sign-in was not begun in this tab, or was ended already. Begin again.");
  const { config, state, nonce, verifier, back } = JSON.parse(text) as Begun;
  const tokens = await told(
    (async () => {
      const server = await discovered(config);
      const client = { client_id: config.client_id };
      const code = oauth.validateAuthResponse(server, client, query, state);
      const answer = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), code, redirectUri(), verifier, options(config));
      const given = await oauth.processAuthorizationCodeResponse(server, client, answer, { expectedNonce: nonce, requireIdToken: true });
      return tokensOf(config, given, null);
    })(),
  );
  return { by: { config, tokens }, back };
}

/** New tokens for a refresh token. Throws `SessionEnded` if the issuer says that there will be none. */
export async function renew(config: SignInConfig, tokens: Tokens): Promise<Tokens> {
  const server = await discovered(config);
  const client = { client_id: config.client_id };
  try {
    const answer = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), tokens.refresh ?? "", options(config));
    return tokensOf(config, await oauth.processRefreshTokenResponse(server, client, answer), tokens);
  } catch (error) {
    if (error instanceof oauth.ResponseBodyError && error.status < 500) throw new SessionEnded(said(error));
    throw error;
  }
}

function tokensOf({ token }: SignInConfig, given: oauth.TokenEndpointResponse, before: Tokens | null): Tokens {
  const refresh = given.refresh_token ?? before?.refresh ?? null;
  if (token === "access") return { sent: given.access_token, expires_at: Date.now() + (given.expires_in ?? 3600) * 1000, refresh };
  const claims = oauth.getValidatedIdTokenClaims(given);
  if (!claims || !given.id_token) throw new SessionEnded("the issuer renewed the access token, but not the ID token.");
  return { sent: given.id_token, expires_at: claims.exp * 1000, refresh };
}

/** Errors of a sign-in, in words for the person. */
async function told<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof oauth.AuthorizationResponseError || error instanceof oauth.ResponseBodyError) {
      throw new Error(`The issuer refused the sign-in: ${said(error)}`, { cause: error });
    }
    if (error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError) {
      throw new Error(`What the issuer sent is not what was asked for, so nobody is signed in: ${error.message}.`, { cause: error });
    }
    if (error instanceof TypeError) throw new Error("The issuer cannot be reached. Check the network, and whether it lets this page call it.", { cause: error });
    throw error;
  }
}

function said({ error, error_description }: { error: string; error_description?: string }): string {
  return error_description ? `${error_description} (${error})` : error;
}
