import OpenAI from "openai";
import { createContext, useContext } from "react";
import { watched } from "./watched";

/** Where the API is: at the server that gave the page, unless whoever put the page on another host wrote another into it. */
export const SERVER: string =
  document.querySelector<HTMLMetaElement>('meta[name="colloquy-server"]')?.content ?? window.location.origin;

const KEY = "colloquy.key";

/** Keys live in session storage alone: they are gone with the tab. */
export const storedKey = {
  read: (): string | null => sessionStorage.getItem(KEY),
  write: (key: string): void => sessionStorage.setItem(KEY, key),
  forget: (): void => sessionStorage.clear(),
};

/** A key, or what gives a token whenever one is needed. */
export type Credential = string | (() => Promise<string>);

/** The official SDK, and our routes beside its own through the same client. */
export class Api {
  readonly sdk: OpenAI;

  constructor(credential: Credential, server: string = SERVER) {
    this.sdk = new OpenAI({
      apiKey: credential,
      baseURL: `${server}/v1`,
      // The key or token is the person's own; there is no server of ours that could keep it instead.
      dangerouslyAllowBrowser: true,
      maxRetries: 1,
      fetch: watched(),
    });
  }

  /** `path` below /v1. */
  get<T>(path: string, query: object = {}, signal?: AbortSignal): Promise<T> {
    return this.sdk.get<T>(path, { query: given(query), ...(signal && { signal }) });
  }

  post<T>(path: string, body: object = {}): Promise<T> {
    return this.sdk.post<T>(path, { body });
  }

  delete<T>(path: string): Promise<T> {
    return this.sdk.delete<T>(path, {});
  }

  /** `path` below /health; for operators. Metrics come as text. */
  health = {
    get: <T>(path: string, signal?: AbortSignal) => this.get<T>(new URL(`/health${path}`, this.sdk.baseURL).href, {}, signal),
  };

  /** `path` below /admin; needs the scope `operator`. */
  admin = {
    get: <T>(path: string, query: object = {}, signal?: AbortSignal) =>
      this.get<T>(this.#admin(path), query, signal),
    post: <T>(path: string, body: object = {}) => this.post<T>(this.#admin(path), body),
    put: <T>(path: string, body: object) => this.sdk.put<T>(this.#admin(path), { body }),
    delete: <T>(path: string, body: object = {}) => this.sdk.delete<T>(this.#admin(path), { body }),
  };

  #admin(path: string): string {
    return new URL(`/admin${path}`, this.sdk.baseURL).href;
  }
}

/** Without what was left empty, which the server would take for a value. */
function given(query: object): object {
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined && value !== ""));
}

export interface Signed {
  api: Api;
  /** Whether they have the scope `operator`. */
  operator: boolean;
  signOut: () => void;
  /** Signs in anew once a sign-in has ended; absent with a key. */
  again?: () => Promise<void>;
}

export const SignedIn = createContext<Signed | null>(null);

export function useSigned(): Signed {
  const signed = useContext(SignedIn);
  if (!signed) throw new Error("used outside of SignedIn");
  return signed;
}

export function useApi(): Api {
  return useSigned().api;
}
