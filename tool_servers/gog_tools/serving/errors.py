"""How a request fails: the failure classes that back ends raise and the HTTP statuses that clients see.

`gog.errors.UserError` is a fault of the request: status 400, and a retry would fail again. `Unavailable` is a fault that
passes: status 503, and the client's call path retries. Any other exception is a fault of the server: status 500, with a
traceback in its log. `RequestError` is for the few requests that HTTP gives a more precise status (404 for an unknown
model, 409 for a name in use).

A back end that asks a vendor has more: `AuthFailed`, `NoCredit`, `RateLimited`, `Unreachable` and `Refused`. The status alone cannot say
whose key or credit is meant, this server's or the vendor's, so these answers carry the header `X-GoG-Failure`, which a
client reads first. An answer that failed may have been paid for: `charge` says what it cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from gog import tool_api

UNEXPECTED = "internal error; see the server's log"
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's `type` of an error by status; other statuses below 500 are invalid_request_error."""
MAX_RETRY_AFTER = 86_400
"""Seconds; a longer pause is a fault of the back end, not something a client should obey."""


@dataclass(frozen=True)
class Charge:
    """What an answer cost, whether it succeeded or not."""

    cost_usd: float | None = None
    """US dollars; None for an answer that is free."""
    credit_usd: float | None = None
    """What is left on the account, in US dollars; None when that is not known."""
    vendor: str = ""
    """Who is paid, in one word of letters, digits and dashes; empty for none."""
    calls: int | None = None
    """Requests that were made of the vendor; None for a back end without one."""
    pages: tuple[int, int] | None = None
    """Pages that were read, and pages that could not be read; None for a back end that reads none."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of an answer, without those that are not known."""
        amounts = {tool_api.COST_HEADER: self.cost_usd, tool_api.CREDIT_HEADER: self.credit_usd}
        made = {name: f"{amount:.6f}" for name, amount in amounts.items() if amount is not None}
        if self.vendor:
            made[tool_api.VENDOR_HEADER] = self.vendor
        if self.calls is not None:
            made[tool_api.CALLS_HEADER] = str(self.calls)
        if self.pages is not None:
            made[tool_api.PAGES_READ_HEADER], made[tool_api.PAGES_FAILED_HEADER] = map(str, self.pages)
        return made


class RequestError(Exception):
    """A request that is answered with `status` and one sentence."""

    failure = ""
    """Value of the header `X-GoG-Failure` (tool_api.FAILURES); empty sends none, and the status decides."""

    def __init__(
        self, status: int, message: str, *, retry_after: float | None = None, charge: Charge | None = None
    ) -> None:
        """Creates the error.

        Args:
            status: HTTP status, 400 or above
            message: one sentence for the client
            retry_after: seconds after which a retry may succeed; None sends no Retry-After header
            charge: what the failed answer cost; None for nothing
        """
        super().__init__(message)
        self.status, self.message, self.retry_after, self.charge = status, message, retry_after, charge


class Unavailable(RequestError):
    """The back end cannot answer now: an outage, a timeout of a remote service. The client retries."""

    failure = "unavailable"

    def __init__(self, message: str, *, retry_after: float | None = None, charge: Charge | None = None) -> None:
        super().__init__(503, message, retry_after=retry_after, charge=charge)


class Unreachable(Unavailable):
    """The vendor cannot be reached from here: a name that does not resolve, no connection. The client retries."""

    failure = "unreachable"


class RateLimited(RequestError):
    """The vendor asks to wait. The client retries, after `retry_after` seconds where the vendor gave them."""

    failure = "rate_limited"

    def __init__(self, message: str, *, retry_after: float | None = None, charge: Charge | None = None) -> None:
        super().__init__(429, message, retry_after=retry_after, charge=charge)


class AuthFailed(RequestError):
    """The vendor refuses our key. Not retried: the key must be replaced."""

    failure = "auth"

    def __init__(self, message: str, *, charge: Charge | None = None) -> None:
        super().__init__(502, message, charge=charge)


class NoCredit(RequestError):
    """The vendor's account has no credit left. Not retried: it must be paid."""

    failure = "no_credit"

    def __init__(self, message: str, *, charge: Charge | None = None) -> None:
        super().__init__(402, message, charge=charge)


class Refused(RequestError):
    """The vendor refuses this request and would refuse it again: a query that it does not accept, a wrong option."""

    failure = "refused"

    def __init__(self, message: str, *, charge: Charge | None = None) -> None:
        super().__init__(400, message, charge=charge)


def of_backend(error: Exception) -> RequestError:
    """The 500 for an exception that a back end did not mean to raise. Its message goes to the client."""
    return RequestError(500, f"the back end failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def headers(error: RequestError) -> Mapping[str, str]:
    """The headers of an error's answer: Retry-After in whole seconds, the kind of the failure, what it cost."""
    made = dict(error.charge.headers) if error.charge is not None else {}
    if error.retry_after is not None:
        made["retry-after"] = str(math.ceil(min(max(0.0, error.retry_after), MAX_RETRY_AFTER)))
    if error.failure:
        made[tool_api.FAILURE_HEADER] = error.failure
    return made


def body(status: int, message: str) -> bytes:
    """An error as JSON in the form that OpenAI clients parse; curl shows it as it is."""
    kind = "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()
