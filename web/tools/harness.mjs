// What checks stand on: a real conversation server behind a cable, an issuer of tokens, Chromium, and words for what is done there.
import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { chromium } from "playwright-core";
import { preview } from "vite";
import { Issuer } from "./issuer.mjs";

export const reports = process.env.CONSOLE_REPORTS;
export const key = process.env.COLLOQUY_DEV_API_KEY;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(reports, { recursive: true });

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

export async function until(what, holds, patience = 20_000) {
  const end = Date.now() + patience;
  for (;;) {
    try {
      if (await holds()) return;
    } catch {
      // Not yet.
    }
    if (Date.now() > end) throw new Error(`not within ${patience / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
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
/** Stands between the browser and the rest, and can be cut like a cable. */
class Cable {
  #ends = new Set();
  #cut = false;
  async lay(to) {
    const server = createServer((near) => {
      if (this.#cut) return near.destroy();
      const far = connect(to, "127.0.0.1");
      for (const [one, other] of [[near, far], [far, near]]) {
        this.#ends.add(one);
        one.on("error", () => undefined).on("close", () => { this.#ends.delete(one); other.destroy(); });
        one.pipe(other);
      }
    });
    const port = await freePort();
    await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
    return port;
  }
  cut() {
    this.#cut = true;
    for (const end of this.#ends) end.destroy();
  }
  mend() {
    this.#cut = false;
  }
}
export const cable = new Cable();
address = `http://127.0.0.1:${await cable.lay(Number(new URL(address).port))}`;
console.log(`the console is served by ${embedded ? "the server" : "vite, in front of the server"}`);

export const browser = await chromium.launch({ executablePath: process.env.CONSOLE_CHROMIUM, args: ["--no-sandbox"] });
export const problems = [];

/** A page in a browser of its own. `signsIn`: it may go to the issuer, and to nobody else but the server. */
export async function open({ signedIn = true, signsIn = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => problems.push(`page: ${error.message}`));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) problems.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    const known = [address, ...(signsIn ? [issuer.url] : [])].some((one) => url.startsWith(one));
    if (!known && !/^(data|blob):/.test(url)) problems.push(`a request to a third party: ${url}`);
  });
  await page.goto(address);
  if (signedIn) {
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.getByLabel("Message").waitFor();
  }
  return page;
}

export const say = async (page, text) => {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
};
export const answer = (page) => page.getByRole("region", { name: "Answer" }).last();
export const said = async (page) => (await answer(page).innerText()).replace(/\s+/g, " ").trim();
// Not by its role: that is looked up in all of a long answer, again and again while it streams.
export const ended = (page) => page.locator(".quiet-actions button", { hasText: "Regenerate" }).waitFor({ timeout: 60_000 });

/** The answer the server has stored, which what is seen must equal. */
export async function stored(page) {
  const id = decodeURIComponent(page.url().split("#/talk/")[1]);
  const items = await fetch(`http://127.0.0.1:${server.port}/v1/conversations/${id}/items?limit=100&order=desc`, {
    headers: { authorization: `Bearer ${key}` },
  }).then((answer) => answer.json());
  return items.data.find(({ role }) => role === "assistant").content[0].text.replace(/\s+/g, " ").trim();
}

export async function accessible(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }),
  );
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  assert.deepEqual(told, [], `accessibility of ${where}`);
}
export const picture = (page, name) => page.screenshot({ path: `${reports}/${name}.png` });
