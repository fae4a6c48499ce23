"""The scene of the conversation server, as the unmodified OpenAI SDK for Python plays it.

    scene.py            one conversation: three streamed turns, one of them cut and resumed, one cancelled, items listed
    scene.py takeover   says `streaming ID NUMBER` in the middle of a turn, waits for a line, and resumes at the other server

Reads OPENAI_BASE_URL, OPENAI_API_KEY, COLLOQUY_DEV_MODEL, and for `takeover` COLLOQUY_OTHER_URL. Ends with `ok`.
"""

import os
import sys

from openai import APIError, OpenAI

MODEL = os.environ.get("COLLOQUY_DEV_MODEL", "demo")
FINAL = ("response.completed", "response.failed", "response.incomplete")


def texts(events) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def stream(client: OpenAI, conversation: str, text: str) -> list:
    events = list(client.responses.create(model=MODEL, conversation=conversation, input=text, stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed", [e.type for e in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert texts(events) == events[-1].response.output_text
    return events


def cut(client: OpenAI, conversation: str, text: str, after: int):
    """Begins a turn and leaves once `after` deltas came. Gives what was seen."""
    seen = []
    with client.responses.create(model=MODEL, conversation=conversation, input=text, stream=True) as events:
        for event in events:
            seen.append(event)
            if sum(e.type == "response.output_text.delta" for e in seen) == after:
                break
    return seen[0].response.id, seen


def resume(client: OpenAI, identity: str, seen: list) -> list:
    rest = list(client.responses.retrieve(identity, stream=True, starting_after=seen[-1].sequence_number))
    whole = seen + rest
    assert [event.sequence_number for event in whole] == list(range(len(whole))), "a number is missing or double"
    assert whole[-1].type in FINAL, whole[-1].type
    return whole


def conversation_scene(client: OpenAI) -> None:
    conversation = client.conversations.create(metadata={"scene": "python"})
    assert client.conversations.retrieve(conversation.id).metadata == {"scene": "python"}
    stream(client, conversation.id, "My name is Ada. Say hello in 5 words.")
    recalled = stream(client, conversation.id, "What is my name?")
    assert "Ada" in texts(recalled), texts(recalled)

    identity, seen = cut(client, conversation.id, "Tell me a story in 60 words.", after=5)
    whole = resume(client, identity, seen)
    stored = client.responses.retrieve(identity)
    assert whole[-1].type == "response.completed" and stored.status == "completed"
    assert texts(whole) == stored.output_text, "what was seen is not what was stored"
    assert len(stored.output_text.split()) >= 50, stored.output_text

    identity, seen = cut(client, conversation.id, "Tell me a story in 400 words.", after=3)
    cancelled = client.responses.cancel(identity)
    assert cancelled.status == "cancelled", cancelled.status
    assert client.responses.retrieve(identity).status == "cancelled"
    assert client.responses.cancel(identity).status == "cancelled", "cancelling again is no error"

    items = list(client.conversations.items.list(conversation.id, order="asc", limit=3))
    roles = [item.role for item in items if item.type == "message"]
    assert roles == ["user", "assistant"] * 4, roles
    inputs = list(client.responses.input_items.list(identity))
    assert inputs[0].content[0].text == "Tell me a story in 400 words."
    try:
        client.responses.create(model="no-such-model", input="hi")
    except APIError as error:
        assert error.code == "model_not_found", error
    else:
        raise AssertionError("an unknown model was answered")
    client.conversations.delete(conversation.id)


def takeover_scene(client: OpenAI, other: OpenAI) -> None:
    conversation = client.conversations.create()
    stream(client, conversation.id, "Say hello in 5 words.")
    identity, seen = cut(client, conversation.id, "Tell me a story in 300 words.", after=8)
    print("streaming", identity, seen[-1].sequence_number, flush=True)
    sys.stdin.readline()
    whole = resume(other, identity, seen)
    stored = other.responses.retrieve(identity)
    assert stored.status == "incomplete" and stored.incomplete_details.reason == "interrupted", stored.status
    assert texts(whole) == stored.output_text, "what was seen is not what was stored"
    assert texts(seen) and stored.output_text.startswith(texts(seen))
    # The conversation goes on.
    events = list(other.responses.create(model=MODEL, conversation=conversation.id, input="Say bye in 3 words.", stream=True))
    assert events[-1].type == "response.completed"


def main() -> None:
    client = OpenAI(max_retries=0, timeout=60)
    if sys.argv[1:] == ["takeover"]:
        takeover_scene(client, OpenAI(base_url=os.environ["COLLOQUY_OTHER_URL"], max_retries=0, timeout=120))
    else:
        conversation_scene(client)
    print("ok", flush=True)


main()
