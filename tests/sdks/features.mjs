// What the demo model shows of /v1/responses, as the unmodified OpenAI SDK for Node uses it. See features.py.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const model = process.env.COLLOQUY_DEV_MODEL ?? 'demo';
const pixel =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

const object = (properties) => ({
  type: 'object',
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
const tool = (name, description, properties) => ({
  type: 'function',
  name,
  description,
  parameters: object(properties),
  strict: true,
});
const tools = [
  tool('get_weather', 'The current weather of a city', { city: { type: 'string' } }),
  tool('get_time', 'The current time in a city', { city: { type: 'string' } }),
];
const person = {
  format: {
    type: 'json_schema',
    name: 'person',
    strict: true,
    schema: object({ name: { type: 'string' }, age: { type: 'integer' } }),
  },
};

async function all(events) {
  const seen = [];
  for await (const event of events) seen.push(event);
  return seen;
}

async function fillsForms(client) {
  const parsed = await client.responses.parse({ model, input: '/fast Ada is 36.', text: person });
  assert.equal(typeof parsed.output_parsed.name, 'string');
  assert.ok(Number.isInteger(parsed.output_parsed.age));
  const stream = client.responses.stream({ model, input: '/fast Ada is 36.', text: person });
  const events = await all(stream);
  assert.ok(events.some((event) => event.type === 'response.output_text.delta'));
  assert.deepEqual((await stream.finalResponse()).output_parsed, parsed.output_parsed);
}

async function callsTools(client) {
  const input = '/fast What is the weather in Paris, and the time in Rome?';
  const stream = client.responses.stream({ model, input, tools });
  const first = await stream.finalResponse();
  const calls = first.output.filter((item) => item.type === 'function_call');
  assert.deepEqual(calls.map((call) => call.name).sort(), ['get_time', 'get_weather']);
  for (const call of calls) JSON.parse(call.arguments);
  const outputs = calls.map((call) => ({ type: 'function_call_output', call_id: call.call_id, output: `${call.name}: 21` }));
  const stored = await client.responses.create({ model, previous_response_id: first.id, input: outputs, tools });
  assert.match(stored.output_text, /get_weather: 21/);
  const history = [{ role: 'user', content: input }, ...first.output, ...outputs];
  const loose = await client.responses.create({ model, input: history, tools, store: false });
  assert.equal(loose.output_text, stored.output_text);
}

async function sees(client) {
  const content = [
    { type: 'input_text', text: '/fast Look' },
    { type: 'input_image', image_url: pixel, detail: 'auto' },
  ];
  const answer = await client.responses.create({ model, input: [{ role: 'user', content }] });
  assert.match(answer.output_text, /image/);
}

async function refusesAndIsCut(client) {
  const refused = await client.responses.create({ model, input: '/fast /refuse' });
  assert.equal(refused.output[0].content[0].type, 'refusal');
  const cut = await client.responses.create({ model, input: '/fast Tell a story in 90 words.', max_output_tokens: 16 });
  assert.deepEqual([cut.status, cut.incomplete_details.reason], ['incomplete', 'max_output_tokens']);
  const filtered = await all(await client.responses.create({ model, input: '/fast /filter Tell a story in 20 words.', stream: true }));
  assert.equal(filtered.at(-1).type, 'response.incomplete');
  assert.equal(filtered.at(-1).response.incomplete_details.reason, 'content_filter');
}

async function fails(client) {
  const create = (more) => client.responses.create({ model, input: 'hi', ...more });
  await assert.rejects(create({ input: '/fail 500' }), (e) => e instanceof OpenAI.InternalServerError && e.code === 'provider_error');
  assert.equal((await create({ input: '/fast /error Tell a story in 20 words.' })).status, 'failed');
  const events = await all(await create({ input: '/fast /error Tell a story in 20 words.', stream: true }));
  assert.equal(events.at(-1).type, 'response.failed');
  await assert.rejects(create({ max_output_tokens: 1 }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'max_output_tokens');
  await assert.rejects(create({ input: '/fail 429', stream: true }), OpenAI.RateLimitError);
}

async function reasons(client) {
  // Without `/think`: raw reasoning comes as `response.reasoning.delta`, as Open Responses has it, and this SDK's stream
  // helper throws at events that it does not know. Its plain streams take them.
  const asked = { model, input: '/fast Why?', reasoning: { effort: 'low', summary: 'auto' }, store: false };
  const stream = client.responses.stream({ ...asked, include: ['reasoning.encrypted_content'] });
  const final = await stream.finalResponse();
  assert.deepEqual(final.output.map((item) => item.type), ['reasoning', 'message']);
  assert.equal(final.output[0].summary.length, 2);
  assert.ok(final.output[0].encrypted_content);
  assert.ok(final.usage.output_tokens_details.reasoning_tokens > 0);
  const events = await all(await client.responses.create({ ...asked, input: '/fast /think Why?', stream: true }));
  assert.ok(events.some((event) => event.type === 'response.reasoning.delta'));
  assert.equal(events.at(-1).type, 'response.completed');
}

const client = new OpenAI({ maxRetries: 0 });
for (const part of [fillsForms, callsTools, sees, refusesAndIsCut, reasons, fails]) await part(client);
console.log('ok');
