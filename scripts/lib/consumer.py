#!/usr/bin/env python3
"""A small consumer of callbacks: checks each signature as Standard Webhooks asks, and prints what came.

    scripts/lib/consumer.py PORT LOG      secrets: every CALLBACK_SECRET_* in the environment

LOG gets one line of JSON per callback, for programs. It answers 401 to a wrong signature and 204 otherwise, so that it
can be copied as a start: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
SECRETS = [value for name, value in os.environ.items() if name.startswith("CALLBACK_SECRET_")]
PRINTING = threading.Lock()


def mistake(headers, body: bytes) -> str | None:
    """What is wrong with a callback's signature; None: nothing."""
    identity, sent, signatures = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not sent.isdigit():
        return f"webhook-timestamp is {sent!r}"
    if abs(time.time() - int(sent)) > TOLERANCE_SECONDS:
        return "signed too long ago, or in the future"
    for secret in SECRETS:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{identity}.{sent}.".encode() + body, hashlib.sha256).digest()
        wanted = "v1," + base64.b64encode(digest).decode()
        if any(hmac.compare_digest(wanted, signature) for signature in signatures.split(" ")):
            return None
    return "no signature is ours"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        wrong = mistake(self.headers, body)
        identity = self.headers.get("webhook-id", "")
        record = {"id": identity, "verified": wrong is None, "mistake": wrong, "body": body.decode(errors="replace")}
        with PRINTING:
            with open(sys.argv[2], "a") as log:
                log.write(json.dumps(record) + "\n")
            verdict = "signature verified" if wrong is None else f"REFUSED: {wrong}"
            print(f"[consumer] callback {identity}: {verdict}\n[consumer]   {record['body'][:600]}", flush=True)
        self.send_response(204 if wrong is None else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
