"""A Lease that one operator holds at a time; while it is not held, nothing is written.

It spares two operators from doing everything twice; that nothing breaks when they do is ensured by the plans and by
idempotent actions. The holder trusts its lease for less time than others must wait before they take it, by more than one
write may take, so that the last write of the old holder has landed before the first of the new one. Other machines'
clocks are not trusted: what counts is how long a record has not changed as observed here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from gog_operator.cluster import paths
from gog_operator.cluster.kube import MERGE, WRITE_SECONDS, Api, ApiError, Document, Request

DURATION = 15.0
"""Seconds that others must see the record unchanged before they take the lease."""
RENEW = 5.0
"""Seconds between two renewals."""
TRUSTED = DURATION - WRITE_SECONDS
"""Seconds after a renewal for which the holder may write."""

log = logging.getLogger(__name__)


class Lease:
    """One Lease object.

    Args:
        api: of the API server.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this operator, unique.
        clock: seconds that only grow.
    """

    def __init__(
        self, api: Api, namespace: str, name: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.api, self.identity, self._clock = api, identity, clock
        self._list, self._path = paths.LEASES.path(namespace), paths.LEASES.path(namespace, name)
        self._namespace, self._name = namespace, name
        self._renewed = -DURATION
        self._seen: tuple[Any, float] = (None, 0.0)

    def held(self) -> bool:
        return self._clock() - self._renewed < TRUSTED

    def attempt(self) -> bool:
        """Takes or renews the lease if possible. Returns whether it is held. Raises ApiError."""
        begun = self._clock()
        record = self._read()
        if record is None:
            self.api.call("POST", self._list, body=self._document(0))
        elif self._may_take(record.get("spec", {})):
            changes = int(record["spec"].get("leaseTransitions") or 0)
            body = self._document(changes + (record["spec"].get("holderIdentity") != self.identity))
            body["metadata"]["resourceVersion"] = record["metadata"]["resourceVersion"]
            self.api.call("PATCH", self._path, body=body, content=MERGE)
        else:
            self._renewed = -DURATION
            return False
        self._renewed = begun
        return True

    def release(self) -> None:
        """Gives the lease up, so that the next operator need not wait. Raises ApiError."""
        if self.held():
            self._renewed = -DURATION
            self.api.call("PATCH", self._path, body={"spec": {"holderIdentity": ""}}, content=MERGE)

    def _read(self) -> dict[str, Any] | None:
        try:
            return self.api.call("GET", self._path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _may_take(self, spec: Mapping[str, Any]) -> bool:
        holder, now = spec.get("holderIdentity"), self._clock()
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen[0]:
            self._seen = (record, now)
        if not holder or holder == self.identity:
            return True
        return now - self._seen[1] >= float(spec.get("leaseDurationSeconds") or DURATION)

    def _document(self, transitions: int) -> dict[str, Any]:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": int(DURATION),
                "renewTime": stamp,
                "leaseTransitions": transitions,
            },
        }


def run(lease: Lease, stop: threading.Event, first: threading.Event) -> None:
    """Takes the lease and renews it until `stop` is set. first: set once it is held."""
    while not stop.is_set():
        try:
            if lease.attempt() and not first.is_set():
                log.info("holds the lease as %s", lease.identity)
                first.set()
        except ApiError as error:
            log.warning("lease: %s", error)
        stop.wait(RENEW if lease.held() else 1.0)


class GatedApi(Api):
    """An Api that writes only while the lease is held."""

    def __init__(self, api: Api, lease: Lease) -> None:
        self.api, self.lease = api, lease

    def send(self, request: Request) -> Document:
        if request.writes and not self.lease.held():
            raise ApiError(0, "NotLeader", "another operator holds the lease", TRUSTED)
        return self.api.send(request)
