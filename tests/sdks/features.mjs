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

/** The events of a response as somebody gets them who is no SDK. */
async function plainly(id) {
  const headers = { authorization: `Bearer ${process.env.OPENAI_API_KEY}` };
  const answer = await fetch(`${process.env.OPENAI_BASE_URL}/responses/${id}?stream=true`, { headers });
  const data = (await answer.text()).split('\n').filter((line) => line.startsWith('data: {'));
  return data.map((line) => JSON.parse(line.slice('data: '.length)));
}

async function reasons(client) {
  const asked = { model, input: '/fast Why?', reasoning: { effort: 'low', summary: 'auto' }, store: false };
  const stream = client.responses.stream({ ...asked, include: ['reasoning.encrypted_content'] });
  const final = await stream.finalResponse();
  assert.deepEqual(final.output.map((item) => item.type), ['reasoning', 'message']);
  assert.equal(final.output[0].summary.length, 2);
  assert.ok(final.output[0].encrypted_content);
  assert.ok(final.usage.output_tokens_details.reasoning_tokens > 0);
  // Raw reasoning has OpenAI's name here, and Open Responses' own for everybody else, under the same numbers.
  const raw = client.responses.stream({ ...asked, store: true, input: '/fast /think Why?' });
  const helped = await all(raw);
  const { id, output } = await raw.finalResponse();
  const thought = helped.filter((event) => event.type === 'response.reasoning_text.delta');
  assert.equal(thought.map((event) => event.delta).join(''), output[0].content[0].text);
  const plain = await plainly(id);
  const named = (event) => [event.sequence_number, event.type.replace('reasoning_text', 'reasoning')];
  assert.deepEqual(plain.map((event) => [event.sequence_number, event.type]), helped.map(named));
  const events = await all(await client.responses.create({ ...asked, input: '/fast /think Why?', stream: true }));
  assert.ok(events.some((event) => event.type === 'response.reasoning_text.delta'));
  assert.equal(events.at(-1).type, 'response.completed');
}

async function isTakenBack(client) {
  // Said whole, then the filter takes the second half back.
  const asked = { model, input: '/fast /retract Say "one two three four".' };
  const kept = 'one two';
  const whole = await client.responses.create(asked);
  assert.deepEqual([whole.status, whole.incomplete_details.reason, whole.output_text], ['incomplete', 'content_filter', kept]);
  const events = await all(await client.responses.create({ ...asked, stream: true }));
  const told = events.find((event) => event.type === 'colloquy:output_text_retracted');
  assert.deepEqual([told.text, told.reason], [kept, 'content_filter']);
  assert.equal(events.at(-1).response.output[0].content[0].text, kept);
  // The helper throws at events it does not know: it is shown the response as it stands instead.
  const stream = client.responses.stream(asked);
  const helped = await all(stream);
  const final = await stream.finalResponse();
  assert.deepEqual([final.status, final.output_text], ['incomplete', kept]);
  const standing = helped.filter((event) => event.type === 'response.in_progress').at(-1);
  assert.equal(standing.response.output[0].content[0].text, kept);
  assert.equal(helped[standing.sequence_number].sequence_number, standing.sequence_number);
  const plain = await plainly(final.id);
  assert.equal(plain[standing.sequence_number].type, 'colloquy:output_text_retracted');
  assert.equal(plain.length, helped.length);
  // Resumed by the helper, which replays from the beginning.
  const resumed = client.responses.stream({ response_id: final.id, starting_after: 3 });
  assert.deepEqual((await all(resumed)).map((event) => event.sequence_number), plain.slice(4).map((event) => event.sequence_number));
  assert.equal((await resumed.finalResponse()).output_text, kept);
  const chat = await client.chat.completions.create({ model, messages: [{ role: 'user', content: asked.input }] });
  assert.deepEqual([chat.choices[0].message.content, chat.choices[0].finish_reason], [kept, 'content_filter']);
}

async function isLikely(client) {
  const asked = { model, input: '/fast Say "one two".', include: ['message.output_text.logprobs'], top_logprobs: 2 };
  const stream = client.responses.stream(asked);
  const deltas = (await all(stream)).filter((event) => event.type === 'response.output_text.delta');
  const tokens = deltas.flatMap((event) => event.logprobs).map((logprob) => logprob.token);
  const part = (await stream.finalResponse()).output[0].content[0];
  assert.deepEqual(part.logprobs.map((logprob) => logprob.token), tokens);
  assert.equal(tokens.join(''), part.text);
  assert.ok(part.logprobs.every((logprob) => logprob.logprob < 0 && logprob.top_logprobs.length === 2));
  const messages = [{ role: 'user', content: asked.input }];
  const chat = await client.chat.completions.create({ model, messages, logprobs: true, top_logprobs: 2 });
  assert.deepEqual(chat.choices[0].logprobs.content.map((logprob) => logprob.token), tokens);
}

const client = new OpenAI({ maxRetries: 0 });
for (const part of [fillsForms, callsTools, sees, refusesAndIsCut, isTakenBack, isLikely, reasons, fails]) await part(client);
console.log('ok');
