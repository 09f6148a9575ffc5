"""What the control plane needs of the place it runs in: objects, jobs, servers, a dataset, a look into the store.

Two implementations: files and processes of one machine (`local.py`), the Kubernetes API (`remote.py`). Everything here
may be called again after a crash with the same arguments. What the place will not do for now, and a person may have to
see to (a missing queue, a quota, a namespace that is being deleted), is raised as Refused, with a reason for the
conditions; what is only out of order for a moment, as Unavailable.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Endpoint, GoGRun, Object, Progress, Stage, Status
from gog_operator.plan.actions import DataView, Event, JobView, ReportView, ServerView, StoreView

Thing = TypeVar("Thing", bound=Object)


class Conflict(Exception):
    """The object was written by somebody else meanwhile: read it again."""


class AlreadyExists(Exception):
    """An object of that name is there."""


class Refused(Exception):
    """The place will not do it as things are. reason and message go into the object's conditions."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Unavailable(Exception):
    """The place cannot be reached or is overloaded: the same again later. after: seconds that it asks for."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Cluster(Protocol):
    @property
    def is_persistent(self) -> bool:
        """Whether things go on here when a run is over: the policy is served, a finished run's time to live ends."""

    def get(self, kind: type[Thing], name: str) -> Thing | None: ...

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]: ...

    def children(self, owner: Object) -> tuple[Object, ...]:
        """The stages (in the order of stages) and endpoints that the object owns."""

    def create(self, thing: Object) -> None:
        """Raises AlreadyExists."""

    def patch_status(self, thing: Object, status: Status) -> None:
        """Replaces the status of the object as it was read. Raises Conflict."""

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        """Merges fields; an object that is gone is left gone."""

    def delete(self, kind: str, name: str, uid: str = "") -> None:
        """Gone already is as good."""

    def record(self, thing: Object, event: Event, now: datetime) -> None: ...

    def create_job(self, stage: Stage, endpoints: dict[str, str], judge_model: str) -> None:
        """Starts the job of the stage's current attempt. endpoints: URL of each tool; judge_model: "" for its only one."""

    def job(self, stage: Stage) -> JobView | None:
        """The job of the stage's current attempt, None when there never was one."""

    def cancel_job(self, stage: Stage) -> None: ...

    def start_server(self, endpoint: Endpoint, port: int, now: datetime) -> None:
        """Starts the server, or brings it to what the endpoint's spec says now."""

    def server(self, endpoint: Endpoint) -> ServerView | None: ...

    def stop_server(self, name: str) -> None:
        """Of the endpoint of that name, which may be gone already."""

    def load_version(self, endpoint: Endpoint, version: str) -> None:
        """Has every pod serve a checkpoint; may return before they do."""

    def prepare_data(self, owner: Object) -> None: ...

    def data(self, owner: Object) -> DataView: ...

    def progress(self, stage: Stage, job: JobView | None) -> Progress | None:
        """What the stage's job tells of itself now; None when it tells nothing."""

    def store_state(self, owner: Stage | GoGRun) -> StoreView:
        """What the store holds of a stage's key, since its current attempt ended; of a run's skipped stages."""

    def check_store(self, owner: Stage | GoGRun) -> None:
        """Makes `kept` known."""

    def report(self, run: GoGRun) -> ReportView: ...

    def write_report(self, run: GoGRun, children: tuple[Object, ...]) -> None: ...

    def default_store(self) -> settings.StoreSpec | None:
        """Where checkpoints go when the manifest does not say; None where it must."""
