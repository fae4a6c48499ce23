// What Stripe's, GitHub's, Svix's and Standard Webhooks' JavaScript libraries sign, and what they say of signatures of ours.

import { createInterface } from "node:readline";

import * as octokit from "@octokit/webhooks-methods";
import * as standardwebhooks from "standardwebhooks";
import Stripe from "stripe";
import * as svix from "svix";

const AT = 1_763_700_000;
const STRIPE = "whsec_test_secret";
const GITHUB = "It's a Secret to Everybody";
const STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw";
const BODIES = [
  '{"id":"evt_1","object":"event","type":"invoice.paid"}',
  "{}",
  ' {\n  "name" : "Müller ☃ 🔒" }\r\n',
  '{"path":"a\\/b","text":"\\u00e9\\u0000"}',
  `{"id":"evt_2","big":"${"x".repeat(20_000)}"}`,
  "not json",
];
// Seconds between signing and arrival, and what is to be made of it.
const SKEWS = [[0, "ok"], [300, "ok"], [-300, "ok"], [301, "stale"], [-301, "stale"]];

// Calls nobody: the key is for show.
const { webhooks } = new Stripe("sk_test_none");

const request = (library, scheme, secret, headers, body, off, expect) => ({
  library, scheme, secret, headers, body_base64: Buffer.from(body).toString("base64"), now: AT + off, expect,
});

function* stripeRequests() {
  const library = "stripe for JavaScript";
  for (const payload of BODIES) {
    const header = webhooks.generateTestHeaderString({ payload, secret: STRIPE, timestamp: AT });
    const headers = { "Stripe-Signature": header };
    for (const [off, expect] of SKEWS) yield request(library, "stripe", STRIPE, headers, payload, off, expect);
    yield request(library, "stripe", "whsec_wrong", headers, payload, 0, "bad_signature");
    const v0 = webhooks.generateTestHeaderString({ payload, secret: STRIPE, timestamp: AT, scheme: "v0" });
    yield request(library, "stripe", STRIPE, { "Stripe-Signature": v0 }, payload, 0, "bad_signature");
  }
}

async function* githubRequests() {
  const library = "@octokit/webhooks-methods";
  for (const body of BODIES) {
    const headers = { "X-Hub-Signature-256": await octokit.sign(GITHUB, body) };
    yield request(library, "github", GITHUB, headers, body, 86_400, "ok");
    yield request(library, "github", "wrong", headers, body, 0, "bad_signature");
    yield request(library, "github", GITHUB, headers, `${body}\n`, 0, "bad_signature");
  }
}

function* standardRequests(library, Webhook, family) {
  const at = new Date(AT * 1000);
  for (const [number, body] of BODIES.entries()) {
    const id = `msg_${number}`;
    const sign = (secret) => new Webhook(secret).sign(id, at, body);
    const headers = (signature) => ({
      [`${family}-id`]: id, [`${family}-timestamp`]: String(AT), [`${family}-signature`]: signature,
    });
    for (const [off, expect] of SKEWS) {
      yield request(library, "standard-webhooks", STANDARD, headers(sign(STANDARD)), body, off, expect);
    }
    yield request(library, "standard-webhooks", STANDARD, headers(`${sign(OTHER)} ${sign(STANDARD)}`), body, 0, "ok");
    yield request(library, "standard-webhooks", OTHER, headers(sign(STANDARD)), body, 0, "bad_signature");
    yield request(library, "standard-webhooks", STANDARD, headers(sign(STANDARD)), `${body} `, 0, "bad_signature");
  }
}

async function* sign() {
  yield* stripeRequests();
  yield* githubRequests();
  yield* standardRequests("standardwebhooks for JavaScript", standardwebhooks.Webhook, "webhook");
  yield* standardRequests("svix for JavaScript", svix.Webhook, "svix");
}

async function* verify() {
  for await (const line of createInterface({ input: process.stdin })) {
    const given = JSON.parse(line);
    const { name, scheme, secret, headers } = given;
    const body = Buffer.from(given.body_base64, "base64").toString();
    const checks = {
      "stripe": { "stripe for JavaScript": () => webhooks.signature.verifyHeader(body, headers["stripe-signature"], secret, 300) },
      "github": {
        "@octokit/webhooks-methods": async () => {
          if (!(await octokit.verify(secret, body, headers["x-hub-signature-256"]))) throw new Error("no match");
        },
      },
      "standard-webhooks": {
        "standardwebhooks for JavaScript": () => new standardwebhooks.Webhook(secret).verify(body, headers),
        "svix for JavaScript": () => new svix.Webhook(secret).verify(body, headers),
      },
    };
    for (const [library, check] of Object.entries(checks[scheme])) {
      const verdict = await Promise.resolve().then(check).then(() => "ok", (error) => String(error));
      yield { name, library, verdict };
    }
  }
}

for await (const line of process.argv[2] === "sign" ? sign() : verify()) console.log(JSON.stringify(line));
