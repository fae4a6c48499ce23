"""Chat completions, embeddings and models, as the unmodified OpenAI SDK for Python uses them.

    chat.py             against the demo model
    chat.py provider    against a provider that answers: `Hello there`, a call of `f` with {"x": 1}, `It is 42`,
                        {"name": "Ada", "age": 36}, a 429

Reads OPENAI_BASE_URL, OPENAI_API_KEY, COLLOQUY_DEV_MODEL. Ends with `ok`.
"""

import json
import os
import sys

import openai
from openai import OpenAI
from pydantic import BaseModel

MODEL = os.environ.get("COLLOQUY_DEV_MODEL", "demo")
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Person(BaseModel):
    name: str
    age: int


def tool(name: str, description: str, **properties) -> dict:
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    function = {"name": name, "description": description, "parameters": parameters, "strict": True}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "The current weather of a city", city={"type": "string"})
TIME = tool("get_time", "The current time in a city", city={"type": "string"})


def user(content) -> list:
    return [{"role": "user", "content": content}]


def raises(kind, call, **wanted):
    try:
        call()
    except kind as error:
        for name, value in wanted.items():
            assert getattr(error, name) == value, (name, getattr(error, name), error)
        return error
    raise AssertionError(f"no {kind.__name__}")


def streams(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=user("/fast Say hello in 12 words."), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].object == "chat.completion.chunk"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == 12, text
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    with client.chat.completions.stream(model=MODEL, messages=user("/fast Say hello in 12 words.")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds, set(kinds)
    assert final.choices[0].message.content == text


def calls_tools(client: OpenAI) -> None:
    messages = user("/fast What is the weather in Paris, and the time in Rome?")
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[WEATHER, TIME]) as stream:
        kinds = {event.type for event in stream}
        choice = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds, kinds
    assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 2, choice
    whole = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER, TIME])
    streamed = sorted((call.function.name, call.function.arguments) for call in choice.message.tool_calls)
    answered = sorted((call.function.name, call.function.arguments) for call in whole.choices[0].message.tool_calls)
    assert streamed == answered, (streamed, answered)
    messages.append(whole.choices[0].message)
    for call in whole.choices[0].message.tool_calls:
        assert set(json.loads(call.function.arguments)) == {"city"}
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name}: 21"})
    final = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER, TIME])
    assert "get_weather: 21" in final.choices[0].message.content, final.choices[0].message
    forced = client.chat.completions.create(
        model=MODEL, messages=user("/fast hi"), tools=[TIME], tool_choice={"type": "function", "function": {"name": "get_time"}}
    )
    assert forced.choices[0].message.tool_calls[0].function.name == "get_time"
    none = client.chat.completions.create(model=MODEL, messages=messages[:1], tools=[WEATHER], tool_choice="none")
    assert none.choices[0].message.tool_calls is None and none.choices[0].message.content


def fills_forms(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model=MODEL, messages=user("/fast Ada is 36."), response_format=Person)
    assert isinstance(parsed.choices[0].message.parsed, Person), parsed.choices[0].message
    plain = client.chat.completions.create(model=MODEL, messages=user("/fast Ada"), response_format={"type": "json_object"})
    assert isinstance(json.loads(plain.choices[0].message.content), dict)
    refused = client.chat.completions.parse(model=MODEL, messages=user("/fast /refuse"), response_format=Person)
    assert refused.choices[0].message.refusal and refused.choices[0].message.parsed is None
    raises(
        openai.LengthFinishReasonError,
        lambda: client.chat.completions.parse(model=MODEL, messages=user("/fast Ada"), response_format=Person, max_completion_tokens=2),
    )
    raises(
        openai.ContentFilterFinishReasonError,
        lambda: client.chat.completions.parse(model=MODEL, messages=user("/fast /filter Ada"), response_format=Person),
    )


def remembers_and_sees(client: OpenAI) -> None:
    messages = [{"role": "developer", "content": "Be kind."}, *user("My name is Ada."), {"role": "assistant", "content": "Hello"}]
    answer = client.chat.completions.create(model=MODEL, messages=[*messages, *user("/fast What is my name?")])
    assert "Ada" in answer.choices[0].message.content
    parts = [{"type": "text", "text": "/fast Look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    assert "image" in client.chat.completions.create(model=MODEL, messages=user(parts)).choices[0].message.content


def fails(client: OpenAI) -> None:
    create = client.chat.completions.create
    raises(openai.NotFoundError, lambda: create(model="none", messages=user("hi")), code="model_not_found", param="model")
    raises(openai.BadRequestError, lambda: create(model=MODEL, messages=user("hi"), n=2), code="unsupported_parameter", param="n")
    raises(openai.BadRequestError, lambda: create(model=MODEL, messages=user("hi"), extra_body={"x": 1}), code="unknown_parameter", param="x")
    raises(openai.InternalServerError, lambda: create(model=MODEL, messages=user("/fail 500")), status_code=503)
    raises(openai.APIError, lambda: list(create(model=MODEL, messages=user("/fast /error Say hello in 20 words."), stream=True)))
    raises(openai.AuthenticationError, lambda: OpenAI(api_key="wrong", max_retries=0).models.list(), code="invalid_api_key")
    # The last of all: the deployment is left alone for a second after it.
    raises(openai.RateLimitError, lambda: create(model=MODEL, messages=user("/fail 429")), status_code=429)


def models_and_embeddings(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert models[MODEL].object == "model" and models[MODEL].context_window > 0 and "input" in models[MODEL].price
    assert client.models.retrieve(MODEL) == models[MODEL]
    raises(openai.NotFoundError, lambda: client.models.retrieve("none"), code="model_not_found")
    # The SDK asks for base64 and decodes it.
    coded = client.embeddings.create(model=MODEL, input=["one", "two"])
    plain = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    for one, other in zip(coded.data, plain.data, strict=True):
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding, strict=True)) < 1e-6
    assert coded.usage.prompt_tokens > 0
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=MODEL, input="a", dimensions=0), param="dimensions")


def provider(client: OpenAI) -> None:
    create = client.chat.completions.create
    options = {"include_usage": True}
    chunks = list(create(model=MODEL, messages=user("hi"), stream=True, stream_options=options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there"
    assert chunks[-1].usage.prompt_tokens == 11 and chunks[-1].usage.prompt_tokens_details.cached_tokens == 4, chunks[-1]
    called = create(model=MODEL, messages=user("Call f."), tools=[tool("f", "Does it", x={"type": "integer"})]).choices[0]
    assert called.finish_reason == "tool_calls" and json.loads(called.message.tool_calls[0].function.arguments) == {"x": 1}
    output = {"role": "tool", "tool_call_id": called.message.tool_calls[0].id, "content": "42"}
    said = create(model=MODEL, messages=[*user("Call f."), called.message, output]).choices[0]
    assert said.message.content == "It is 42"
    parsed = client.chat.completions.parse(model=MODEL, messages=user("Ada is 36."), response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Ada", age=36)
    raises(openai.RateLimitError, lambda: create(model=MODEL, messages=user("hi")), status_code=429)


def main() -> None:
    client = OpenAI(max_retries=0, timeout=60)
    if sys.argv[1:] == ["provider"]:
        provider(client)
    else:
        for part in (streams, calls_tools, fills_forms, remembers_and_sees, models_and_embeddings, fails):
            part(client)
    print("ok", flush=True)


main()
