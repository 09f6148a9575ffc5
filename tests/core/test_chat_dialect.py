"""Fields of chat requests that a server refuses are renamed or left out, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gog.chat_dialect import Dialect, DialectTransport
from gog.tool_types import Bill, CallError, FailureKind

REQUEST = {"model": "m", "messages": [], "temperature": 0, "max_tokens": 64, "response_format": {"type": "text"}}
REFUSALS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
    "response_format": "response_format: Extra inputs are not permitted",
    "max_completion_tokens": '[{"loc": ["body", "max_completion_tokens"], "msg": "Unexpected field"}]',
}


class Server:
    """Refuses some fields in a vendor's words, and keeps what it received."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.received = refused, list[dict[str, Any]]()

    async def answer(self, body: bytes, bill: Bill | None) -> bytes:
        self.received.append(json.loads(body))
        for name in self.refused:
            if name in self.received[-1]:
                raise CallError(FailureKind.REFUSED, f"HTTP 400: {REFUSALS[name]}")
        return b"fine"


def sent(server: Server, times: int = 1) -> list[dict[str, Any]]:
    async def send() -> None:
        transport = DialectTransport(server.answer)
        for _ in range(times):
            assert await transport.send(json.dumps(REQUEST).encode()) == b"fine"

    asyncio.run(send())
    return server.received


def test_a_server_that_accepts_everything_gets_the_request_as_it_is() -> None:
    assert sent(Server()) == [REQUEST]


def test_max_tokens_is_sent_under_its_newer_name_to_a_server_that_refuses_it() -> None:
    first, second = sent(Server("max_tokens"))
    assert first == REQUEST and "max_tokens" not in second and second["max_completion_tokens"] == 64


def test_a_temperature_that_is_refused_is_left_out() -> None:
    _, second = sent(Server("temperature"))
    assert second == {name: value for name, value in REQUEST.items() if name != "temperature"}


def test_all_that_a_server_refuses_is_learnt_once() -> None:
    *_, fourth, last, again = sent(Server(*REFUSALS), times=3)
    assert fourth == last == again == {"model": "m", "messages": []}


def test_requests_under_way_when_a_field_is_refused_are_all_sent_again() -> None:
    server = Server("temperature")

    async def send() -> list[bytes]:
        transport = DialectTransport(server.answer)
        return await asyncio.gather(*(transport.send(json.dumps(REQUEST).encode()) for _ in range(4)))

    assert asyncio.run(send()) == [b"fine"] * 4


@pytest.mark.parametrize(
    "message",
    [
        "HTTP 400: this model's context is 512 tokens, you requested 600 (88 in the messages, 512 in max_tokens)",
        "HTTP 404: unknown model",
        "HTTP 400: unsupported message in messages",
    ],
)
def test_a_refusal_for_another_reason_stays_one(message: str) -> None:
    assert not Dialect().learn(message, REQUEST, {})


@pytest.mark.parametrize("kind", [FailureKind.SERVER_ERROR, FailureKind.AUTH])
def test_other_failures_teach_nothing(kind: FailureKind) -> None:
    async def fail(body: bytes, bill: Bill | None) -> bytes:
        raise CallError(kind, "unsupported temperature")

    with pytest.raises(CallError):
        asyncio.run(DialectTransport(fail).send(json.dumps(REQUEST).encode()))


def test_a_server_that_refuses_what_it_was_not_sent_is_not_asked_for_ever() -> None:
    asked: list[bytes] = []

    async def refuse(body: bytes, bill: Bill | None) -> bytes:
        asked.append(body)
        raise CallError(FailureKind.REFUSED, "HTTP 400: unsupported temperature")

    with pytest.raises(CallError):
        asyncio.run(DialectTransport(refuse).send(json.dumps(REQUEST).encode()))
    assert len(asked) == 2
