"""An API server's client that fails when it is told to, and one that remembers everything that was written through it.

Problem: what an operator must survive happens between two of its calls, and no real server can be made to fail there.
Decision: every call of the operator goes to the real server through `FaultyApi`, which counts and, at one call, does
what a `Fault` says instead. A death is a BaseException, so that nothing of the operator runs after it. `Witness` sees
all writes of a namespace, the operator's and the actors', and so can play the watch stream, answer actors without
asking the server, and wait until the garbage collector is through. What the collector deletes it learns by asking.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError

Document = dict[str, Any]
Request = Callable[[], Document]
Fault = Callable[[int, Request], Document]
"""(number of the call, counted from 1 over all lives; the request itself) -> its answer. Raises ApiError or Death."""
Heard = Callable[[str, Document], None]
"""(ADDED, MODIFIED or DELETED; the object)"""

PATIENCE = 60.0


class Death(BaseException):
    """The operator is killed here."""


class FaultyApi:
    """Counts calls; one of them may fail. calls: what was asked, `GET /api/…`, in order."""

    def __init__(self, api: Api, fault: Fault) -> None:
        self.api, self.fault = api, fault
        self.calls: list[str] = []

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Document:
        self.calls.append(f"{method} {path}")
        return self.fault(len(self.calls), lambda: self.api.call(method, path, body=body, query=query, content=content))


def nothing(number: int, request: Request) -> Document:
    return request()


def dies_before(call: int) -> Fault:
    def fault(number: int, request: Request) -> Document:
        if number == call:
            raise Death
        return request()

    return fault


def dies_after(call: int) -> Fault:
    def fault(number: int, request: Request) -> Document:
        answer = _whatever(request) if number == call else request()
        if number == call:
            raise Death
        return answer

    return fault


def answers(call: int, error: ApiError, *, landed: bool = False) -> Fault:
    """landed: the server did it, and its answer was lost."""

    def fault(number: int, request: Request) -> Document:
        if number != call:
            return request()
        if landed:
            _whatever(request)
        raise error

    return fault


def answers_again_and_again(call: int, made: Sequence[str], answers: Sequence[tuple[ApiError, bool]]) -> Fault:
    """What was asked at a call is answered badly, then, asked again, in the next bad way, until there is none left.
    made: all calls so far."""
    left = list(answers)

    def fault(number: int, request: Request) -> Document:
        if number < call or not left or made[-1] != made[call - 1]:
            return request()
        error, landed = left.pop(0)
        if landed:
            _whatever(request)
        raise error

    return fault


def is_out(first: int, until: Callable[[], bool]) -> Fault:
    """From a call on nothing gets through, until `until` says so."""

    def fault(number: int, request: Request) -> Document:
        if number >= first and not until():
            raise ApiError(0, "ConnectionRefusedError", "connection refused")
        return request()

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
"""Each with whether the server did what was asked."""


def _whatever(request: Request) -> Document:
    try:
        return request()
    except ApiError:
        return {}


class Witness:
    """Passes everything on; `objects` has what was written, by path, as the server last gave it. writes: requests that
    changed something. ended: whether the namespace is being deleted, so that everything goes. now: the play's time; what
    is created is of that time, whatever the server's clock says."""

    def __init__(self, api: Api, now: Callable[[], datetime]) -> None:
        self.api, self.now = api, now
        self.born: dict[str, str] = {}
        self.objects: dict[str, Document] = {}
        self.listeners: list[Heard] = []
        self.writes, self.ended = 0, False

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Document:
        try:
            answer = self.api.call(method, path, body=body, query=query, content=content)
        except ApiError as error:
            if error.status == 404 and method != "POST":
                self.gone(path)
            raise
        self._date(answer)
        self.writes += method != "GET"
        if method == "DELETE":
            self.look(path)
        elif method != "GET" and "metadata" in answer:
            where = f"{path}/{answer['metadata']['name']}" if method == "POST" else path.removesuffix("/status")
            self._keep(where, answer)
        return answer

    def look(self, path: str) -> None:
        """Learns what has become of an object."""
        try:
            found = self.api.call("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            self.gone(path)
        else:
            self._keep(path, found)

    def gone(self, path: str) -> None:
        body = self.objects.pop(path, None)
        if body is not None:
            self._tell("DELETED", body)

    def _date(self, body: Document) -> None:
        uid = body.get("metadata", {}).get("uid")
        if uid is not None:
            stamp = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            body["metadata"]["creationTimestamp"] = self.born.setdefault(uid, stamp)

    def _keep(self, path: str, body: Document) -> None:
        old = self.objects.get(path)
        self.objects[path] = body
        if old is None or old["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            self._tell("ADDED" if old is None else "MODIFIED", body)

    def _tell(self, type_: str, body: Document) -> None:
        for each in list(self.listeners):
            each(type_, body)

    def of(self, resource: paths.Resource) -> Iterator[tuple[str, Document]]:
        for path, body in list(self.objects.items()):
            if paths.resource_of(path) is resource:
                yield path, body

    def settle(self) -> None:
        """Waits until the garbage collector has taken what has lost its owner. Raises AssertionError for an orphan."""
        end = time.monotonic() + PATIENCE
        while left := self.leaving():
            for path in left:
                self.look(path)
            if self.leaving():
                assert time.monotonic() < end, f"orphans: {self.leaving()}"
                time.sleep(0.01)

    def leaving(self) -> list[str]:
        """Objects that are being deleted, and those none of whose owners are there."""
        if self.ended:
            return list(self.objects)
        there = {body["metadata"]["uid"] for body in self.objects.values()}
        return [path for path, body in self.objects.items() if _leaves(body["metadata"], there)]


def _leaves(metadata: Document, there: set[str]) -> bool:
    owners = metadata.get("ownerReferences") or ()
    return "deletionTimestamp" in metadata or bool(owners and not any(each["uid"] in there for each in owners))


class Remembered:
    """An Api for actors: reads come from what the witness remembers, writes go through it."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Document:
        if method != "GET":
            return self.witness.call(method, path, body=body, query=query, content=content)
        resource = paths.resource_of(path)
        assert resource is not None, path
        if not path.endswith(f"/{resource.plural}"):
            found = self.witness.objects.get(path)
            if found is None:
                raise ApiError(404, "NotFound", f"{path} not found")
            return found
        selector = (query or {}).get("labelSelector", "")
        return {"items": [each for _, each in self.witness.of(resource) if selected(each, selector)]}


class Turns:
    """Lets one of several threads go on at a time, and draws who after each of its calls: two operators at once, and yet
    the same every time."""

    def __init__(self, chance: random.Random, players: int) -> None:
        self.chance, self.waiting = chance, set(range(players))
        self.turn, self.changed = 0, threading.Condition()

    def play(self, works: Sequence[Callable[[], None]]) -> None:
        """All of them to their ends. Raises what the first of them raised that did not end well."""
        self.waiting, self.turn = set(range(len(works))), 0
        with ThreadPoolExecutor(len(works)) as threads:
            for each in [threads.submit(self._play, number, work) for number, work in enumerate(works)]:
                each.result()

    def _play(self, me: int, work: Callable[[], None]) -> None:
        try:
            self._wait(me)
            work()
        finally:
            self.waiting.discard(me)
            self._draw()

    def step(self, me: int) -> None:
        if me in self.waiting:
            self._draw()
            self._wait(me)

    def _draw(self) -> None:
        with self.changed:
            if self.waiting:
                self.turn = self.chance.choice(sorted(self.waiting))
            self.changed.notify_all()

    def _wait(self, me: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == me, PATIENCE), "nobody goes on"


def selected(body: Document, selector: str) -> bool:
    """Whether an object's labels are as a selector of the forms `key` and `key=value` wants them."""
    labels = body["metadata"].get("labels") or {}
    wanted = [each.partition("=") for each in selector.split(",") if each]
    return all(key in labels and (not sign or labels[key] == value) for key, sign, value in wanted)
