#!/usr/bin/env python3
"""Stands in for a provider of models: chat completions at /v1, streamed, a word every 50 ms. It says back what it is told.

    scripts/lib/development/provider.py PORT

The built-in demo model answers inside our own processes. This one can be killed, as a provider can be away.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PACE_SECONDS = 0.05
# Of what it is told it repeats so many words.
REPEATED = 60


def text_of(message: dict) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))


def words_for(messages: list[dict]) -> list[str]:
    """The answer. What stands between an event's marks is told without them."""
    asked = next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")
    lines = [line for line in asked.splitlines() if not line.startswith(("BEGIN EVENT DATA", "END EVENT DATA"))]
    told = " ".join(lines).split()
    return ["The", "stand-in", "for", "a", "provider", "was", "told:", *told[:REPEATED], *(["…"] if len(told) > REPEATED else [])]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        try:
            request = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            messages = request["messages"]
        except (ValueError, KeyError, TypeError):
            return self._json(400, {"error": {"message": "expected a chat completion's request", "type": "invalid_request_error"}})
        if not self.path.endswith("/chat/completions"):
            return self._json(404, {"error": {"message": "only /v1/chat/completions is here", "type": "invalid_request_error"}})
        words = words_for(messages)
        most = request.get("max_completion_tokens") or request.get("max_tokens") or len(words)
        cut, words = len(words) > most, words[:most]
        asked = sum(len(text_of(message).split()) for message in messages)
        usage = {"prompt_tokens": asked, "completion_tokens": len(words), "total_tokens": asked + len(words)}
        head = {"id": f"chatcmpl-{time.time_ns():x}", "created": int(time.time()), "model": request.get("model", "stand-in")}
        finish = "length" if cut else "stop"
        try:
            if request.get("stream"):
                self._stream(head, words, finish, usage)
            else:
                message = {"role": "assistant", "content": " ".join(words)}
                self._json(200, {**head, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})
        except ConnectionError:
            print("[provider] who asked has left", flush=True)
            return
        print(f"[provider] {asked} words in, {len(words)} out", flush=True)

    def _stream(self, head: dict, words: list[str], finish: str, usage: dict) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        head = {**head, "object": "chat.completion.chunk"}
        for at, word in enumerate(words):
            delta = {"content": word if at == 0 else f" {word}"} | ({"role": "assistant"} if at == 0 else {})
            self._event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            time.sleep(PACE_SECONDS)
        self._event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        self._event({**head, "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, chunk: dict) -> None:
        self._chunk(f"data: {json.dumps(chunk)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"[provider] process {os.getpid()} answers on port {sys.argv[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("[provider] gone", flush=True)
