import { OpenAIError } from "openai";
import type { SignInConfig } from "./config";

/** What the issuer gave. */
export interface Tokens {
  /** What the server is sent. */
  sent: string;
  /** In ms. */
  expires_at: number;
  /** Without it somebody signs in again. */
  refresh: string | null;
}

/** A sign-in as it is kept: in session storage alone, gone with the tab. */
export interface SignedInBy {
  config: SignInConfig;
  tokens: Tokens;
}

/** No token can be had any more without a person. The SDK passes its own errors on as they are. */
export class SessionEnded extends OpenAIError {
  constructor(why: string) {
    super(`Your sign-in has ended: ${why}`);
    this.name = "SessionEnded";
  }
}

/** A token is renewed when it ends within so many ms: what is asked with it is still on its way. */
export const EARLY = 60_000;

const KEY = "colloquy.tokens";

export const storedTokens = {
  read: (): SignedInBy | null => {
    try {
      return JSON.parse(sessionStorage.getItem(KEY) ?? "null") as SignedInBy | null;
    } catch {
      return null;
    }
  },
  write: (by: SignedInBy): void => sessionStorage.setItem(KEY, JSON.stringify(by)),
};

export type Renew = (config: SignInConfig, tokens: Tokens) => Promise<Tokens>;

/** The token to send now, renewed in time and once for all who ask meanwhile. */
export class TokenSource {
  #renewing: Promise<string> | null = null;

  constructor(
    private by: SignedInBy,
    private readonly renew: Renew,
    private readonly keep: (by: SignedInBy) => void,
    private readonly onEnd: () => void,
    private readonly now: () => number = Date.now,
  ) {}

  token = async (): Promise<string> => {
    const { tokens } = this.by;
    const left = tokens.expires_at - this.now();
    if (left > EARLY || (left > 0 && tokens.refresh === null)) return tokens.sent;
    if (tokens.refresh === null) return this.#end("nothing was given to renew it with.");
    this.#renewing ??= this.#renewed().finally(() => (this.#renewing = null));
    return this.#renewing;
  };

  async #renewed(): Promise<string> {
    const { config, tokens } = this.by;
    try {
      this.by = { config, tokens: await this.renew(config, tokens) };
    } catch (error) {
      if (error instanceof SessionEnded) this.onEnd();
      // The issuer may be away for a moment; what is still good is used meanwhile.
      else if (tokens.expires_at > this.now()) return tokens.sent;
      throw error;
    }
    this.keep(this.by);
    return this.by.tokens.sent;
  }

  #end(why: string): never {
    this.onEnd();
    throw new SessionEnded(why);
  }
}
