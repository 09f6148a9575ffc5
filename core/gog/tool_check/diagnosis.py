"""What is wrong with a server, in words, and what to do about it. Pure.

A problem is permanent where the same call would fail again until a user acts: a key, an address, a certificate, an
account. The others may pass, so a check is repeated for them.
"""

from __future__ import annotations

import email.utils
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from gog import tool_api, wording
from gog.tool_check.config import COMPARED, Target
from gog.tool_transport import Exchange
from gog.tool_types import FailureKind, ToolFailure

MOST_SKEW = 60.0
"""Seconds by which two clocks may differ: presigned addresses of crops are valid for two minutes."""
LENS = "serpapi-lens"
"""Back end whose server signs addresses of crops."""
API_PAGE = "docs/backends.md"
"""Where the protocol of tool servers is described."""


@dataclass(frozen=True)
class Problem:
    """Why a tool cannot be used."""

    kind: str
    """One word for programs: `auth`, `dns`, `html`, …"""
    what: str
    """What is wrong, in a sentence."""
    remedy: str
    """What to do about it."""
    is_permanent: bool = True
    """Whether it lasts until a user corrects it; otherwise it may pass."""


def of_failure(target: Target, failure: ToolFailure, exchange: Exchange, *, has_key: bool) -> Problem:
    """Why a call failed.

    Args:
        target: the server.
        failure: what the call path made of it.
        exchange: its last request.
        has_key: whether a key was sent.
    """
    message = failure.message
    if "RequestTimeTooSkewed" in message:
        return Problem(
            "clock", f"the store refuses its requests: {message}", "set the clock of the server's node (NTP)"
        )
    match failure.kind:
        case FailureKind.AUTH:
            return _auth(target, message, exchange, has_key)
        case FailureKind.NO_CREDIT:
            return Problem(
                "no_credit", f"the account has no credit: {message}", "top up the vendor's account, or name a fallback"
            )
        case FailureKind.RATE_LIMITED:
            remedy = f"set {target.policy_field}.ratePerMinute to the limit of the plan, or ask for a higher one"
            return Problem("rate_limited", f"it limits the rate: {message}", remedy, is_permanent=False)
        case FailureKind.TIMEOUT:
            remedy = f"check the server, or raise {target.policy_field}.deadlineSeconds"
            return Problem("timeout", message, remedy, is_permanent=False)
        case FailureKind.CONNECTION:
            return _connection(target, message, exchange.error)
        case FailureKind.MALFORMED:
            return _malformed(target, message, exchange)
        case FailureKind.REFUSED:
            return _refused(target, message, exchange)
        case FailureKind.UNDECIDED:
            remedy = "use a model that follows instructions, and raise tools.judge.maxTokens for one that reasons first"
            return Problem("undecided", f"it gives no verdict: {message}", remedy)
    if exchange.headers.get(tool_api.FAILURE_HEADER) == "unreachable":
        what = f"its server cannot reach the vendor: {message.removeprefix(f'HTTP {exchange.status}: ')}"
        remedy = "check the DNS, the proxy and the network policy where the server runs"
        return Problem("vendor_unreachable", what, remedy, is_permanent=False)
    return Problem(
        "unavailable", f"it fails: {message}", "see the server's log or the vendor's status page", is_permanent=False
    )


def of_answer(target: Target, value: object, exchange: Exchange, seconds: float, deadline: float) -> Problem | None:
    """Why an answer is of no use; None if it is.

    Args:
        target: the server.
        value: the answer.
        exchange: the request.
        seconds: how long it took.
        deadline: seconds that the run gives an attempt.
    """
    if target.tool == "judge" and value is False:
        remedy = "use a model that follows the judge's rules; `gog judge calibrate` measures it"
        return Problem("wrong_verdict", "it judged a correct answer to be wrong", remedy)
    if target.tool == "textSearch" and not value and exchange.headers.get(tool_api.VENDOR_HEADER):
        remedy = "check engine, language and reader under endpoints.textSearch.options"
        return Problem("empty", "a search of the web for a well-known person found nothing", remedy)
    if seconds > deadline:
        remedy = f"raise {target.policy_field}.deadlineSeconds above {seconds:.1f} (and budgetSeconds with it), or make it faster"
        what = f"it answered after {seconds:.1f} s, and the run waits {deadline:g} s"
        return Problem("slow", what, remedy, is_permanent=False)
    return None


def skew(headers: Mapping[str, str], now: float) -> float:
    """Seconds by which a server's clock is ahead of ours, from the date of its response; 0 if it gives none."""
    try:
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0


def of_clock(target: Target, seconds: float) -> Problem | None:
    """The problem of a clock that differs by so many seconds, where addresses of crops depend on it."""
    if abs(seconds) <= MOST_SKEW or target.backend != LENS:
        return None
    what = f"its clock is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}: vendors refuse the addresses of crops"
    return Problem("clock", what, "set the clocks of both machines (NTP)")


def _auth(target: Target, message: str, exchange: Exchange, has_key: bool) -> Problem:
    if exchange.headers.get(tool_api.FAILURE_HEADER):
        return Problem(
            "vendor_auth",
            f"its vendor refuses the server's key: {message}",
            "replace the vendor's key: on a cluster in the ToolServer's Secret, else in the server's environment",
        )
    if not has_key:
        return Problem(
            "key_missing", f"it requires a key, and none was sent: {message}", f"put the key into {target.key_source}"
        )
    return Problem("auth", f"it refuses the key: {message}", f"replace the key in {target.key_source}")


def _connection(target: Target, message: str, error: BaseException | None) -> Problem:
    check = f"check the address {target.where}.url"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        may_pass = getattr(error.os_error, "errno", None) == socket.EAI_AGAIN
        return Problem(
            "dns", f"the name {error.host} does not resolve", f"{check} and the DNS", is_permanent=not may_pass
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        remedy = "use the name in its certificate; SSL_CERT_FILE adds private authorities"
        return Problem("tls", f"its certificate is not trusted: {message}", remedy)
    if isinstance(error, aiohttp.ClientSSLError):
        return Problem(
            "tls", f"it does not speak TLS: {message}", f"write http:// in {target.where}.url if that is meant"
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return Problem("not_http", f"it does not answer HTTP: {message}", f"{check}: a TLS port needs https://")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Problem(
            "no_connection", f"nothing listens there: {message}", f"start the server, or {check}", is_permanent=False
        )
    return Problem("connection", f"the connection broke: {message}", "see the server's log", is_permanent=False)


def _malformed(target: Target, message: str, exchange: Exchange) -> Problem:
    body, kind = exchange.body.strip(), exchange.headers.get("content-type", "").lower()
    if not body:
        return Problem("no_body", "its answer is empty", "see the server's log; a proxy may answer in its place")
    if "html" in kind or body[:1] == b"<":
        title = wording.one_line(_title(body), 80)
        words = f" ({title!r})" if title else ""
        remedy = f"check {target.where}.url: a proxy, a login or a CAPTCHA answers in its place"
        return Problem("html", f"it answers HTML{words} where JSON is expected", remedy)
    remedy = f"the server must speak {_protocol(target)}; one of another version of gog does not"
    return Problem("other_api", f"its answer has another form: {message}", remedy)


def _title(page: bytes) -> str:
    """The title of a page; empty for none. Not by a regular expression, whose time a hostile page makes quadratic."""
    lowered = page.lower()
    start = lowered.find(b">", lowered.find(b"<title")) + 1 if b"<title" in lowered else 0
    end = lowered.find(b"</title", start)
    return page[start:end].decode("utf-8", "replace") if 0 < start <= end else ""


def _refused(target: Target, message: str, exchange: Exchange) -> Problem:
    status = exchange.status
    if 300 <= status < 400:
        to = wording.one_line(exchange.headers.get("location", "another address"), 200)
        return Problem("redirect", f"it redirects to {to}", f"name the final address in {target.where}.url")
    if exchange.headers.get(tool_api.FAILURE_HEADER):
        return Problem("vendor_refused", f"its vendor refuses the request: {message}", f"check {target.where}.options")
    if target.model and status in (400, 404) and "model" in message.lower():
        return Problem(
            "model", f"it has no model {target.model!r}: {message}", f"name one of its models in {target.where}.model"
        )
    if "HTTPS port" in message:
        return Problem("tls", f"it speaks TLS only: {message}", f"write https:// in {target.where}.url")
    if status in (404, 405):
        remedy = f"name the base URL in {target.where}.url, without path; the server must speak {_protocol(target)}"
        return Problem("address", f"nothing answers at this path: {message}", remedy)
    return Problem("other_api", f"it refuses the request: {message}", f"the server must speak {_protocol(target)}")


def _protocol(target: Target) -> str:
    if target.tool in ("judge", COMPARED):
        return "OpenAI's chat protocol (/v1/chat/completions)"
    return f"the API of {API_PAGE}"
