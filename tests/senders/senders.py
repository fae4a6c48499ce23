"""What Stripe's, Svix's and Standard Webhooks' Python libraries sign, and what they say of signatures of ours."""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import standardwebhooks
import stripe
import svix

AT = 1_763_700_000
STRIPE = "whsec_test_secret"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw"
BODIES = [
    '{"id":"evt_1","object":"event","type":"invoice.paid"}',
    "{}",
    ' {\n  "name" : "M\u00fcller \u2603 \U0001f512" }\r\n',
    '{"path":"a\\/b","text":"\\u00e9\\u0000"}',
    '{"id":"evt_2","big":"' + "x" * 20_000 + '"}',
    "not json",
]
# Seconds between signing and arrival, and what is to be made of it.
SKEWS = [(0, "ok"), (300, "ok"), (-300, "ok"), (301, "stale"), (-301, "stale")]

Request = dict[str, object]


def request(library: str, scheme: str, secret: str, headers: dict[str, str], body: str, off: int, expect: str) -> Request:
    text = base64.b64encode(body.encode()).decode()
    return {"library": library, "scheme": scheme, "secret": secret, "headers": headers, "body_base64": text, "now": AT + off, "expect": expect}


def stripe_header(body: str, secret: str) -> str:
    return f"t={AT},v1={stripe.WebhookSignature._compute_signature(f'{AT}.{body}', secret)}"


def stripe_requests() -> Iterator[Request]:
    for body in BODIES:
        header = stripe_header(body, STRIPE)
        for off, expect in SKEWS:
            yield request("stripe for Python", "stripe", STRIPE, {"Stripe-Signature": header}, body, off, expect)
        yield request("stripe for Python", "stripe", "whsec_wrong", {"Stripe-Signature": header}, body, 0, "bad_signature")
        yield request("stripe for Python", "stripe", STRIPE, {"Stripe-Signature": header}, body + " ", 0, "bad_signature")
        both = f"{stripe_header(body, 'whsec_old')},{header.split(',')[1]}"
        yield request("stripe for Python", "stripe", STRIPE, {"Stripe-Signature": both}, body, 0, "ok")


def standard_requests(library: str, sign: Callable[[str, str, str], str], family: str) -> Iterator[Request]:
    for number, body in enumerate(BODIES):
        id = f"msg_{number}"
        good, other = sign(STANDARD, id, body), sign(OTHER, id, body)

        def headers(signature: str, id: str = id) -> dict[str, str]:
            return {f"{family}-id": id, f"{family}-timestamp": str(AT), f"{family}-signature": signature}

        for off, expect in SKEWS:
            yield request(library, "standard-webhooks", STANDARD, headers(good), body, off, expect)
        yield request(library, "standard-webhooks", STANDARD, headers(f"{other} {good}"), body, 0, "ok")
        yield request(library, "standard-webhooks", OTHER, headers(good), body, 0, "bad_signature")
        yield request(library, "standard-webhooks", STANDARD, headers(good, "msg_x"), body, 0, "bad_signature")


def sign() -> Iterator[Request]:
    # Both libraries take the time as UTC whatever its zone says.
    at = datetime.fromtimestamp(AT, timezone.utc)
    yield from stripe_requests()
    yield from standard_requests("standardwebhooks for Python", lambda s, id, body: standardwebhooks.Webhook(s).sign(id, at, body), "webhook")
    yield from standard_requests("svix for Python", lambda s, id, body: svix.Webhook(s).sign(id, at, body), "svix")


def verify(given: Request) -> Iterator[Request]:
    body = base64.b64decode(str(given["body_base64"])).decode()
    headers, secret = given["headers"], str(given["secret"])
    checks: dict[str, dict[str, Callable[[], object]]] = {
        "stripe": {"stripe for Python": lambda: stripe.WebhookSignature.verify_header(body, headers["stripe-signature"], secret, 300)},
        "standard-webhooks": {
            "standardwebhooks for Python": lambda: standardwebhooks.Webhook(secret).verify(body, headers, json_parse=False),
            "svix for Python": lambda: svix.Webhook(secret).verify(body, headers),
        },
    }
    for library, check in checks.get(str(given["scheme"]), {}).items():
        try:
            check()
            verdict = "ok"
        except (stripe.SignatureVerificationError, standardwebhooks.WebhookVerificationError) as error:
            verdict = str(error)
        yield {"name": given["name"], "library": library, "verdict": verdict}


def main() -> None:
    if sys.argv[1:] == ["sign"]:
        lines = sign()
    else:
        lines = (verdict for line in sys.stdin for verdict in verify(json.loads(line)))
    for line in lines:
        print(json.dumps(line))


main()
