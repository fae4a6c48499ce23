// What scripts/dev prints, done by somebody who has read nothing else: opens the console, talks, reloads in mid-answer,
// sends the webhook, watches it arrive, kills the provider, replays the dead letter, and finds what all of it cost.
import { strict as assert } from "node:assert";
import { execFile, spawn } from "node:child_process";
import { createWriteStream, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { accessible, browser, ended, picture, problems, reports, said, say, told, until, watched } from "./pages.mjs";

const run = promisify(execFile);
const log = createWriteStream(`${reports}/newcomer.log`);
let printed = "";

/** A program of ours; what it prints is kept for whoever looks into a failure. */
function started(command, heard = () => undefined) {
  // In a group of its own, as in a terminal of its own: it can be ended with all it started.
  const child = spawn("bash", ["-c", command], { stdio: ["ignore", "pipe", "pipe"], detached: true });
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      log.write(text);
      heard(text);
    });
  }
  const gone = new Promise((resolve) => child.once("exit", (code) => resolve(code)));
  return { child, gone, ended: () => child.exitCode !== null || child.signalCode !== null };
}

async function stopped({ child, gone, ended }) {
  if (!ended()) process.kill(-child.pid, "SIGTERM");
  await gone;
}

/** The one line of what was printed that fits, or its part in brackets. */
function find(what, pattern) {
  const [line, part] = pattern.exec(printed) ?? assert.fail(`scripts/dev does not print ${what}`);
  return (part ?? line).trim();
}

const paste = async (command) => {
  const { stdout, stderr } = await run("bash", ["-c", command], { cwd: "/" });
  log.write(stdout + stderr);
  return stdout;
};

const step = (name) => console.log(`        ${name}`);

/** Follows links as they are named, section first. */
async function look(page, section, name) {
  await page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name: section, exact: true }).click();
  if (name) await page.getByRole("navigation", { name: section }).getByRole("link", { name, exact: true }).click();
}

async function walk(dev) {
  await until("scripts/dev runs", () => /Colloquy runs\./.test(printed) || dev.ended(), 15 * 60_000);
  assert.ok(!dev.ended(), `scripts/dev ended; what it said is in ${reports}/newcomer.log`);
  const address = find("the console's address", /^ *Console +(http:\S+)/m);
  const key = find("the key", /^ *API key +(\S+)/m);
  const webhook = find("a signed webhook", /^ *curl .*\/api\/webhooks\/.*$/m);
  const kill = find("how the provider is killed", /^ *kill \d+$/m);
  const another = find("how another event is sent", /^ *\(.* webhooks send .*\)$/m);
  const back = find("how the provider comes back", /^ *\S*scripts\/dev --provider$/m);

  step("talks, and reloads in mid-answer");
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
  watched(page, [new URL(address).origin]);
  await page.goto(address);
  await page.getByLabel("API key").fill(key);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await page.getByLabel("Message").waitFor();
  await say(page, "Tell me a story in 400 words.");
  await until("something was said", async () => (await said(page)).length > 40);
  await page.reload();
  await page.getByText("Answering…").waitFor();
  await ended(page);
  assert.equal(await page.getByRole("region", { name: "Answer" }).count(), 1);
  await picture(page, "newcomer-1-talk");

  step("sends the webhook, and watches it arrive");
  await look(page, "Work");
  await page.getByRole("heading", { name: "Events", exact: true }).waitFor();
  const answered = await paste(webhook);
  assert.match(answered, /^HTTP\/1\.1 200/);
  const { id: identity } = JSON.parse(readFileSync(/--data-binary @'?([^']+)'?$/.exec(webhook)[1], "utf8"));
  const arrived = page.getByRole("row").filter({ hasText: identity });
  await arrived.waitFor();
  await picture(page, "newcomer-2-events");
  await arrived.getByRole("link").click();
  await page.getByText(/consumer \(stripe-forward\): delivered/).waitFor({ timeout: 60_000 });
  await page.getByText(/respond \(stripe-answer\): succeeded/).waitFor({ timeout: 60_000 });
  await page.getByText(/consumer \(stripe-answer\): delivered/).waitFor({ timeout: 60_000 });
  await accessible(page, "an answered event");
  await picture(page, "newcomer-3-answered");

  step("kills the provider: the next event waits, and its answer becomes a dead letter");
  await paste(kill);
  await paste(another);
  await page.getByRole("link", { name: "All events" }).click();
  // The newest stands first.
  const first = page.getByRole("row").nth(1);
  await until("another event is the first", async () => !(await first.innerText()).includes(identity));
  await first.getByRole("link").click();
  await page.getByText(/respond \(stripe-answer\): waits, is tried again/).waitFor({ timeout: 60_000 });
  await picture(page, "newcomer-4-waits");
  await page.getByText(/respond \(stripe-answer\): dead/).waitFor({ timeout: 120_000 });
  await accessible(page, "an event with a dead letter");
  await picture(page, "newcomer-5-dead");

  step("replays the dead letter once the provider is back");
  let heard = "";
  const provider = started(back, (text) => (heard += text));
  try {
    await until("the provider is back", () => /process \d+ answers/.test(heard));
    await page.getByRole("link", { name: /dead letter/i }).first().click();
    await page.getByRole("heading", { name: "Dead letters" }).waitFor();
    await page.getByRole("row").filter({ hasText: "stripe-answer" }).first().waitFor();
    await picture(page, "newcomer-6-dead-letters");
    await page.getByRole("button", { name: "Replay" }).first().click();
    await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
    await page.getByText("There are none").waitFor();
    await page.goBack();
    await page.getByText(/respond \(stripe-answer\): succeeded/).waitFor({ timeout: 60_000 });
    await page.getByText(/consumer \(stripe-answer\): delivered/).waitFor({ timeout: 60_000 });
    await picture(page, "newcomer-7-replayed");
  } finally {
    await stopped(provider);
  }

  step("finds what all of it cost");
  await look(page, "Usage");
  await page.getByRole("heading", { name: "Usage and cost" }).waitFor();
  await page.getByRole("combobox", { name: "By" }).selectOption({ label: "route of events" });
  await page.locator(".legend").getByText("stripe-answer").waitFor();
  await told(page, /^\d{4}-\d\d-\d\d: .*stripe-answer 0\.\d*[1-9]/);
  await accessible(page, "usage");
  await picture(page, "newcomer-8-cost");
  await page.context().close();
  assert.deepEqual(problems, [], "no errors, no breach of the policy, no third party");
}

const began = Date.now();
const dev = started(process.env.CONSOLE_DEV, (text) => (printed += text));
// Whatever ends this, it ends with it; it then stops what it started.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
process.on("exit", () => dev.ended() || process.kill(-dev.child.pid, "SIGTERM"));
let failed = false;
try {
  await walk(dev);
} catch (error) {
  failed = true;
  for (const [page] of browser.contexts().map((context) => context.pages())) await page?.screenshot({ path: `${reports}/FAILED-newcomer.png` }).catch(() => undefined);
  console.log(printed.slice(-4_000));
  console.log(error.stack);
}
await browser.close();
await stopped(dev);
console.log(`${failed ? "FAILED " : "ok     "} ${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  a newcomer does what scripts/dev prints`);
process.exit(failed ? 1 : 0);
