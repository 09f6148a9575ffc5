"""How a request fails: the failure classes that back ends raise and the HTTP statuses that clients see.

Three classes are enough for a client to decide what to do. `gog.errors.UserError` is a fault of the request: status
400, and a retry would fail again. `Unavailable` is a fault that passes: status 503, and the client's call path retries.
Any other exception is a fault of the server: status 500, with a traceback in its log. `RequestError` is for the few
requests that HTTP gives a more precise status (404 for an unknown model, 409 for a name in use).
"""

from __future__ import annotations

import json
import math

UNEXPECTED = "internal error; see the server's log"
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's `type` of an error by status; other statuses below 500 are invalid_request_error."""
MAX_RETRY_AFTER = 86_400
"""Seconds; a longer pause is a fault of the back end, not something a client should obey."""


class RequestError(Exception):
    """A request that is answered with `status` and one sentence."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        """Creates the error.

        Args:
            status: HTTP status, 400 or above
            message: one sentence for the client
            retry_after: seconds after which a retry may succeed; None sends no Retry-After header
        """
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


class Unavailable(RequestError):
    """The back end cannot answer now: a rate limit, an outage, a timeout of a remote service. The client retries."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(503, message, retry_after=retry_after)


def of_backend(error: Exception) -> RequestError:
    """The 500 for an exception that a back end did not mean to raise. Its message goes to the client."""
    return RequestError(500, f"the back end failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def headers(retry_after: float | None) -> dict[str, str]:
    """The Retry-After header, which takes whole seconds; none for None."""
    if retry_after is None:
        return {}
    return {"retry-after": str(math.ceil(min(max(0.0, retry_after), MAX_RETRY_AFTER)))}


def body(status: int, message: str) -> bytes:
    """An error as JSON in the form that OpenAI clients parse; curl shows it as it is."""
    kind = "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()
