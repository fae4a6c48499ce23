import { isAbort, statusOf } from "../api/errors";
import type { StreamEvent } from "../api/types";
import { SessionEnded } from "../signin/tokens";
import { isLast } from "./turn";

/** Where events come from; the SDK in the browser, a script in tests. */
export interface Source {
  /** Asks for the turn. Asked again, it must attach to the same one (`Idempotency-Key`). */
  begin(signal: AbortSignal): Promise<AsyncIterable<StreamEvent>>;
  /** What comes behind event number `after`; -1 is all. */
  resume(id: string, after: number, signal: AbortSignal): Promise<AsyncIterable<StreamEvent>>;
}

/** How the connection stands. */
export type Link = { state: "connecting" } | { state: "live" } | { state: "healing"; attempt: number };

export interface Following {
  source: Source;
  signal: AbortSignal;
  /** A turn that was begun before, such as before the page was loaded again. */
  id?: string | null;
  onLink?: (link: Link) => void;
  /** Ends early when the network is back. */
  pause?: (attempt: number, signal: AbortSignal) => Promise<void>;
}

/** Answers to a first request that mean there is no turn, tried so often before they are told. */
const REFUSALS_MAX = 3;

/**
 * The events of a turn, each once and in order, whatever happens to the connection: it asks again behind the last
 * event that came, until the last one has come or `signal` ends it.
 *
 * Throws what no further try would change: a request that is refused, a turn that is gone, a key that has ended.
 */
export async function* follow(following: Following): AsyncGenerator<StreamEvent> {
  const { source, signal, onLink = () => undefined, pause = patiently } = following;
  let id = following.id ?? null;
  let after = -1;
  let attempt = 0;
  onLink({ state: "connecting" });
  while (!signal.aborted) {
    try {
      const events = id === null ? await source.begin(signal) : await source.resume(id, after, signal);
      for await (const event of events) {
        // What came before a cut may come again.
        if (event.sequence_number <= after) continue;
        after = event.sequence_number ?? after;
        id ??= event.response?.id ?? null;
        attempt = 0;
        onLink({ state: "live" });
        yield event;
        if (isLast(event)) return;
      }
    } catch (error) {
      if (signal.aborted || isAbort(error)) return;
      if (isFinal(error, id === null, attempt)) throw error;
    }
    attempt += 1;
    onLink({ state: "healing", attempt });
    await pause(attempt, signal);
  }
}

function isFinal(error: unknown, beginning: boolean, attempt: number): boolean {
  if (error instanceof SessionEnded) return true;
  const status = statusOf(error);
  // Without a status no answer came: the connection is at fault, and heals.
  if (status === undefined) return false;
  if (status < 500 && status !== 408 && status !== 425 && status !== 429) return true;
  return beginning && attempt >= REFUSALS_MAX - 1;
}

/** Half a second and ever longer, up to 10 s, each with some chance in it: all pages of a server that is back come at once. */
export function delay(attempt: number, chance: number = Math.random()): number {
  return Math.min(10_000, 500 * 2 ** (attempt - 1)) * (0.75 + chance / 2);
}

function patiently(attempt: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      clearTimeout(timer);
      window.removeEventListener("online", go);
      signal.removeEventListener("abort", go);
      resolve();
    };
    const timer = setTimeout(go, delay(attempt));
    window.addEventListener("online", go);
    signal.addEventListener("abort", go);
  });
}
