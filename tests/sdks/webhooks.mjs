// What the unmodified OpenAI SDK for Node makes of callbacks as a consumer received them. See webhooks.py.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI();
for (const given of process.argv.slice(2).map((text) => JSON.parse(text))) {
  const event = await client.webhooks.unwrap(given.body, given.headers, given.secret);
  assert.equal(event.type, given.type);
  assert.equal(event.object, 'event');
  assert.equal(event.data.id, given.response);
  assert.ok(event.id.startsWith('evt_') && event.created_at > 1_700_000_000);
  const tampered = given.body.replace('event', 'tneve');
  await assert.rejects(
    client.webhooks.unwrap(tampered, given.headers, given.secret),
    OpenAI.InvalidWebhookSignatureError,
  );
}
console.log('ok');
