"""The intake as it is written with FastAPI: a Stripe delivery is verified, put on a queue as a message, answered.

It does what `receive-webhook` does for such a delivery, with the quickest of what there is for Python: uvloop, httptools,
aiohttp with kept connections, and one shared access signature for all calls.

WEBHOOK_SECRET_STRIPE: the sender's secret. QUEUE_URL: where messages are put, with its signature.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import sys
import time
import uuid
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import aiohttp
from fastapi import FastAPI, HTTPException, Request, Response

SECRET = os.environ["WEBHOOK_SECRET_STRIPE"].encode()
QUEUE = os.environ["QUEUE_URL"]
TOLERANCE_SECONDS = 300
MAX_BYTES = 1 << 20
SECRET_HEADERS = {"authorization", "cookie", "stripe-signature", "x-functions-key", "proxy-authorization"}

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
log = logging.getLogger("intake")


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    yield
    await app.state.session.close()


app = FastAPI(lifespan=lifespan)


@app.get("/api/health/live")
async def live() -> dict:
    return {"status": "ok"}


@app.post("/api/webhooks/{source}")
async def receive(source: str, request: Request) -> Response:
    received_at = datetime.now(timezone.utc)
    if source != "stripe":
        raise HTTPException(404, "no such source")
    if int(request.headers.get("content-length", MAX_BYTES + 1)) > MAX_BYTES:
        raise HTTPException(413, "too large")
    body = await request.body()
    signed_at = verify(request.headers.get("stripe-signature", ""), body)
    try:
        event = json.loads(body)
        event["id"], event["type"]
    except (ValueError, KeyError, TypeError):
        raise HTTPException(400, "not an event") from None
    delivery = str(uuid.uuid4())
    message = json.dumps({
        "delivery": delivery, "source": source, "request_id": str(uuid.uuid4()), "received_at": received_at.isoformat(),
        "verdict": {"scheme": "stripe", "signed_at": signed_at},
        "headers": [[name, "[redacted]" if name in SECRET_HEADERS else value] for name, value in request.headers.items()],
        "content_type": request.headers.get("content-type"), "body_bytes": len(body), "body": {"text": body.decode()}, "deferrals": 0, "failures": 0,
    })
    text = base64.b64encode(b"v1 " + message.encode()).decode()
    put = f'<?xml version="1.0" encoding="utf-8"?><QueueMessage><MessageText>{text}</MessageText></QueueMessage>'
    async with request.app.state.session.post(QUEUE, data=put, headers={"content-type": "application/xml", "x-ms-version": "2023-11-03"}) as answer:
        await answer.read()
        if answer.status != 201:
            raise HTTPException(503, "try again", {"retry-after": "30"})
    log.info(json.dumps({"level": "INFO", "code": "webhook_accepted", "delivery": delivery, "source": source}))
    return Response(status_code=200)


def verify(header: str, body: bytes) -> int:
    """The time that was signed; refuses what is forged or too old."""
    parts = [part.partition("=")[::2] for part in header.split(",")]
    at = next((value for name, value in parts if name == "t"), "")
    if not at.isdigit() or abs(time.time() - int(at)) > TOLERANCE_SECONDS:
        raise HTTPException(401, "not signed, or too long ago")
    wanted = hmac.new(SECRET, at.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not any(hmac.compare_digest(wanted, value) for name, value in parts if name == "v1"):
        raise HTTPException(401, "forged")
    return int(at)
