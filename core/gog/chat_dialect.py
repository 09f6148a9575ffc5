"""Requests of OpenAI's chat protocol in the form that a server accepts.

Servers differ: some models take `max_completion_tokens` only, some refuse a temperature, a seed or a response format. A
server that refuses a field names it in its error message, so the field is renamed or left out, and the request is sent
again. What was learnt holds for all later requests. A refusal for any other reason stays a refusal.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gog.tool_types import Bill, CallError, FailureKind

RENAMED = {"max_tokens": "max_completion_tokens"}
"""Newer names of fields, tried before a refused field is left out."""
KEPT = frozenset({"model", "messages"})
"""Fields without which a request means nothing."""
_REFUSES = re.compile(
    r"unsupported|not (?:be )?(?:supported|permitted|allowed|accepted)|(?:does|do)(?: not|n't) (?:support|accept|allow)"
    r"|unrecogni[sz]ed|unknown|unexpected|extra (?:inputs|fields)|only the default|deprecated",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


@dataclass
class Dialect:
    """Which fields a server takes, as learnt from its refusals."""

    names: dict[str, str] = field(default_factory=dict)
    """Field as we name it -> as the server names it; empty for a field that is left out."""

    def write(self, request: Mapping[str, Any]) -> bytes:
        """A request as the server accepts it."""
        translated = {self.names.get(name, name): value for name, value in request.items()}
        return json.dumps({name: value for name, value in translated.items() if name}).encode()

    def learn(self, message: str, request: Mapping[str, Any], sent: Mapping[str, str]) -> bool:
        """Learns from the error message of a refused request.

        Args:
            message: the server's message.
            request: as we name its fields.
            sent: `names` at the time when it was sent; several requests may be refused for the same reason.

        Returns:
            Whether the request is worth sending again.
        """
        if not _REFUSES.search(message):
            return False
        for name in request:
            used = sent.get(name, name)
            if not used or name in KEPT or not re.search(rf"(?<!\w){re.escape(used)}(?!\w)", message):
                continue
            if self.names.get(name, name) == used:
                self.names[name] = RENAMED.get(used, "")
                log.warning(
                    "the server refuses %s: %s", used, f"sending {self.names[name]}" if self.names[name] else "left out"
                )
            return True
        return False


@dataclass(frozen=True)
class DialectTransport:
    """Sends chat requests, and again where a server refuses a field."""

    inner: Callable[[bytes, Bill | None], Awaitable[bytes]]
    """Sends a body; raises CallError."""
    dialect: Dialect = field(default_factory=Dialect)
    """What the server is known to accept."""

    async def send(self, body: bytes, bill: Bill | None = None) -> bytes:
        """Sends a chat request and returns the body of the response.

        Raises:
            CallError: as `inner` raises it, unless the request can be sent without what is refused.
        """
        request = json.loads(body)
        for _ in range(2 * len(request)):
            sent = dict(self.dialect.names)
            try:
                return await self.inner(self.dialect.write(request) if sent else body, bill)
            except CallError as error:
                if error.kind is not FailureKind.REFUSED or not self.dialect.learn(error.message, request, sent):
                    raise
        return await self.inner(self.dialect.write(request), bill)
