// Deliveries signed by the senders' own Node libraries, one JSON object a line. Run by `generate`.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

// Where `generate` installed them; a module's own imports look beside the module.
const home = process.argv[2];
const require = createRequire(`${home}/package.json`);
const Stripe = require("stripe");
const svix = require("svix");
const standardwebhooks = require("standardwebhooks");
// An ES module without a door for `require`.
const octokit = await import(pathToFileURL(`${home}/node_modules/@octokit/webhooks-methods/dist-node/index.js`));

const cases = JSON.parse(readFileSync(new URL("cases.json", import.meta.url), "utf8"));
const now = cases.now;
const stripe = new Stripe("sk_test_unused");

const standard = (Webhook, prefix) => (secret, time, body) => ({
  [`${prefix}-id`]: "msg_1",
  [`${prefix}-timestamp`]: String(time),
  [`${prefix}-signature`]: new Webhook(secret).sign("msg_1", new Date(time * 1000), body),
});

const senders = [
  ["stripe-node", "stripe", (secret, timestamp, payload) => ({
    "Stripe-Signature": stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp }),
  })],
  ["svix-node", "standard-webhooks", standard(svix.Webhook, "svix")],
  ["standardwebhooks-node", "standard-webhooks", standard(standardwebhooks.Webhook, "webhook")],
  ["octokit", "github", async (secret, _, body) => ({ "X-Hub-Signature-256": await octokit.sign(secret, body) })],
];

const emit = (library, scheme, name, secret, headers, body, expect) => {
  const body_base64 = Buffer.from(body, "utf8").toString("base64");
  process.stdout.write(`${JSON.stringify({ library, scheme, name, secret, headers, body_base64, now, expect })}\n`);
};

for (const [library, scheme, sign] of senders) {
  const [secret, other] = cases.secrets[scheme];
  for (const [name, body] of Object.entries(cases.bodies)) {
    // Octokit's takes no empty payload.
    if (library === "octokit" && body === "") continue;
    emit(library, scheme, name, secret, await sign(secret, now, body), body, "ok");
  }
  const body = cases.bodies.plain;
  for (const { seconds, expect } of scheme === "github" ? [] : cases.ages) {
    const headers = await sign(secret, now - seconds, body);
    emit(library, scheme, `signed ${seconds} s ago`, secret, headers, body, expect);
  }
  emit(library, scheme, "another secret", other, await sign(secret, now, body), body, "bad_signature");
  emit(library, scheme, "body changed", secret, await sign(secret, now, body), `${body} `, "bad_signature");
}
