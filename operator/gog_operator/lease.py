"""A Lease that one operator holds at a time; an operator without it writes nothing.

The Lease avoids duplicate work. It is not needed for correctness, because actions are idempotent. The holder stops
writing earlier than others may acquire the Lease, by more than the duration of one write, so that the old holder's last
write lands before the new holder's first. Clocks of other machines are not trusted; an operator measures how long it
has observed the record unchanged.
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

DURATION = 12.0
"""Seconds for which others must observe the record unchanged before they acquire the lease. With WATCH and the time of a
resync, another operator works within 15 s after this one was killed."""
RENEW = 3.0
"""Seconds between two renewals."""
WATCH = 0.5
"""Seconds between two attempts to acquire the lease."""
TRUSTED = DURATION - WRITE_SECONDS
"""Seconds after a renewal for which the holder may write."""

log = logging.getLogger(__name__)


class Lease:
    """One Lease object.

    Args:
        api: Client of the API server.
        namespace: Namespace of the Lease.
        name: Name of the Lease.
        identity: Unique identity of this operator.
        clock: Monotonic time in seconds.
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
        """Acquires or renews the lease if possible. Returns whether it is held. Raises ApiError."""
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
        """Releases the lease, so that the next operator need not wait. Raises ApiError."""
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
    """Acquires the lease and renews it until `stop` is set. first: set once the lease is held."""
    while not stop.is_set():
        try:
            if lease.attempt() and not first.is_set():
                log.info("acquired the lease as %s", lease.identity)
                first.set()
        except ApiError as error:
            log.warning("lease: %s", error)
        stop.wait(RENEW if lease.held() else WATCH)


class GatedApi(Api):
    """An Api that writes only while the lease is held."""

    def __init__(self, api: Api, lease: Lease) -> None:
        self.api, self.lease = api, lease

    def send(self, request: Request) -> Document:
        if request.writes and not self.lease.held():
            raise ApiError(0, "NotLeader", "another operator holds the lease", TRUSTED)
        return self.api.send(request)
