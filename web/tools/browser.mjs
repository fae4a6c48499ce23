// Chromium against a real conversation server, as scripts/console starts it. One check after the other, each with a name.
import { strict as assert } from "node:assert";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { chromium } from "playwright-core";
import { preview } from "vite";

const reports = process.env.CONSOLE_REPORTS;
const key = process.env.COLLOQUY_DEV_API_KEY;
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

async function until(what, holds, patience = 20_000) {
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

const server = new Running(JSON.parse(process.env.CONSOLE_SERVER), "/health/live", () => []);
const app = new Running(JSON.parse(process.env.CONSOLE_APP), "/api/health/live", (port) => ["--port", String(port)]);
// Whatever ends this, they end with it.
process.on("exit", () => [server, app].forEach(({ child }) => child?.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
await server.start();
// A server that was built with the console serves it; one that was not is put behind a proxy.
let address = `http://127.0.0.1:${server.port}`;
const embedded = (await fetch(address)).headers.get("content-type")?.startsWith("text/html") ?? false;
let proxy;
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
const cable = new Cable();
address = `http://127.0.0.1:${await cable.lay(Number(new URL(address).port))}`;
console.log(`the console is served by ${embedded ? "the server" : "vite, in front of the server"}`);

const browser = await chromium.launch({ executablePath: process.env.CONSOLE_CHROMIUM, args: ["--no-sandbox"] });
const problems = [];

async function open({ signedIn = true, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => problems.push(`page: ${error.message}`));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) problems.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(data|blob):/.test(url)) problems.push(`a request to a third party: ${url}`);
  });
  await page.goto(address);
  if (signedIn) {
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByLabel("Message").waitFor();
  }
  return page;
}

const say = async (page, text) => {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
};
const answer = (page) => page.getByRole("region", { name: "Answer" }).last();
const said = async (page) => (await answer(page).innerText()).replace(/\s+/g, " ").trim();
const ended = (page) => page.getByRole("button", { name: "Regenerate" }).waitFor({ timeout: 60_000 });

/** The answer the server has stored, which what is seen must equal. */
async function stored(page) {
  const id = decodeURIComponent(page.url().split("#/talk/")[1]);
  const items = await fetch(`http://127.0.0.1:${server.port}/v1/conversations/${id}/items?limit=100&order=desc`, {
    headers: { authorization: `Bearer ${key}` },
  }).then((answer) => answer.json());
  return items.data.find(({ role }) => role === "assistant").content[0].text.replace(/\s+/g, " ").trim();
}

async function accessible(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }),
  );
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  assert.deepEqual(told, [], `accessibility of ${where}`);
}
const picture = (page, name) => page.screenshot({ path: `${reports}/${name}.png` });

const TEXT = "in 80 words";
const checks = {
  async "a wrong key is refused in words"() {
    const page = await open({ signedIn: false });
    await accessible(page, "sign in");
    await page.getByLabel("API key").fill("clq_wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    await picture(page, "sign-in");
    await page.context().close();
  },

  async "talk: an answer streams, with tokens and cost, and the list shows the conversation"() {
    const page = await open();
    await say(page, `/slow 40 Hello ${TEXT}`);
    await page.getByText("Answering…").waitFor();
    const first = await said(page);
    await until("it grows", async () => (await said(page)).length > first.length);
    await ended(page);
    assert.equal(await said(page), await stored(page));
    assert.match(await page.locator(".usage").last().innerText(), /demo · \d+ \+ \d+ tokens · at most/);
    await page.locator(".conversations li.current").waitFor();
    await accessible(page, "talk");
    await picture(page, "talk");
    await page.emulateMedia({ colorScheme: "dark" });
    await accessible(page, "talk, dark");
    await picture(page, "talk-dark");
    await page.setViewportSize({ width: 360, height: 740 });
    await accessible(page, "talk, narrow");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), "nothing sticks out at 360 px");
    await picture(page, "talk-narrow");
    await page.context().close();
  },

  async "a long answer moves nothing and leaves the page free"() {
    const page = await open();
    await page.evaluate(() => {
      globalThis.seen = { shift: 0, long: 0, frames: 0 };
      const watch = (type, take) => new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type, buffered: false });
      watch("layout-shift", (entry) => (globalThis.seen.shift += entry.hadRecentInput ? 0 : entry.value));
      watch("longtask", (entry) => (globalThis.seen.long = Math.max(globalThis.seen.long, entry.duration)));
      const frame = () => {
        globalThis.seen.frames += 1;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    });
    const began = Date.now();
    await say(page, "/slow 2000 Hello in 16000 words");
    await ended(page);
    const seconds = (Date.now() - began) / 1000;
    const { shift, long, frames } = await page.evaluate(() => globalThis.seen);
    const size = (await said(page)).length;
    console.log(`        ${size} characters in ${seconds.toFixed(1)} s: ${(frames / seconds).toFixed(0)} frames a second, longest task ${long.toFixed(0)} ms, layout shift ${shift.toFixed(4)}`);
    assert.ok(size > 80_000, `${size} characters`);
    // 0.1 is what counts as good for a whole visit.
    assert.ok(shift < 0.05, `layout shift ${shift}`);
    await page.context().close();
  },

  async "stop ends the turn itself"() {
    const page = await open();
    await say(page, "/slow 5 Hello in 300 words");
    await until("something was said", async () => (await said(page)).length > 10);
    await page.keyboard.press("Escape");
    await page.getByText("Stopped.").waitFor();
    await page.getByRole("button", { name: "Send" }).waitFor();
    await page.context().close();
  },

  async "regenerate replaces the answer; a branch keeps both"() {
    const page = await open();
    await say(page, "/slow 60 Hello");
    await ended(page);
    await page.getByRole("button", { name: "Regenerate" }).click();
    // It goes with the answer, and comes back with the next.
    await page.getByRole("button", { name: "Regenerate" }).waitFor({ state: "detached" });
    await ended(page);
    assert.equal(await page.getByRole("region", { name: "Answer" }).count(), 1);
    const before = page.url();
    await page.getByRole("button", { name: "Branch here" }).last().click();
    await page.waitForURL((url) => url.href !== before);
    await ended(page);
    const branch = page.url();
    await page.getByRole("button", { name: "Edit in a branch" }).first().click();
    await page.waitForURL((url) => url.href !== branch);
    await until("the text is there to edit", async () => (await page.getByLabel("Message").inputValue()) === "/slow 60 Hello");
    await page.context().close();
  },

  async "rename and search"() {
    const page = await open();
    await say(page, "/fast Hello");
    await ended(page);
    const current = page.locator(".conversations li.current");
    await current.getByRole("button", { name: /^Rename/ }).click();
    await page.getByLabel("Title", { exact: true }).fill("About greetings");
    await page.keyboard.press("Enter");
    await current.getByRole("link", { name: "About greetings" }).waitFor();
    await page.getByLabel("Search conversations").fill("greetings");
    await until("one is found", async () => (await page.locator(".conversations li").count()) === 1);
    await page.context().close();
  },

  async "a tool call is shown, and its result goes back"() {
    const page = await open();
    await page.getByText("Instructions, tools, structured answer").click();
    const tools = [{ type: "function", name: "get_weather", description: "The weather in a city", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } }];
    await page.getByLabel("Tools: a JSON list of functions").fill(JSON.stringify(tools));
    await say(page, "/fast What is the weather in Oslo?");
    await page.getByRole("region", { name: "Tool call get_weather" }).waitFor();
    await picture(page, "tool-call");
    await page.getByLabel(/What does get_weather give/).fill('{"temperature": 7}');
    await page.getByRole("button", { name: "Give the result" }).click();
    await page.getByRole("region", { name: "Result of a tool" }).waitFor();
    await page.getByRole("region", { name: "Answer" }).waitFor();
    await page.context().close();
  },

  async "a structured answer is shown as such"() {
    const page = await open();
    await page.getByText("Instructions, tools, structured answer").click();
    const schema = { type: "object", additionalProperties: false, required: ["mood"], properties: { mood: { enum: ["good", "bad"] } } };
    await page.getByLabel(/JSON schema/).fill(JSON.stringify(schema));
    await say(page, "/fast I like it");
    await ended(page);
    await page.getByText("structured output").waitFor();
    await page.context().close();
  },

  async "an image is attached and shown"() {
    const page = await open();
    const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    await page.locator("input[type=file]").setInputFiles({ name: "pixel.png", mimeType: "image/png", buffer: Buffer.from(pixel, "base64") });
    await page.getByAltText("pixel.png").waitFor();
    await say(page, "/fast What do you see?");
    await ended(page);
    await page.getByAltText("Attached").waitFor();
    await page.context().close();
  },

  async "loaded again in mid-answer, it goes on"() {
    const page = await open();
    await say(page, `/slow 20 Hello ${TEXT}`);
    await until("something was said", async () => (await said(page)).length > 40);
    await page.reload();
    await page.getByText("Answering…").waitFor();
    await ended(page);
    assert.equal(await page.getByRole("region", { name: "You said" }).count(), 1);
    assert.equal(await page.getByRole("region", { name: "Answer" }).count(), 1);
    assert.equal(await said(page), await stored(page));
    await page.context().close();
  },

  async "the network lost in mid-answer, it says so and goes on"() {
    const page = await open();
    await say(page, `/slow 15 Hello ${TEXT}`);
    await until("something was said", async () => (await said(page)).length > 40);
    cable.cut();
    await page.locator("[data-link=healing]").waitFor({ timeout: 60_000 });
    await picture(page, "healing");
    await accessible(page, "healing");
    cable.mend();
    await ended(page);
    assert.equal(await said(page), await stored(page));
    await page.context().close();
  },

  async "the server killed in mid-answer and started again, the answer stands or its end is told"() {
    const page = await open();
    await say(page, `/slow 15 Hello ${TEXT}`);
    await until("something was said", async () => (await said(page)).length > 40);
    const seen = await said(page);
    await server.stop("SIGKILL");
    await page.locator("[data-link=healing]").waitFor({ timeout: 60_000 });
    await server.start();
    await until("the turn is over", async () => (await page.locator("[data-link]").count()) === 0, 60_000);
    assert.ok((await said(page)).startsWith(seen.slice(0, 40)), "what was seen stands");
    await picture(page, "after-kill");
    await page.context().close();
  },

  async "the palette finds commands, by keyboard alone"() {
    const page = await open();
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox", { name: "Find a command" }).waitFor();
    await accessible(page, "palette");
    await page.keyboard.type("usage");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Usage and cost" }).waitFor();
    await page.context().close();
  },

  async "operators see what runs"() {
    const page = await open();
    for (const [name, heading] of [["Events", "Events"], ["Jobs", "Jobs"], ["Callbacks", "Callbacks"], ["Dead letters", "Dead letters"], ["Turns", "Turns"], ["Switches", "Switches"], ["Usage", "Usage and cost"]]) {
      await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name, exact: true }).click();
      await page.getByRole("heading", { name: heading, exact: true }).waitFor();
      await page.locator(".pane .skeleton").waitFor({ state: "detached" });
      assert.equal(await page.locator(".pane .problem").count(), 0, `${name} without an error`);
      await accessible(page, name);
      await picture(page, `see-${name.toLowerCase().replace(" ", "-")}`);
    }
    await page.context().close();
  },

  async "an event is seen from delivery to callback, and a dead letter replayed"() {
    let answers = 500;
    const consumer = createHttpServer((request, response) => {
      request.resume().on("end", () => response.writeHead(answers).end());
    });
    await new Promise((resolve) => consumer.listen(Number(process.env.CONSOLE_CONSUMER), "127.0.0.1", resolve));
    await app.start();
    const [program, ...args] = JSON.parse(process.env.CONSOLE_SEND);
    const sent = spawnSync(program, [...args, "--url", `http://127.0.0.1:${app.port}`], { cwd: new URL("../..", import.meta.url), encoding: "utf8" });
    assert.equal(sent.status, 0, sent.stdout + sent.stderr);

    const page = await open();
    await page.goto(`${address}/#/events`);
    await page.getByRole("cell", { name: "stripe", exact: true }).waitFor();
    await picture(page, "events");
    await page.getByRole("row").nth(1).getByRole("link").click();
    await page.getByText(/consumer \(stripe-forward\): dead/).waitFor({ timeout: 60_000 });
    await page.getByText(/count-event \(stripe-count\): succeeded/).waitFor();
    await accessible(page, "event");
    await picture(page, "event");

    answers = 204;
    await page.goto(`${address}/#/dead-letters`);
    await page.getByRole("button", { name: "Replay" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
    await page.getByText("There are none").waitFor();
    await page.goto(`${address}/#/callbacks`);
    await page.getByText("delivered").last().waitFor({ timeout: 60_000 });
    await accessible(page, "callbacks");
    await picture(page, "callbacks");
    await page.context().close();
    await app.stop("SIGTERM");
    consumer.close();
  },

  async "a switch is set and cleared, each confirmed"() {
    const page = await open();
    await page.goto(`${address}/#/switches`);
    await page.getByLabel("Name").fill("stripe");
    await page.getByRole("button", { name: "Stop…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel(/Reason/).fill("tried by a browser");
    await accessible(page, "confirm");
    await dialog.getByRole("button", { name: "Stop" }).click();
    await page.getByRole("cell", { name: "source stripe" }).waitFor();
    await page.getByRole("button", { name: "Clear" }).click();
    await dialog.getByRole("button", { name: "Clear" }).click();
    await page.getByText("Nothing is stopped.").waitFor();
    await page.context().close();
  },
};

const wanted = process.argv[2];
let [passed, failed] = [0, 0];
for (const [name, check] of Object.entries(checks)) {
  if (wanted && !name.includes(wanted)) continue;
  problems.length = 0;
  const began = Date.now();
  try {
    await check();
    assert.deepEqual(problems, [], "no errors, no breach of the policy, no third party");
    passed += 1;
    console.log(`ok      ${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${name}`);
  } catch (error) {
    failed += 1;
    cable.mend();
    console.log(`FAILED  ${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${name}\n${error.stack}`);
    for (const context of browser.contexts()) {
      for (const page of context.pages()) await page.screenshot({ path: `${reports}/FAILED-${failed}.png` }).catch(() => undefined);
      await context.close();
    }
    // A check may have left it dead.
    if (server.child.exitCode !== null || server.child.signalCode !== null) await server.start();
  }
}
await browser.close();
await proxy?.close();
await server.stop("SIGTERM");
if (app.child) await app.stop("SIGTERM");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
