"""What the control plane needs of the place it runs in: objects, jobs, servers, a dataset, a store's newest checkpoint.

Two implementations: files and processes of one machine (`local.py`), later the Kubernetes API. Everything here may be
called again after a crash with the same arguments; only `create` and `patch_status` can refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from gog import spec as settings
from gog_operator.api.objects import Endpoint, Object, Progress, Stage, Status
from gog_operator.plan.actions import Checkpoint, DataView, Event, JobView, ServerView

Thing = TypeVar("Thing", bound=Object)


class Conflict(Exception):
    """The object was written by somebody else meanwhile: read it again."""


class AlreadyExists(Exception):
    """An object of that name is there."""


class Cluster(Protocol):
    def get(self, kind: type[Thing], name: str) -> Thing | None: ...

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]: ...

    def create(self, thing: Object) -> None:
        """Raises AlreadyExists."""

    def patch_status(self, thing: Object, status: Status) -> None:
        """Replaces the status of the object as it was read. Raises Conflict."""

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        """Merges fields; an object that is gone is left gone."""

    def delete(self, kind: str, name: str) -> None: ...

    def record(self, thing: Object, event: Event, now: datetime) -> None: ...

    def create_job(self, stage: Stage, endpoints: dict[str, str]) -> None:
        """Starts the job of the stage's current attempt."""

    def job(self, stage: Stage) -> JobView | None:
        """The job of the stage's current attempt, None when there never was one."""

    def cancel_job(self, stage: Stage) -> None: ...

    def start_server(self, endpoint: Endpoint, port: int, now: datetime) -> None: ...

    def server(self, endpoint: Endpoint) -> ServerView | None: ...

    def stop_server(self, name: str) -> None:
        """Of the endpoint of that name, which may be gone already."""

    def prepare_data(self, owner: Object) -> None: ...

    def data(self, owner: Object) -> DataView: ...

    def progress(self, stage: Stage) -> Progress | None: ...

    def checkpoint(self, store: settings.StoreSpec, key: str) -> Checkpoint | None: ...

    def default_store(self) -> settings.StoreSpec | None:
        """Where checkpoints go when the manifest does not say; None where it must."""
