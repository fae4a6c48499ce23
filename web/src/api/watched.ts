/** Nothing came for so long: the connection is dead although nobody said so, as after a laptop's sleep. */
export class Silence extends Error {
  constructor() {
    super("The connection fell silent.");
    this.name = "Silence";
  }
}

/** The server writes a comment at least every HEARTBEAT (30 s at most), so more is the sign of a dead connection. */
const PATIENCE = 45_000;
const LOOK_EVERY = 2_500;

/** `fetch` whose event streams fail when they fall silent, instead of hanging until the system notices. */
export function watched(inner: typeof fetch = (...args) => fetch(...args), patience = PATIENCE): typeof fetch {
  return async (input, init) => {
    const response = await inner(input, init);
    const streams = response.headers.get("content-type")?.startsWith("text/event-stream");
    if (!streams || !response.body) return response;
    return new Response(watch(response.body, patience), response);
  };
}

function watch(body: ReadableStream<Uint8Array>, patience: number): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let last = Date.now();
  let timer: ReturnType<typeof setInterval> | undefined;
  const rest = () => clearInterval(timer);
  return new ReadableStream<Uint8Array>({
    start(controller) {
      timer = setInterval(
        () => {
          if (Date.now() - last <= patience) return;
          rest();
          controller.error(new Silence());
          reader.cancel().catch(() => undefined);
        },
        Math.min(LOOK_EVERY, patience),
      );
    },
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        last = Date.now();
        if (done) {
          rest();
          controller.close();
        } else {
          controller.enqueue(value);
        }
      } catch (error) {
        rest();
        controller.error(error);
      }
    },
    cancel(reason) {
      rest();
      return reader.cancel(reason);
    },
  });
}
