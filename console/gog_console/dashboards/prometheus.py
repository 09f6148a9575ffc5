"""Client of Prometheus' HTTP API: range and instant queries.

Read-only. Errors are Prometheus' own words, because they name the place in the expression.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gog.errors import UserError


@dataclass(frozen=True)
class Series:
    """One series of an answer."""

    labels: Mapping[str, str]
    """Without the metric's name."""
    points: tuple[tuple[float, float], ...]
    """(seconds since 1970, value), the oldest first."""


@dataclass(frozen=True)
class Prometheus:
    """A server that is queried over HTTP."""

    url: str
    """Without /api/v1."""
    timeout: float = 60.0
    """Seconds for a query."""

    def curve(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Series over a time range. Raises UserError when the server cannot be reached or refuses the expression."""
        found = self.request("query_range", query=expr, start=start, end=end, step=step)
        return [_series(each["metric"], each["values"]) for each in found["result"]]

    def moment(self, expr: str, at: float) -> list[Series]:
        found = self.request("query", query=expr, time=at)
        if found["resultType"] == "scalar":
            return [_series({}, [found["result"]])]
        return [_series(each["metric"], [each["value"]]) for each in found["result"]]

    def request(self, path: str, **form: object) -> Any:
        """`data` of an answer."""
        body = urllib.parse.urlencode(form).encode()
        try:
            request = urllib.request.Request(f"{self.url.rstrip('/')}/api/v1/{path}", data=body)
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise UserError(f"{form.get('query', '')}: {_said(error.read())}", where=self.url) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"no answer of a Prometheus: {reason}", where=self.url, remedy="give its URL") from None


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]


def _series(labels: Mapping[str, str], values: list[Any]) -> Series:
    own = {key: value for key, value in labels.items() if key != "__name__"}
    return Series(own, tuple((float(time), float(value)) for time, value in values))
