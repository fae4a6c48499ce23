// The scene of the conversation server, as the unmodified OpenAI SDK for Node plays it. See scene.py, which says what it
// reads and writes.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import OpenAI from 'openai';

const model = process.env.COLLOQUY_DEV_MODEL ?? 'demo';
const final = ['response.completed', 'response.failed', 'response.incomplete'];

const texts = (events) => events.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join('');
const numbers = (events) => events.map((e) => e.sequence_number);
const upTo = (length) => [...Array(length).keys()];

async function all(events) {
  const seen = [];
  for await (const event of events) seen.push(event);
  return seen;
}

async function stream(client, conversation, input) {
  const events = await all(await client.responses.create({ model, conversation, input, stream: true }));
  assert.equal(events.at(-1).type, 'response.completed');
  assert.deepEqual(numbers(events), upTo(events.length));
  return events;
}

/** Begins a turn and leaves once `after` deltas came. */
async function cut(client, conversation, input, after) {
  const seen = [];
  for await (const event of await client.responses.create({ model, conversation, input, stream: true })) {
    seen.push(event);
    if (seen.filter((e) => e.type === 'response.output_text.delta').length === after) break;
  }
  return [seen[0].response.id, seen];
}

async function resume(client, id, seen) {
  const rest = await all(
    await client.responses.retrieve(id, { stream: true, starting_after: seen.at(-1).sequence_number }),
  );
  const whole = [...seen, ...rest];
  assert.deepEqual(numbers(whole), upTo(whole.length), 'a number is missing or double');
  assert.ok(final.includes(whole.at(-1).type), whole.at(-1).type);
  return whole;
}

const textOf = (response) =>
  response.output.flatMap((item) => (item.type === 'message' ? item.content : [])).map((part) => part.text ?? '').join('');

async function conversationScene(client) {
  const conversation = await client.conversations.create({ metadata: { scene: 'node' } });
  await stream(client, conversation.id, 'My name is Ada. Say hello in 5 words.');
  assert.match(texts(await stream(client, conversation.id, 'What is my name?')), /Ada/);

  let [id, seen] = await cut(client, conversation.id, 'Tell me a story in 60 words.', 5);
  const whole = await resume(client, id, seen);
  const stored = await client.responses.retrieve(id);
  assert.equal(stored.status, 'completed');
  assert.equal(texts(whole), textOf(stored), 'what was seen is not what was stored');

  [id, seen] = await cut(client, conversation.id, 'Tell me a story in 400 words.', 3);
  assert.equal((await client.responses.cancel(id)).status, 'cancelled');

  const items = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: 'asc', limit: 3 })) items.push(item);
  assert.deepEqual(items.map((item) => item.role), Array(4).fill(['user', 'assistant']).flat());
  await client.conversations.delete(conversation.id);
}

async function takeoverScene(client, other) {
  const conversation = await client.conversations.create();
  const [id, seen] = await cut(client, conversation.id, 'Tell me a story in 300 words.', 8);
  console.log('streaming', id, seen.at(-1).sequence_number);
  const lines = createInterface({ input: process.stdin });
  await new Promise((go) => lines.once('line', go));
  lines.close();
  const whole = await resume(other, id, seen);
  const stored = await other.responses.retrieve(id);
  assert.equal(stored.status, 'incomplete');
  assert.equal(texts(whole), textOf(stored), 'what was seen is not what was stored');
}

const client = new OpenAI({ maxRetries: 0 });
if (process.argv[2] === 'takeover') {
  await takeoverScene(client, new OpenAI({ baseURL: process.env.COLLOQUY_OTHER_URL, maxRetries: 0 }));
} else {
  await conversationScene(client);
}
console.log('ok');
