"""What the demo model shows of `/v1/responses`, as the unmodified OpenAI SDK for Python uses it: structured output, tools,
images, refusals, reasoning, failures, answers that are cut.

Reads OPENAI_BASE_URL, OPENAI_API_KEY, COLLOQUY_DEV_MODEL. Ends with `ok`.
"""

import json
import os
import time

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
    return {"type": "function", "name": name, "description": description, "parameters": parameters, "strict": True}


TOOLS = [
    tool("get_weather", "The current weather of a city", city={"type": "string"}),
    tool("get_time", "The current time in a city", city={"type": "string"}),
]


def raises(kind, call, **wanted):
    try:
        call()
    except kind as error:
        for name, value in wanted.items():
            assert getattr(error, name) == value, (name, getattr(error, name), error)
        return
    raise AssertionError(f"no {kind.__name__}")


def fills_forms(client: OpenAI) -> None:
    parsed = client.responses.parse(model=MODEL, input="/fast Ada is 36.", text_format=Person)
    assert isinstance(parsed.output_parsed, Person), parsed
    assert parsed.text.format.type == "json_schema" and parsed.text.format.name == "Person"
    with client.responses.stream(model=MODEL, input="/fast Ada is 36.", text_format=Person) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed and "response.output_text.done" in kinds
    loose = client.responses.create(model=MODEL, input="/fast Ada", text={"format": {"type": "json_object"}})
    assert isinstance(json.loads(loose.output_text), dict)


def calls_tools(client: OpenAI) -> None:
    question = "/fast What is the weather in Paris, and the time in Rome?"
    with client.responses.stream(model=MODEL, input=question, tools=TOOLS) as stream:
        deltas = {}
        for event in stream:
            if event.type == "response.function_call_arguments.delta":
                deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
        first = stream.get_final_response()
    calls = [item for item in first.output if item.type == "function_call"]
    assert {call.name for call in calls} == {"get_weather", "get_time"}, first.output
    assert {call.id: call.arguments for call in calls} == deltas
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": f"{call.name}: 21"} for call in calls]
    # Both ways to go on: behind what is stored, and with everything in hand.
    stored = client.responses.create(model=MODEL, previous_response_id=first.id, input=outputs, tools=TOOLS)
    assert "get_weather: 21" in stored.output_text and "get_time: 21" in stored.output_text, stored.output_text
    history = [{"role": "user", "content": question}, *first.output, *outputs]
    loose = client.responses.create(model=MODEL, input=history, tools=TOOLS, store=False)
    assert loose.output_text == stored.output_text
    orphan = [{"type": "function_call_output", "call_id": "call_none", "output": "1"}]
    raises(openai.BadRequestError, lambda: client.responses.create(model=MODEL, input=orphan), param="input[0]")
    one = client.responses.create(model=MODEL, input=question, tools=TOOLS, parallel_tool_calls=False)
    assert [item.type for item in one.output] == ["function_call"]
    forced = client.responses.create(model=MODEL, input="/fast hi", tools=TOOLS, tool_choice={"type": "function", "name": "get_time"})
    assert forced.output[0].name == "get_time" and forced.tool_choice.name == "get_time"
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]}
    listed = client.responses.create(model=MODEL, input=question, tools=TOOLS, tool_choice=allowed)
    assert [item.name for item in listed.output] == ["get_weather"]
    none = client.responses.create(model=MODEL, input=question, tools=TOOLS, tool_choice="none")
    assert none.output_text


def sees(client: OpenAI) -> None:
    picture = {"type": "input_image", "image_url": PIXEL, "detail": "low"}
    document = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
    content = [{"type": "input_text", "text": "/fast Look"}, picture, document]
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": content}])
    assert "image" in answer.output_text and "a.pdf" in answer.output_text, answer.output_text
    items = list(client.responses.input_items.list(answer.id))
    assert [part.type for part in items[0].content] == ["input_text", "input_image", "input_file"]
    assert items[0].content[1].image_url == PIXEL


def refuses(client: OpenAI) -> None:
    refused = client.responses.create(model=MODEL, input="/fast /refuse")
    part = refused.output[0].content[0]
    assert refused.status == "completed" and part.type == "refusal" and part.refusal
    events = list(client.responses.create(model=MODEL, input="/fast /refuse", stream=True))
    assert "".join(e.delta for e in events if e.type == "response.refusal.delta") == part.refusal
    # Who refused can be talked to further.
    assert client.responses.create(model=MODEL, input="/fast hi", previous_response_id=refused.id).output_text


def is_cut(client: OpenAI) -> None:
    for text, more, reason in (
        ("/fast Tell a story in 90 words.", {"max_output_tokens": 16}, "max_output_tokens"),
        ("/fast /filter Tell a story in 20 words.", {}, "content_filter"),
    ):
        cut = client.responses.create(model=MODEL, input=text, **more)
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", reason), cut
        assert cut.output[0].status == "incomplete" and cut.output_text and cut.usage.output_tokens > 0
        events = list(client.responses.create(model=MODEL, input=text, stream=True, **more))
        assert events[-1].type == "response.incomplete" and events[-1].response.incomplete_details.reason == reason
        assert client.responses.retrieve(cut.id).incomplete_details.reason == reason
    raises(openai.BadRequestError, lambda: client.responses.create(model=MODEL, input="x", max_output_tokens=1), param="max_output_tokens")


def is_taken_back(client: OpenAI) -> None:
    # Said whole, then the filter takes the second half back.
    asked = {"model": MODEL, "input": '/fast /retract Say "one two three four".'}
    kept = "one two"
    whole = client.responses.create(**asked)
    assert (whole.status, whole.incomplete_details.reason, whole.output_text) == ("incomplete", "content_filter", kept), whole
    events = list(client.responses.create(**asked, stream=True))
    told = next(event for event in events if event.type == "colloquy:output_text_retracted").to_dict()
    assert (told["text"], told["reason"]) == (kept, "content_filter"), told
    assert events[-1].type == "response.incomplete" and events[-1].response.output_text == kept
    assert [event.sequence_number for event in events] == list(range(len(events)))
    # The helper takes events it does not know.
    with client.responses.stream(**asked) as stream:
        helped = list(stream)
    assert "colloquy:output_text_retracted" in [event.type for event in helped]
    final = helped[-1].response
    assert final.output[0].content[0].text == kept and len(helped) == len(events)
    # Who comes later sees as many events, and nothing of it.
    later = list(client.responses.retrieve(final.id, stream=True))
    assert [event.type for event in later] == [event.type for event in events]
    assert "".join(event.delta for event in later if event.type == "response.output_text.delta") == kept
    assert client.responses.retrieve(final.id).output_text == kept
    chat = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": asked["input"]}])
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == (kept, "content_filter")


def is_likely(client: OpenAI) -> None:
    asked = {"model": MODEL, "input": '/fast Say "one two".', "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    with client.responses.stream(**asked) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
        part = stream.get_final_response().output[0].content[0]
    tokens = [logprob.token for event in deltas for logprob in event.logprobs]
    assert [logprob.token for logprob in part.logprobs] == tokens and "".join(tokens) == part.text, part
    assert all(logprob.logprob < 0 and len(logprob.top_logprobs) == 2 for logprob in part.logprobs)
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": asked["input"]}], logprobs=True, top_logprobs=2
    )
    assert [logprob.token for logprob in chat.choices[0].logprobs.content] == tokens


def fails(client: OpenAI) -> None:
    create = client.responses.create
    raises(openai.InternalServerError, lambda: create(model=MODEL, input="/fail 500"), status_code=503, code="provider_error")
    raises(openai.InternalServerError, lambda: create(model=MODEL, input="/fail 500", stream=True), status_code=503)
    failed = create(model=MODEL, input="/fast /error Tell a story in 20 words.")
    assert failed.status == "failed" and failed.error.code and failed.output_text, failed
    events = list(create(model=MODEL, input="/fast /error Tell a story in 20 words.", stream=True))
    assert events[-1].type == "response.failed" and events[-1].response.error.code
    raises(openai.BadRequestError, lambda: create(model=MODEL, input="x", extra_body={"x": 1}), code="unknown_parameter", param="x")
    raises(openai.BadRequestError, lambda: create(model=MODEL, input="x", previous_response_id="resp_1"), param="previous_response_id")
    raises(openai.NotFoundError, lambda: client.responses.retrieve("resp_1"))
    # The last of all: the deployment is left alone for a second after it.
    raises(openai.RateLimitError, lambda: create(model=MODEL, input="/fail 429"), code="provider_rate_limited")


def reasons(client: OpenAI) -> None:
    asked = {"model": MODEL, "input": "/fast /think Why?", "reasoning": {"effort": "low", "summary": "auto"}}
    events = list(client.responses.create(**asked, include=["reasoning.encrypted_content"], store=False, stream=True))
    final = events[-1].response
    assert [item.type for item in final.output] == ["reasoning", "message"], final.output
    reasoning = final.output[0]
    summary = "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta")
    assert "".join(part.text for part in reasoning.summary) == summary and len(reasoning.summary) == 2
    assert reasoning.encrypted_content and final.usage.output_tokens_details.reasoning_tokens > 0
    history = [{"role": "user", "content": "/fast /think Why?"}, *final.output, {"role": "user", "content": "/fast And?"}]
    assert client.responses.create(model=MODEL, input=history, store=False).output_text
    assert client.responses.create(**asked).output[0].encrypted_content is None
    # Raw reasoning has OpenAI's name, so that its SDK knows what it is.
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert thought and reasoning.content[0].text == thought, [event.type for event in events]
    with client.responses.stream(**asked) as stream:
        helped = [event.type for event in stream]
        assert stream.get_final_response().output[0].content[0].text == thought
    assert helped == [event.type for event in events]


def runs_behind(client: OpenAI) -> None:
    running = client.responses.create(model=MODEL, input="Say hello in 20 words.", background=True, metadata={"k": "v"})
    assert running.status == "queued" and running.background
    for _ in range(200):
        running = client.responses.retrieve(running.id)
        if running.status not in ("queued", "in_progress"):
            break
        time.sleep(0.05)
    assert running.status == "completed" and running.metadata == {"k": "v"} and running.output_text
    client.responses.delete(running.id)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(running.id))


def main() -> None:
    client = OpenAI(max_retries=0, timeout=60)
    for part in (fills_forms, calls_tools, sees, refuses, is_cut, is_taken_back, is_likely, reasons, runs_behind, fails):
        part(client)
    print("ok", flush=True)


main()
