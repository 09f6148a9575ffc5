"""A chat endpoint on loopback, in a thread of the test's process, that answers by a function."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]


@dataclass
class ChatServer:
    """What a test sees of the endpoint."""

    url: str
    """Its base URL."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests, in order."""
    keys: list[str | None] = field(default_factory=list)
    """Their authorization headers."""
    models: list[str] = field(default_factory=list)
    """Names that /v1/models lists."""


def completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> Answer:
    """A chat completion with this text and further fields of its message."""
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}


def refusal(message: str, status: int = 400) -> Answer:
    """An error in OpenAI's form."""
    return status, {"error": {"message": message, "type": "invalid_request_error"}}


class Script:
    """A policy that writes these turns, by how many turns the conversation has; `before` runs first."""

    def __init__(self, *turns: str) -> None:
        self.turns, self.before = turns, lambda request: None

    def __call__(self, request: dict[str, Any]) -> Answer:
        self.before(request)
        written = sum(message["role"] == "assistant" for message in request["messages"])
        return completion(self.turns[min(written, len(self.turns) - 1)])


@contextlib.contextmanager
def serving(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[ChatServer]:
    """Serves /v1/chat/completions, and /v1/models. answer: body of a request -> status and body of its response."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.requests.append(request)
            served.keys.append(self.headers.get("authorization"))
            self._reply(*answer(request))

        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self._reply(200, {"data": [{"id": name} for name in served.models]})

        def _reply(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = ChatServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
