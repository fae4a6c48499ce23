// Chromium against a real conversation server, as scripts/console starts it. One check after the other, each with a name.
import { strict as assert } from "node:assert";
import { checks as see } from "./checks/see.mjs";
import { checks as signIn } from "./checks/signin.mjs";
import { checks as talk } from "./checks/talk.mjs";
import { app, browser, cable, issuer, problems, proxy, reports, server } from "./harness.mjs";

const wanted = process.argv[2];
let [passed, failed] = [0, 0];
for (const [name, check] of Object.entries({ ...talk, ...signIn, ...see })) {
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
issuer.close();
await server.stop("SIGTERM");
if (app.child) await app.stop("SIGTERM");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
