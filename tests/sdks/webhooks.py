"""What the unmodified OpenAI SDK for Python makes of callbacks as a consumer received them.

Each argument is one as JSON: `secret`, `headers`, `body`, and what is to come of it, `type` and `response`. Reads
OPENAI_API_KEY. Ends with `ok`.
"""

import json
import sys

import openai
from openai import OpenAI
from openai.types.webhooks import (
    ResponseCancelledWebhookEvent,
    ResponseCompletedWebhookEvent,
    ResponseFailedWebhookEvent,
    ResponseIncompleteWebhookEvent,
)

KINDS = {
    "response.completed": ResponseCompletedWebhookEvent,
    "response.failed": ResponseFailedWebhookEvent,
    "response.incomplete": ResponseIncompleteWebhookEvent,
    "response.cancelled": ResponseCancelledWebhookEvent,
}

client = OpenAI()
for given in map(json.loads, sys.argv[1:]):
    event = client.webhooks.unwrap(given["body"], given["headers"], secret=given["secret"])
    assert isinstance(event, KINDS[given["type"]]), event
    assert event.type == given["type"] and event.object == "event", event
    assert event.data.id == given["response"], event
    assert event.id.startswith("evt_") and event.created_at > 1_700_000_000, event
    try:
        client.webhooks.unwrap(given["body"].replace("event", "tneve"), given["headers"], secret=given["secret"])
    except openai.InvalidWebhookSignatureError:
        continue
    raise AssertionError("what was tampered with is accepted")
print("ok")
