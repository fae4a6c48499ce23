// Chromium, and words for what is done on the console's pages.
import { strict as assert } from "node:assert";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const reports = process.env.CONSOLE_REPORTS;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(reports, { recursive: true });

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

export const browser = await chromium.launch({ executablePath: process.env.CONSOLE_CHROMIUM, args: ["--no-sandbox"] });
export const problems = [];

/** Notes what no page may do: throw, breach its policy, ask anybody but those at `origins`. */
export function watched(page, origins) {
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => problems.push(`page: ${error.message}`));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) problems.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!origins.includes(new URL(url).origin) && !/^(data|blob):/.test(url)) problems.push(`a request to a third party: ${url}`);
  });
}

export const say = async (page, text) => {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
};
export const answer = (page) => page.getByRole("region", { name: "Answer" }).last();
export const said = async (page) => (await answer(page).innerText()).replace(/\s+/g, " ").trim();
// Not by its role: that is looked up in all of a long answer, again and again while it streams.
export const ended = (page) => page.locator(".quiet-actions button", { hasText: "Regenerate" }).waitFor({ timeout: 60_000 });

/** Goes back through a chart by keys, from its end to the first place that is told as `pattern` says. */
export async function told(page, pattern) {
  await page.locator(".plot").focus();
  await page.keyboard.press("End");
  await until(`the chart tells ${pattern}`, async () => {
    if (pattern.test(await page.locator(".total").innerText())) return true;
    await page.keyboard.press("ArrowLeft");
    return false;
  });
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

/** The page as on a phone: accessible, and nothing sticks out. */
export async function narrow(page, where, file) {
  const { width, height } = page.viewportSize();
  await page.setViewportSize({ width: 360, height: 740 });
  await accessible(page, `${where}, narrow`);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), `nothing of ${where} sticks out at 360 px`);
  await picture(page, file);
  await page.setViewportSize({ width, height });
}
