"""Deliveries signed by the senders' own Python libraries, one JSON object a line. Run by `generate`."""

import base64
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import standardwebhooks
import stripe
import svix.webhooks

CASES = json.loads((Path(__file__).parent / "cases.json").read_text())
NOW = CASES["now"]

Sign = Callable[[str, int, str], dict[str, str]]


def by_stripe(secret: str, time: int, body: str) -> dict[str, str]:
    return {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(body, secret, timestamp=time)}


def standard(sign: Callable[[str, str, datetime, str], str], prefix: str) -> Sign:
    def headers(secret: str, time: int, body: str) -> dict[str, str]:
        signature = sign(secret, "msg_1", datetime.fromtimestamp(time, timezone.utc), body)
        return {f"{prefix}-id": "msg_1", f"{prefix}-timestamp": str(time), f"{prefix}-signature": signature}

    return headers


SENDERS: list[tuple[str, str, Sign]] = [
    ("stripe-python", "stripe", by_stripe),
    ("svix-python", "standard-webhooks", standard(lambda s, *rest: svix.webhooks.Webhook(s).sign(*rest), "svix")),
    ("standardwebhooks-python", "standard-webhooks", standard(lambda s, *rest: standardwebhooks.Webhook(s).sign(*rest), "webhook")),
]


def emit(library: str, scheme: str, name: str, secret: str, headers: dict[str, str], body: str, expect: str) -> None:
    line = {
        "library": library,
        "scheme": scheme,
        "name": name,
        "secret": secret,
        "headers": headers,
        "body_base64": base64.b64encode(body.encode()).decode(),
        "now": NOW,
        "expect": expect,
    }
    sys.stdout.write(json.dumps(line) + "\n")


for library, scheme, sign in SENDERS:
    secret, other = CASES["secrets"][scheme]
    for name, body in CASES["bodies"].items():
        emit(library, scheme, name, secret, sign(secret, NOW, body), body, "ok")
    body = CASES["bodies"]["plain"]
    for age in CASES["ages"]:
        headers = sign(secret, NOW - age["seconds"], body)
        emit(library, scheme, f"signed {age['seconds']} s ago", secret, headers, body, age["expect"])
    emit(library, scheme, "another secret", other, sign(secret, NOW, body), body, "bad_signature")
    emit(library, scheme, "body changed", secret, sign(secret, NOW, body), body + " ", "bad_signature")
