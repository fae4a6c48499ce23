// Talking: streams, cuts, a killed server, branches, tools.
import { strict as assert } from "node:assert";
import { accessible, address, answer, cable, ended, key, narrow, open, picture, said, say, server, stored, until } from "../harness.mjs";

const TEXT = "in 80 words";

/** Cumulative layout shift as browsers report it: the worst 5 s, or less where nothing moved for 1 s. */
function cumulative(shifts) {
  let [worst, sum, first, last] = [0, 0, -Infinity, -Infinity];
  for (const { at, value } of shifts) {
    if (at - last > 1000 || at - first > 5000) [sum, first] = [0, at];
    sum += value;
    last = at;
    worst = Math.max(worst, sum);
  }
  return worst;
}

/** Watches the page while a long answer streams. */
async function long(kind, text) {
  const page = await open();
  await page.evaluate(() => {
    globalThis.seen = { shifts: [], long: 0, frames: 0 };
    const watch = (type, take) => new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type, buffered: false });
    watch("layout-shift", ({ hadRecentInput, startTime, value }) => !hadRecentInput && globalThis.seen.shifts.push({ at: startTime, value }));
    watch("longtask", (entry) => (globalThis.seen.long = Math.max(globalThis.seen.long, entry.duration)));
    const frame = () => {
      globalThis.seen.frames += 1;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  // What this machine gives a page that does nothing.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const idle = await page.evaluate(() => globalThis.seen.frames);
  // At once, as by a paste: a browser that is driven types each character.
  await page.getByLabel("Message").evaluate((field, text) => {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }, text);
  await page.getByRole("button", { name: "Send" }).click();
  await answer(page).waitFor();
  // Of its own thread's time, so that what else this machine does counts for nothing.
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Performance.enable", { timeDomain: "threadTicks" });
  const worked = async () => (await cdp.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration").value;
  const before = await worked();
  const began = Date.now();
  await page.evaluate(() => Object.assign(globalThis.seen, { frames: 0, long: 0, shifts: [] }));
  await page.locator(".usage").waitFor({ timeout: 120_000 });
  const seconds = (Date.now() - began) / 1000;
  const busy = (await worked()) - before;
  const { shifts, long, frames } = await page.evaluate(() => globalThis.seen);
  const shift = cumulative(shifts);
  // Not what is seen, which is a part of it.
  const size = await answer(page).evaluate((element) => element.textContent.length);
  console.log(`        ${kind}: ${size} characters in ${seconds.toFixed(1)} s, ${(frames / seconds).toFixed(0)} frames a second (${idle} at rest), busy for ${busy.toFixed(1)} s, longest task ${long.toFixed(0)} ms, layout shift ${shift.toFixed(4)}`);
  assert.ok(size > 100_000, `${size} characters`);
  // What is left is the person's, who scrolls and types meanwhile.
  assert.ok(busy < seconds * 0.8, `the page works ${busy.toFixed(1)} of ${seconds.toFixed(1)} s`);
  // 0.1 is what counts as good.
  assert.ok(shift < 0.05, `layout shift ${shift}`);
  const below = await page.locator(".thread").evaluate(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight);
  assert.ok(below < 80, `the end is ${below} px out of sight`);
  await page.context().close();
}

export const checks = {
  async "a wrong key is refused in words"() {
    const page = await open({ signedIn: false });
    await accessible(page, "sign in");
    await page.getByLabel("API key").fill("clq_wrong");
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.getByRole("alert").waitFor();
    await picture(page, "sign-in");
    await page.context().close();
  },

  async "talk: an answer streams, with tokens and cost, and the list shows the conversation"() {
    const page = await open();
    await say(page, `/slow 15 Hello ${TEXT}`);
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
    await narrow(page, "talk", "talk-narrow");
    await page.context().close();
  },

  async "a long answer moves nothing and leaves the page free"() {
    await long("one paragraph", "/slow 2000 Hello in 20000 words");
  },

  async "and so does one of many blocks"() {
    const block = (n) =>
      `## Part ${n}\n\nAll is *well* in part ${n}, and **nothing** is missing from it, as [the page](https://example.com) says at length.\n\n- one\n- two, which is longer than one\n\n` +
      `~~~rust\nfn part_${n}() -> u32 {\n    ${n} // of many\n}\n~~~\n\n| part | is |\n|---|---|\n| ${n} | here |\n\n`;
    const text = Array.from({ length: 560 }, (_, at) => block(at + 1)).join("");
    await long("many blocks", `/slow 2000 Reply with this: ${text}`);
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
    // So slow that nobody misses when it is gone.
    const asked = "/slow 10 Hello in 20 words";
    await say(page, asked);
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
    await until("the text is there to edit", async () => (await page.getByLabel("Message").inputValue()) === asked);
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

  async "the chosen model is asked, with the instructions, which stay for the tab"() {
    const page = await open();
    await page.getByLabel("Model").selectOption("small");
    await page.getByText("Instructions, tools, structured answer").click();
    await page.getByLabel(/^Instructions/).fill("Be brief.");
    const asked = page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/v1/responses"));
    await say(page, "/fast Hello");
    const { model, instructions } = (await asked).postDataJSON();
    assert.deepEqual([model, instructions], ["small", "Be brief."]);
    await page.locator(".usage", { hasText: /^small / }).waitFor();
    await page.reload();
    await until("both are still chosen", async () => (await page.getByLabel("Model").inputValue()) === "small" && (await page.getByLabel(/^Instructions/).inputValue()) === "Be brief.");
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
    await say(page, `/slow 10 Hello ${TEXT}`);
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

  async "a laptop that slept in mid-answer wakes, says so and goes on"() {
    const page = await open({ clocked: true });
    await say(page, `/slow 15 Hello ${TEXT}`);
    await until("something was said", async () => (await said(page)).length > 40);
    cable.sleep();
    await page.clock.fastForward("05:00");
    await page.locator("[data-link=healing]").waitFor();
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

  async "code gets its colours once it rests, under the same policy"() {
    const page = await open();
    await say(page, "/fast Reply with this: ~~~rust\nfn main() {\n    let x = 1; // one\n}\n~~~");
    await ended(page);
    await page.getByRole("region", { name: "Answer" }).locator(".code .hl-keyword").first().waitFor();
    await accessible(page, "code");
    await page.emulateMedia({ colorScheme: "dark" });
    await accessible(page, "code, dark");
    await picture(page, "code-dark");
    await page.context().close();
  },

  async "another tab says that a turn runs, and can follow it"() {
    const page = await open();
    await say(page, "/slow 10 Hello in 200 words");
    await until("something was said", async () => (await said(page)).length > 40);
    const other = await page.context().newPage();
    await other.goto(address);
    await other.getByLabel("API key").fill(key);
    await other.getByRole("button", { name: "Sign in", exact: true }).click();
    await other.getByLabel("Message").waitFor();
    await other.goto(page.url());
    await other.getByText("being answered in another tab").waitFor();
    await accessible(other, "a turn of another tab");
    await picture(other, "another-tab");
    await other.getByRole("button", { name: "Follow it here" }).click();
    await other.getByText("Answering…").waitFor();
    await Promise.all([ended(page), ended(other)]);
    assert.equal(await said(other), await said(page));
    assert.equal(await other.getByText("another tab").count(), 0);
    await page.context().close();
  },
};
