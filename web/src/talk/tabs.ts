/** What tabs of one browser tell each other of turns. */
type Message = { is: "asks" | "over"; conversation: string } | { is: "runs"; conversation: string; id: string };

/** A `BroadcastChannel`, as far as it is used. */
export interface Channel {
  postMessage(message: unknown): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
}

/** Another tab says again that it runs a turn when it is asked, which is every so many ms. */
const ASK_EVERY = 5_000;
/** One that says nothing for so long was closed. */
const SILENT = 3 * ASK_EVERY;

/**
 * Turns that other tabs follow. A conversation is asked about while somebody looks at it; who follows its turn answers.
 */
export class Tabs {
  #runs = new Map<string, { id: string; at: number }>();

  /** `mine` gives the id of the turn that this tab follows in a conversation. */
  constructor(
    private readonly channel: Channel,
    private readonly mine: (conversation: string) => string | null,
    private readonly onChange: () => void,
    private readonly now: () => number = Date.now,
  ) {
    channel.addEventListener("message", ({ data }) => this.#take(data as Message));
  }

  /** The turn that another tab follows there, if any. */
  runs(conversation: string): string | null {
    return this.#runs.get(conversation)?.id ?? null;
  }

  /** Asks now and then until the function it gives is called. */
  watch(conversation: string): () => void {
    const ask = () => {
      const run = this.#runs.get(conversation);
      if (run && this.now() - run.at > SILENT) this.#forget(conversation);
      this.#tell({ is: "asks", conversation });
    };
    ask();
    const timer = setInterval(ask, ASK_EVERY);
    return () => clearInterval(timer);
  }

  began(conversation: string, id: string): void {
    this.#tell({ is: "runs", conversation, id });
  }

  ended(conversation: string): void {
    this.#tell({ is: "over", conversation });
  }

  #tell(message: Message): void {
    this.channel.postMessage(message);
  }

  #take(message: Message): void {
    const { conversation } = message;
    if (message.is === "asks") {
      const id = this.mine(conversation);
      if (id !== null) this.began(conversation, id);
    } else if (message.is === "over") {
      this.#forget(conversation);
    } else if (message.is === "runs") {
      const known = this.#runs.get(conversation)?.id;
      this.#runs.set(conversation, { id: message.id, at: this.now() });
      if (known !== message.id) this.onChange();
    }
  }

  #forget(conversation: string): void {
    if (this.#runs.delete(conversation)) this.onChange();
  }
}
