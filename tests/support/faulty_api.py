"""An API client that injects a fault at one chosen call.

Problem: an operator must survive faults between any two of its calls, and a real server cannot be made to fail at a
chosen call. Decision: every call of the operator goes to the real server through `FaultyApi`, which counts the calls
and passes each to a `Fault`. A death is a BaseException, so that none of the operator's exception handlers catches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gog_operator.cluster.kube import Api, ApiError, Document, Request

Send = Callable[[], Document]
Fault = Callable[[int, Send], Document]
"""(number of the call, from 1 over all restarts; function that sends it) -> its response. Raises ApiError or Death."""


class Death(BaseException):
    """The operator is killed here."""


@dataclass(frozen=True)
class Call:
    """One request of the operator."""

    request: str
    """Method and path, such as `GET /api/…`."""
    turn: int = 0
    """The operator's turn in which it was sent; actors move between turns."""
    effects: int = 0
    """Number of the operator's external effects before this request: writes, and requests to policy pods."""

    @property
    def writes(self) -> bool:
        return not self.request.startswith("GET")


class FaultyApi(Api):
    """Counts calls and passes them to a fault.

    Args:
        api: Client of the real server.
        fault: Determines the response to each call.
        moment: Returns (turn, effects other than writes through this API) at the time of a call.
    """

    def __init__(self, api: Api, fault: Fault, moment: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        self.api, self.fault, self.moment = api, fault, moment
        self.calls: list[Call] = []
        """All calls, in order."""
        self._writes = 0

    def send(self, request: Request) -> Document:
        turn, elsewhere = self.moment()
        self.calls.append(Call(f"{request.method} {request.path}", turn, self._writes + elsewhere))
        self._writes += request.writes
        return self.fault(len(self.calls), lambda: self.api.send(request))


def no_fault(number: int, send: Send) -> Document:
    return send()


def dies_before(call: int) -> Fault:
    def fault(number: int, send: Send) -> Document:
        if number == call:
            raise Death
        return send()

    return fault


def dies_after(call: int) -> Fault:
    def fault(number: int, send: Send) -> Document:
        if number != call:
            return send()
        _ignoring_errors(send)
        raise Death

    return fault


def answers(call: int, error: ApiError, *, landed: bool = False) -> Fault:
    """Responds to one call with an error. landed: the server processed the request, and its response was lost."""

    def fault(number: int, send: Send) -> Document:
        if number != call:
            return send()
        if landed:
            _ignoring_errors(send)
        raise error

    return fault


class EveryAnswer:
    """Responds to the request of one call, and to its repetitions, with the next of ANSWERS, until none is left.

    made: All calls so far, including the present one.
    """

    def __init__(self, call: int, made: list[Call]) -> None:
        self.first, self.made = call, made
        self.left = list(ANSWERS.values())

    def __call__(self, number: int, send: Send) -> Document:
        again = number >= self.first and self.made[-1].request == self.made[self.first - 1].request
        if not again or not self.left:
            return send()
        error, landed = self.left.pop(0)
        if landed:
            _ignoring_errors(send)
        raise error


def outage(first: int, over: Callable[[], bool]) -> Fault:
    """Refuses all connections from a call on, until `over` returns True."""

    def fault(number: int, send: Send) -> Document:
        if number >= first and not over():
            raise ApiError(0, "ConnectionRefusedError", "connection refused")
        return send()

    return fault


ANSWERS: dict[str, tuple[ApiError, bool]] = {
    "403": (ApiError(403, "Forbidden", 'pods is forbidden: User "gog" cannot get resource'), False),
    "409": (ApiError(409, "Conflict", "the object has been modified"), False),
    "429": (ApiError(429, "TooManyRequests", "too many requests", 7.0), False),
    "500": (ApiError(500, "InternalError", "etcdserver: request timed out"), False),
    "500 after all": (ApiError(500, "InternalError", "etcdserver: request timed out"), True),
    "reset": (ApiError(0, "ProtocolError", "Connection aborted: ConnectionResetError(104)"), False),
    "hang": (ApiError(0, "ReadTimeoutError", "Read timed out"), True),
}
"""Error responses by name, each with whether the server processed the request."""


def _ignoring_errors(send: Send) -> None:
    try:
        send()
    except ApiError:
        return
