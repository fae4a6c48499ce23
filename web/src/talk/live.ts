import type { ResponseCreateParamsStreaming } from "openai/resources/responses/responses";
import { told } from "../api/errors";
import type { Api } from "../api/session";
import type { Item, StreamEvent } from "../api/types";
import { type Link, type Source, follow } from "./follow";
import { Pace } from "./pace";
import { Tabs } from "./tabs";
import { NEW_TURN, type Turn, reduce } from "./turn";

/** What a turn is asked with. */
export interface Ask {
  model: string;
  instructions?: string;
  input: Item[];
  tools?: object[];
  text?: object;
}

/** A turn that is followed, in one conversation. */
export interface Live {
  turn: Turn;
  link: Link;
  /** What was asked, until the conversation shows it by itself. */
  asked: Item[];
  /** The stream is over; the conversation has, or will have, what came of it. */
  over: boolean;
  /** Somebody pressed stop. */
  stopping: boolean;
  /** Why it could not be asked or followed. */
  error: { message: string; code: string | null } | null;
}

/** What is kept in session storage, so that a page that is loaded again goes on where it was. */
type Kept = { id: string } | { key: string; ask: Ask };

const RUNNING = "colloquy.running";

const CLIENTS = new WeakMap<Api, LiveTurns>();

/** The one of this client: a turn must not be followed twice. */
export function liveTurns(api: Api): LiveTurns {
  let live = CLIENTS.get(api);
  if (!live) {
    live = new LiveTurns(api);
    CLIENTS.set(api, live);
  }
  return live;
}

/** All turns that this page follows. They go on while another conversation is looked at. */
export class LiveTurns {
  #live = new Map<string, Live>();
  #ends = new Map<string, AbortController>();
  #listeners = new Set<() => void>();
  #pace = new Pace(() => {
    for (const listener of this.#listeners) listener();
  });
  #channel = new BroadcastChannel("colloquy.turns");
  /** What other tabs follow. */
  readonly tabs = new Tabs(
    this.#channel,
    (conversation) => this.#running(conversation),
    () => this.#tell(),
  );

  constructor(readonly api: Api) {
    for (const [conversation, kept] of Object.entries(read())) {
      if ("id" in kept) this.#run(conversation, null, kept.id);
      else this.#run(conversation, kept, null);
    }
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  get(conversation: string): Live | undefined {
    return this.#live.get(conversation);
  }

  /** Asks for a turn and follows it. */
  start(conversation: string, ask: Ask): void {
    this.#run(conversation, { key: crypto.randomUUID(), ask }, null);
  }

  /** Follows a turn that began elsewhere. */
  attach(conversation: string, id: string): void {
    keep(conversation, { id });
    this.#run(conversation, null, id);
  }

  #running(conversation: string): string | null {
    const live = this.#live.get(conversation);
    return live && !live.over ? live.turn.id : null;
  }

  /** Cancels the turn itself, not only the watching. */
  async stop(conversation: string): Promise<void> {
    const live = this.#live.get(conversation);
    if (!live || live.over) return;
    this.#change(conversation, { stopping: true });
    const id = live.turn.id;
    if (id === null) {
      // Its id comes with the first event, and is cancelled then. While the server is away, waiting for it has no end.
      if (live.link.state === "healing") this.#giveUp(conversation);
      return;
    }
    await this.#cancel(conversation, id);
  }

  async #cancel(conversation: string, id: string): Promise<void> {
    try {
      await this.api.sdk.responses.cancel(id);
    } catch (error) {
      this.#change(conversation, { stopping: false, error: told(error) });
    }
  }

  #giveUp(conversation: string): void {
    keep(conversation, null);
    this.#ends.get(conversation)?.abort();
    this.#ends.delete(conversation);
    this.#change(conversation, { over: true });
  }

  /** The conversation shows by itself what came. */
  dismiss(conversation: string): void {
    if (this.#live.get(conversation)?.over && this.#live.delete(conversation)) this.#tell();
  }

  /** Stops watching; turns go on. */
  close(): void {
    for (const end of this.#ends.values()) end.abort();
    this.#channel.close();
  }

  #run(conversation: string, begin: { key: string; ask: Ask } | null, id: string | null): void {
    this.#ends.get(conversation)?.abort();
    const end = new AbortController();
    this.#ends.set(conversation, end);
    const asked = begin?.ask.input ?? [];
    this.#live.set(conversation, {
      turn: { ...NEW_TURN, id },
      link: { state: "connecting" },
      asked,
      over: false,
      stopping: false,
      error: null,
    });
    if (begin) keep(conversation, begin);
    this.#tell();
    void this.#watch(conversation, begin, id, end.signal);
  }

  async #watch(conversation: string, begin: { key: string; ask: Ask } | null, id: string | null, signal: AbortSignal) {
    const onLink = (link: Link) => this.#change(conversation, { link }, signal);
    try {
      for await (const event of follow({ source: this.#source(conversation, begin), signal, id, onLink })) {
        const live = this.#live.get(conversation);
        if (!live || signal.aborted) return;
        const turn = reduce(live.turn, event);
        if (turn.id !== null && live.turn.id === null) {
          keep(conversation, { id: turn.id });
          this.tabs.began(conversation, turn.id);
          if (live.stopping) void this.#cancel(conversation, turn.id);
        }
        this.#change(conversation, { turn }, signal);
      }
    } catch (error) {
      this.#change(conversation, { error: told(error) }, signal);
    }
    if (signal.aborted) return;
    keep(conversation, null);
    this.#ends.delete(conversation);
    this.tabs.ended(conversation);
    this.#change(conversation, { over: true }, signal);
  }

  #source(conversation: string, begin: { key: string; ask: Ask } | null): Source {
    const { responses } = this.api.sdk;
    return {
      begin: async (signal) => {
        // Retried here, under one key, rather than by the SDK, which would not say so.
        const options = { signal, maxRetries: 0, headers: { "idempotency-key": begin?.key ?? "" } };
        // `on_disconnect` is Colloquy's: the turn outlives the page, which comes back for it.
        const body = { ...begin?.ask, conversation, stream: true, on_disconnect: "continue" };
        return events(await responses.create(body as unknown as ResponseCreateParamsStreaming, options));
      },
      resume: async (id, after, signal) => {
        const query = { stream: true as const, ...(after >= 0 && { starting_after: after }) };
        return events(await responses.retrieve(id, query, { signal, maxRetries: 0 }));
      },
    };
  }

  #change(conversation: string, change: Partial<Live>, signal?: AbortSignal): void {
    const live = this.#live.get(conversation);
    if (!live || signal?.aborted) return;
    this.#live.set(conversation, { ...live, ...change });
    this.#tell();
  }

  #tell(): void {
    this.#pace.due();
  }
}

/** The SDK's events, whose types are a subset of what comes. */
function events(stream: AsyncIterable<unknown>): AsyncIterable<StreamEvent> {
  return stream as AsyncIterable<StreamEvent>;
}

function read(): Record<string, Kept> {
  try {
    return JSON.parse(sessionStorage.getItem(RUNNING) ?? "{}") as Record<string, Kept>;
  } catch {
    return {};
  }
}

function keep(conversation: string, kept: Kept | null): void {
  const all = read();
  if (kept) all[conversation] = kept;
  else delete all[conversation];
  try {
    sessionStorage.setItem(RUNNING, JSON.stringify(all));
  } catch {
    // Too large, as an image may be: a page that is loaded again before its turn began then does not find it.
  }
}
