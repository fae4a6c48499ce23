// What checks stand on: a real conversation server behind a cable, and an issuer of tokens.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { preview } from "vite";
import { Issuer } from "./issuer.mjs";
import { browser, until, watched } from "./pages.mjs";

export * from "./pages.mjs";

export const key = process.env.COLLOQUY_DEV_API_KEY;

const freePort = () =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });

/** One of ours as a process: the conversation server, or the function app. */
class Running {
  constructor(command, live, withPort) {
    Object.assign(this, { command, live, withPort });
  }
  async start() {
    this.port ??= await freePort();
    const [program, ...args] = [...this.command, ...this.withPort(this.port)];
    const environment = { ...process.env, PORT: String(this.port), BIND_ADDRESS: "127.0.0.1" };
    this.child = spawn(program, args, { cwd: new URL("../..", import.meta.url), env: environment, stdio: ["ignore", "ignore", "ignore"] });
    await until(`${program} answers`, async () => (await fetch(`http://127.0.0.1:${this.port}${this.live}`)).ok, 60_000);
  }
  stop(signal) {
    return new Promise((resolve) => {
      if (this.child.exitCode !== null || this.child.signalCode !== null) return resolve();
      this.child.once("exit", resolve);
      this.child.kill(signal);
    });
  }
}

export const server = new Running(JSON.parse(process.env.CONSOLE_SERVER), "/health/live", () => []);
export const app = new Running(JSON.parse(process.env.CONSOLE_APP), "/api/health/live", (port) => ["--port", String(port)]);
// Whatever ends this, they end with it.
process.on("exit", () => [server, app].forEach(({ child }) => child?.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
// Whom people sign in with; the server takes its tokens, and tells the console of it.
export const issuer = new Issuer();
await issuer.listen();
Object.assign(process.env, {
  AUTH_JWT_ISSUERS: JSON.stringify([{ issuer: issuer.url, audience: "colloquy", operator_role: "operator" }]),
  CONSOLE_OIDC_ISSUER: issuer.url,
  CONSOLE_OIDC_CLIENT_ID: issuer.client,
  CONSOLE_OIDC_SCOPE: "openid offline_access api",
});
await server.start();
// A server that was built with this console serves it; one that has none, or an older one, is put behind a proxy.
export let address = `http://127.0.0.1:${server.port}`;
const embedded = (await (await fetch(address)).text()) === readFileSync(new URL("../dist/index.html", import.meta.url), "utf8");
export let proxy;
if (!embedded) {
  process.env.COLLOQUY_CONSOLE_SERVER = address;
  const root = new URL("..", import.meta.url).pathname;
  proxy = await preview({ root, logLevel: "error", preview: { port: await freePort(), host: "127.0.0.1", strictPort: true } });
  address = proxy.resolvedUrls.local[0].replace(/\/$/, "").replace("localhost", "127.0.0.1");
}
/** Stands between the browser and the rest, and can be cut like a cable, or lose its connections without a word. */
class Cable {
  #pairs = new Set();
  #cut = false;
  async lay(to) {
    const server = createServer((near) => {
      if (this.#cut) return near.destroy();
      const pair = [near, connect(to, "127.0.0.1")];
      this.#pairs.add(pair);
      for (const [one, other] of [pair, pair.toReversed()]) {
        one.on("error", () => undefined).on("close", () => { this.#pairs.delete(pair); other.destroy(); });
        one.pipe(other);
      }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    return server.address().port;
  }
  cut() {
    this.#cut = true;
    for (const end of [...this.#pairs].flat()) end.destroy();
  }
  /** As while a laptop sleeps: nothing comes any more, nobody says so, and who sends something learns that it is over. */
  sleep() {
    this.#cut = true;
    for (const [near, far] of this.#pairs) {
      far.unpipe(near);
      near.unpipe(far);
      near.on("data", () => near.destroy()).resume();
    }
  }
  mend() {
    this.#cut = false;
  }
}
export const cable = new Cable();
address = `http://127.0.0.1:${await cable.lay(Number(new URL(address).port))}`;
console.log(`the console is served by ${embedded ? "the server" : "vite, in front of the server"}`);

/**
 * A page in a browser of its own. `signsIn`: it may go to the issuer, and to nobody else but the server. `clocked`: its
 * clock can be moved.
 */
export async function open({ signedIn = true, signsIn = false, clocked = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  watched(page, [address, ...(signsIn ? [new URL(issuer.url).origin] : [])]);
  if (clocked) await page.clock.install();
  await page.goto(address);
  if (signedIn) {
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.getByLabel("Message").waitFor();
  }
  return page;
}

/** The answer the server has stored, which what is seen must equal. */
export async function stored(page) {
  const id = decodeURIComponent(page.url().split("#/talk/")[1]);
  const items = await fetch(`http://127.0.0.1:${server.port}/v1/conversations/${id}/items?limit=100&order=desc`, {
    headers: { authorization: `Bearer ${key}` },
  }).then((answer) => answer.json());
  return items.data.find(({ role }) => role === "assistant").content[0].text.replace(/\s+/g, " ").trim();
}
