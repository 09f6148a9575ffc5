"""Requests to a vendor's API: JSON in and out, its failures typed, its prices added up.

An answer of a vendor is as untrusted as a page. It must be JSON of a bounded size; anything else (the HTML page of a
proxy or of a CAPTCHA, a wrong type) is a failure that passes. Keys come from the environment, and are removed from every
message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jiter
import yarl

from gog import api_keys, tool_transport, wording
from gog.errors import UserError
from gog_tools.fetch import guard
from gog_tools.serving import errors

MAX_ANSWER = 2_000_000
"""Bytes of an answer, decoded."""
MAX_VALUES = 100_000
"""Commas and brackets of an answer. Three bytes of JSON make a list of sixty in memory, so bytes alone are no bound."""
_WORDS = 200
"""Characters that are kept of a vendor's message."""


@dataclass
class Spending:
    """What one call of a tool costs, added up while it runs."""

    vendor: str = ""
    """Who is paid, in one word; empty for a search of our own."""
    usd: float = 0.0
    """US dollars so far."""
    calls: int = 0
    """Requests made of vendors."""
    credit_usd: float | None = None
    """What is left on the account, where the vendor says so."""
    pages: tuple[int, int] | None = None
    """Pages that were read, and pages that could not be read; None while none was tried."""

    def add(self, usd: float) -> None:
        """Adds what an answer cost."""
        self.usd += usd

    def count_page(self, *, read: bool) -> None:
        """Counts a page that was tried."""
        before = self.pages or (0, 0)
        self.pages = (before[0] + read, before[1] + (not read))

    @property
    def charge(self) -> errors.Charge:
        """As headers of the answer."""
        return errors.Charge(self.usd if self.calls else None, self.credit_usd, self.vendor, self.calls, self.pages)


Classify = Callable[[guard.Answer, str], Exception | None]
"""A vendor's error and the message to give -> what it means where the status does not say it; None leaves it."""


def by_status(answer: guard.Answer, message: str) -> None:
    """Leaves every error to its status."""


@dataclass(frozen=True)
class Api:
    """One address of a vendor."""

    name: str
    """The vendor in one word of letters, digits and dashes."""
    url: str
    """Address of its requests."""
    key: str = field(default="", repr=False)
    """The key; empty where none is needed."""
    seconds: float = 20.0
    """Deadline of a request."""
    classify: Classify = by_status
    """Which errors mean something else than their status."""
    max_bytes: int = MAX_ANSWER
    """Most bytes of an answer, decoded."""

    async def ask(
        self,
        client: guard.Guard,
        method: str,
        spending: Spending,
        *,
        price: float = 0.0,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> dict[str, Any]:
        """The JSON object that the vendor answers.

        Args:
            client: makes the request.
            method: GET or POST.
            spending: where the request and its price are added.
            price: US dollars of a request that succeeds.
            headers, params, json: of the request.

        Raises:
            RequestError: AuthFailed, NoCredit, RateLimited, Unavailable, Unreachable or Refused.
        """
        spending.calls += 1
        limits = guard.Limits(max_bytes=self.max_bytes, seconds=self.seconds, types=guard.JSON_TYPES)
        try:
            answer = await client.api(method, self.url, limits=limits, headers=headers, params=params, json=json)
        except guard.Unreachable as error:
            raise errors.Unreachable(f"{self.name}: {self._redacted(str(error))}") from None
        except guard.Blocked as error:
            raise errors.Unavailable(f"{self.name}: {self._redacted(str(error))}") from None
        if answer.status != 200:
            raise self._failure(answer)
        spending.add(price)
        return self._object(answer.body)

    def _object(self, body: bytes) -> dict[str, Any]:
        if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
            raise errors.Unavailable(f"{self.name}: the answer has more than {MAX_VALUES:,} values")
        try:
            value = jiter.from_json(body, allow_inf_nan=False)
        except (ValueError, RecursionError) as error:
            raise errors.Unavailable(f"{self.name}: the answer is not JSON: {str(error)[:100]}") from None
        if not isinstance(value, dict):
            raise errors.Unavailable(f"{self.name}: the answer is not a JSON object")
        return value

    def _failure(self, answer: guard.Answer) -> Exception:
        """What an answer with another status than 200 means."""
        text = wording.one_line(tool_transport.explanation(answer.body, self.key), _WORDS)
        message = f"{self.name}: HTTP {answer.status}: {self._redacted(text)}"
        special = self.classify(answer, message)
        if special is not None:
            return special
        wait = tool_transport.retry_after(answer.headers)
        match answer.status:
            case 401 | 403:
                return errors.AuthFailed(message)
            case 402:
                return errors.NoCredit(message)
            case 429:
                return errors.RateLimited(message, retry_after=wait)
            case status if status >= 500 or status == 408:
                return errors.Unavailable(message, retry_after=wait)
        return errors.Refused(message)

    def _redacted(self, text: str) -> str:
        return text.replace(self.key, "[key]") if self.key else text

    def at(self, path: str) -> Api:
        """The same vendor at a path below its address."""
        return replace(self, url=f"{self.url.rstrip('/')}/{path.lstrip('/')}")


def key_of(variable: str, option: str, environment: Mapping[str, str] = os.environ) -> str:
    """The key in a variable of the environment.

    Args:
        variable: its name.
        option: the option that names it, for messages.
        environment: variables.

    Raises:
        UserError: it is not set, or holds what no header can carry.
    """
    key = api_keys.from_environment(variable, environment)
    if not key:
        raise UserError(
            f"{variable} is not set",
            where=f"--options {option}",
            remedy=f"put the vendor's key into the environment variable {variable}; on a cluster, into the ToolServer's Secret",
        )
    return key


def address(url: str, option: str) -> str:
    """The address of an API from an option, without a slash at its end. Raises UserError naming the option."""
    try:
        parsed = yarl.URL(url)
        usable = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.port is not None
    except (ValueError, TypeError):
        usable, parsed = False, yarl.URL()
    if not usable or parsed.raw_user is not None or parsed.raw_query_string or parsed.raw_fragment:
        raise UserError(
            "not the address of an API",
            where=f"--options {option}",
            remedy="give http://host:port/path or https://…, without user, query and key",
        )
    return url.rstrip("/")
