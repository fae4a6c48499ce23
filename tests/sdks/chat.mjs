// Chat completions, embeddings and models, as the unmodified OpenAI SDK for Node uses them. See chat.py, which says what
// it reads and what a provider answers.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const model = process.env.COLLOQUY_DEV_MODEL ?? 'demo';

const tool = (name, description, properties) => ({
  type: 'function',
  function: {
    name,
    description,
    parameters: { type: 'object', properties, required: Object.keys(properties), additionalProperties: false },
  },
});
const weather = tool('get_weather', 'The current weather of a city', { city: { type: 'string' } });
const time = tool('get_time', 'The current time in a city', { city: { type: 'string' } });
const person = {
  type: 'json_schema',
  json_schema: {
    name: 'person',
    strict: true,
    schema: {
      type: 'object',
      properties: { name: { type: 'string' }, age: { type: 'integer' } },
      required: ['name', 'age'],
      additionalProperties: false,
    },
  },
};
const user = (content) => [{ role: 'user', content }];

async function all(events) {
  const seen = [];
  for await (const event of events) seen.push(event);
  return seen;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

async function streams(client) {
  const messages = user('/fast Say hello in 12 words.');
  const asked = { model, messages, stream: true, stream_options: { include_usage: true } };
  const chunks = await all(await client.chat.completions.create(asked));
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.equal(textOf(chunks).split(' ').length, 12);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  const runner = client.chat.completions.stream({ model, messages });
  let heard = '';
  runner.on('content', (delta) => (heard += delta));
  assert.equal(await runner.finalContent(), heard);
  assert.equal(heard, textOf(chunks));
}

async function callsTools(client) {
  const messages = user('/fast What is the weather in Paris, and the time in Rome?');
  const runner = client.chat.completions.stream({ model, messages, tools: [weather, time] });
  const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, 'tool_calls');
  assert.equal(message.tool_calls.length, 2);
  for (const call of message.tool_calls) JSON.parse(call.function.arguments);
  const outputs = message.tool_calls.map((call) => ({
    role: 'tool',
    tool_call_id: call.id,
    content: `${call.function.name}: 21`,
  }));
  const tools = [weather, time];
  const final = await client.chat.completions.create({ model, messages: [...messages, message, ...outputs], tools });
  assert.match(final.choices[0].message.content, /get_weather: 21/);
  // The SDK's own loop.
  const asked = [];
  const get_weather = {
    type: 'function',
    function: { ...weather.function, parse: JSON.parse, function: (given) => (asked.push(given), 'sunny') },
  };
  const loop = client.chat.completions.runTools({ model, messages: user('/fast What is the weather in Rome?'), tools: [get_weather] });
  assert.match(await loop.finalContent(), /sunny/);
  assert.deepEqual(asked, [{ city: 'Rome' }]);
}

async function fillsForms(client) {
  const asked = { model, messages: user('/fast Ada is 36.'), response_format: person };
  const whole = await client.chat.completions.parse(asked);
  const filled = JSON.parse(whole.choices[0].message.content);
  assert.equal(typeof filled.name, 'string');
  assert.ok(Number.isInteger(filled.age));
  const refused = await client.chat.completions.parse({ ...asked, messages: user('/fast /refuse') });
  assert.ok(refused.choices[0].message.refusal);
  await assert.rejects(client.chat.completions.parse({ ...asked, max_completion_tokens: 2 }), OpenAI.LengthFinishReasonError ?? Error);
}

async function fails(client) {
  const create = (more) => client.chat.completions.create({ model, messages: user('hi'), ...more });
  await assert.rejects(create({ model: 'none' }), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
  await assert.rejects(create({ n: 2 }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'n');
  await assert.rejects(create({ messages: user('/fail 500') }), (e) => e instanceof OpenAI.InternalServerError && e.status === 503);
  const broken = await create({ messages: user('/fast /error Say hello in 20 words.'), stream: true });
  await assert.rejects(all(broken), OpenAI.APIError);
  await assert.rejects(create({ messages: user('/fail 429') }), OpenAI.RateLimitError);
}

async function modelsAndEmbeddings(client) {
  const listed = (await all(client.models.list())).find((each) => each.id === model);
  assert.ok(listed.context_window > 0 && listed.price.input >= 0);
  assert.deepEqual(await client.models.retrieve(model), listed);
  const coded = await client.embeddings.create({ model, input: ['one', 'two'] });
  const plain = await client.embeddings.create({ model, input: ['one', 'two'], encoding_format: 'float' });
  coded.data.forEach(({ embedding }, at) =>
    Array.from(embedding).forEach((number, i) => assert.ok(Math.abs(number - plain.data[at].embedding[i]) < 1e-6)),
  );
}

async function provider(client) {
  const create = (more) => client.chat.completions.create({ model, messages: user('hi'), ...more });
  const chunks = await all(await create({ stream: true, stream_options: { include_usage: true } }));
  assert.equal(textOf(chunks), 'Hello there');
  assert.equal(chunks.at(-1).usage.prompt_tokens, 11);
  const tools = [tool('f', 'Does it', { x: { type: 'integer' } })];
  const called = (await create({ messages: user('Call f.'), tools })).choices[0];
  assert.equal(called.finish_reason, 'tool_calls');
  assert.deepEqual(JSON.parse(called.message.tool_calls[0].function.arguments), { x: 1 });
  const output = { role: 'tool', tool_call_id: called.message.tool_calls[0].id, content: '42' };
  const said = await create({ messages: [...user('Call f.'), called.message, output] });
  assert.equal(said.choices[0].message.content, 'It is 42');
  const parsed = await create({ response_format: person });
  assert.deepEqual(JSON.parse(parsed.choices[0].message.content), { name: 'Ada', age: 36 });
  await assert.rejects(create({}), OpenAI.RateLimitError);
}

const client = new OpenAI({ maxRetries: 0 });
if (process.argv[2] === 'provider') {
  await provider(client);
} else {
  for (const part of [streams, callsTools, fillsForms, modelsAndEmbeddings, fails]) await part(client);
}
console.log('ok');
