import { SERVER } from "../api/session";

/** How people sign in by OpenID Connect, as the server says (`CONSOLE_OIDC_…`). */
export interface SignInConfig {
  issuer: string;
  client_id: string;
  /** Separated by spaces. */
  scope: string;
  /** Which of the issuer's tokens the server takes. */
  token: "access" | "id";
}

/** `null`: with API keys alone, which is also what a server that cannot be asked leaves. */
export async function signInConfig(): Promise<SignInConfig | null> {
  try {
    const answer = await fetch(`${SERVER}/console.json`);
    if (!answer.ok) return null;
    return ((await answer.json()) as { sign_in: SignInConfig | null }).sign_in;
  } catch {
    return null;
  }
}
