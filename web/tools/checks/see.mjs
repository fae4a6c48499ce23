// What operators see and change.
import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { createServer as createHttpServer } from "node:http";
import { accessible, address, app, cable, ended, key, narrow, open, picture, say, server, told, until } from "../harness.mjs";

/** Section, page, heading. */
const PAGES = [
  ["Work", "Events", "Events"],
  ["Work", "Jobs", "Jobs"],
  ["Work", "Callbacks", "Callbacks"],
  ["Work", "Dead letters", "Dead letters"],
  ["Work", "Turns", "Turns"],
  ["Work", "Queues", "Queues"],
  ["Health", "Latency", "Latency"],
  ["Health", "Errors", "Errors"],
  ["Health", "Providers", "Providers"],
  ["Health", "Switches", "Switches"],
  ["Health", "System", "System"],
  ["Access", "Keys", "Keys"],
  ["Access", "Grants", "Grants"],
  ["Access", "Audit", "Audit"],
  ["Usage", "Usage", "Usage and cost"],
];

export const checks = {
  async "operators see what runs, light, dark and narrow"() {
    const page = await open();
    await say(page, "/fast Hello");
    await ended(page);
    // Something that failed, for the charts of errors.
    await say(page, "/fail 400 Hello");
    await page.locator(".problem").waitFor();
    for (const [section, name, heading] of PAGES) {
      await page.emulateMedia({ colorScheme: "light" });
      await page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name: section, exact: true }).click();
      if (section !== name) await page.getByRole("navigation", { name: section }).getByRole("link", { name, exact: true }).click();
      await page.getByRole("heading", { name: heading, exact: true }).waitFor();
      await page.locator(".pane .skeleton").first().waitFor({ state: "detached" });
      assert.equal(await page.locator(".pane .problem").count(), 0, `${name} without an error`);
      const file = `see-${name.toLowerCase().replace(" ", "-")}`;
      await accessible(page, name);
      await picture(page, file);
      await page.emulateMedia({ colorScheme: "dark" });
      await accessible(page, `${name}, dark`);
      await narrow(page, name, `${file}-narrow`);
    }
    await page.context().close();
  },

  async "charts tell their numbers to pointer and keyboard, and fill while they are looked at"() {
    const page = await open();
    const total = page.locator(".total");
    await page.goto(`${address}/#/latency`);
    await page.mouse.move(1, 1);
    // What was before the console was opened is in the table alone.
    await page.getByText("Nothing was timed since this console was opened.").waitFor();
    const elsewhere = await page.context().newPage();
    await elsewhere.goto(address);
    await elsewhere.getByLabel("API key").fill(key);
    await elsewhere.getByRole("button", { name: "Sign in", exact: true }).click();
    await say(elsewhere, "/fast Hello");
    await ended(elsewhere);
    await elsewhere.close();
    await total.getByText(/95 % of them/).waitFor();
    assert.ok((await page.locator(".line").count()) > 0, "a line is drawn");
    await page.getByRole("row", { name: /^demo / }).waitFor();
    await picture(page, "latency");
    await page.locator(".plot").focus();
    await page.keyboard.press("End");
    await page.keyboard.press("ArrowLeft");
    await until("the keyboard tells a place", async () => /^\d\d:\d\d:\d\d: .*p50 .*p95 /.test(await total.innerText()));
    await page.keyboard.press("Escape");
    await total.getByText(/95 % of them/).waitFor();
    const { x, y, width, height } = await page.locator(".chart").boundingBox();
    await page.mouse.move(x + width / 2, y + height / 2);
    await until("the pointer tells a place", async () => /^\d\d:\d\d:\d\d: /.test(await total.innerText()));

    await page.goto(`${address}/#/usage`);
    await page.getByRole("heading", { name: "Usage and cost" }).waitFor();
    await page.getByRole("combobox", { name: "By" }).selectOption("api_key");
    // What was used before midnight stands under yesterday.
    await told(page, /^\d{4}-\d\d-\d\d: 0\.\d*[1-9]/);
    await page.context().close();
  },

  async "a server that cannot be reached is told on every page, and they heal"() {
    const page = await open();
    await page.goto(`${address}/#/turns`);
    await page.getByRole("heading", { name: "Turns" }).waitFor();
    for (const [place, heading] of [["queues", "Queues"], ["errors", "Errors"], ["system", "System"]]) {
      cable.cut();
      await page.evaluate((place) => (window.location.hash = `#/${place}`), place);
      await page.getByRole("heading", { name: heading, exact: true }).waitFor();
      await page.locator(".pane .problem").first().waitFor();
      await accessible(page, `${heading}, away`);
      cable.mend();
      // Each part of a page asks for itself.
      await until(`${heading} is whole again`, async () => {
        const again = page.getByRole("button", { name: "Try again" });
        if ((await again.count()) > 0) await again.first().click({ timeout: 1_000 });
        return (await page.locator(".pane .problem").count()) === 0;
      });
    }
    await page.context().close();
  },

  async "a part of the console that does not come is told, and loaded again"() {
    const page = await open({ signedIn: false });
    await page.route("**/assets/See-*.js", (route) => route.abort());
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.getByRole("link", { name: "Usage" }).click();
    await page.getByRole("alert").getByText("could not be loaded").waitFor();
    await accessible(page, "a part that did not come");
    await page.getByRole("link", { name: "Talk" }).click();
    await page.getByLabel("Message").waitFor();
    await page.unroute("**/assets/See-*.js");
    await page.getByRole("link", { name: "Usage" }).click();
    await page.getByRole("button", { name: "Load the console again" }).click();
    await page.getByRole("heading", { name: "Usage and cost" }).waitFor();
    await page.context().close();
  },

  async "a key is made, shown once, rotated and ended; the audit trail has it all"() {
    const page = await open();
    await page.goto(`${address}/#/keys`);
    await page.getByLabel("Name", { exact: true }).fill("from the console");
    await page.getByLabel("Acts for").fill("sales");
    await page.getByRole("button", { name: "Make…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel(/Reason/).fill("tried by a browser");
    await accessible(page, "making a key");
    await dialog.getByRole("button", { name: "Make it" }).click();
    const shown = page.getByRole("region", { name: "The new key" });
    const made = (await shown.locator("pre").innerText()).trim();
    assert.match(made, /^clq_/);
    await accessible(page, "a new key");
    await picture(page, "key-made");
    const takes = async (key) => (await fetch(`http://127.0.0.1:${server.port}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
    assert.equal(await takes(made), 200);
    await page.getByRole("button", { name: "I have it" }).click();
    assert.ok(!(await page.content()).includes(made), "it is shown once");

    await page.getByRole("button", { name: "Rotate" }).click();
    await dialog.getByRole("button", { name: "Rotate" }).click();
    const next = (await shown.locator("pre").innerText()).trim();
    assert.notEqual(next, made);
    await page.getByRole("button", { name: "I have it" }).click();
    await until("both are listed", async () => (await page.getByRole("cell", { name: /^from the console/ }).count()) === 2);
    await page.getByRole("button", { name: "End", exact: true }).first().click();
    await dialog.getByRole("button", { name: "End it" }).click();
    await page.getByRole("cell", { name: "revoked" }).waitFor();

    await page.goto(`${address}/#/audit`);
    await page.getByLabel(/^Action/).fill("key");
    for (const action of ["key.create", "key.rotate", "key.revoke"]) await page.getByRole("cell", { name: action, exact: true }).waitFor();
    await page.getByRole("cell", { name: "tried by a browser" }).waitFor();
    await picture(page, "audit");
    await page.context().close();
  },

  async "a grant is given and taken back"() {
    const page = await open();
    await say(page, "/fast Hello");
    await ended(page);
    const conversation = decodeURIComponent(page.url().split("#/talk/")[1]);
    await page.goto(`${address}/#/grants`);
    await page.getByLabel("Conversation").fill(conversation);
    await page.getByLabel("To whom").fill("support");
    await page.getByRole("button", { name: "Give…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Give it" }).click();
    await page.getByRole("cell", { name: "support" }).waitFor();
    await accessible(page, "grants");
    await page.getByRole("button", { name: "Take back" }).click();
    await dialog.getByRole("button", { name: "Take it back" }).click();
    await page.getByText("Nobody may see what is another’s.").waitFor();
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
    await narrow(page, "events", "events-narrow");
    await page.getByRole("row").nth(1).getByRole("link").click();
    await page.getByText(/consumer \(stripe-forward\): dead/).waitFor({ timeout: 60_000 });
    await page.getByText(/count-event \(stripe-count\): succeeded/).waitFor();
    await accessible(page, "event");
    await picture(page, "event");
    await narrow(page, "event", "event-narrow");

    answers = 204;
    await page.goto(`${address}/#/dead-letters`);
    await page.getByRole("button", { name: "Discard" }).waitFor();
    await picture(page, "dead-letters");
    await narrow(page, "dead letters", "dead-letters-narrow");
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
