"""What the control plane needs of its surroundings: objects, jobs, servers, a dataset, the state of the store.

Two implementations: files and processes of one machine (`local.py`), the Kubernetes API (`remote.py`). Every method may
be repeated after a crash with the same arguments. What goes wrong is one of these exceptions:

| exception     | meaning                                                  | handled by                                |
|---------------|----------------------------------------------------------|-------------------------------------------|
| Conflict      | the object changed since it was read                     | `reconcile`: makes another pass at once   |
| AlreadyExists | an object has the name already                           | `reconcile.create`: checks its owner      |
| Refused       | the cluster will not do it as things are: a missing      | `reconcile.attempt`: a condition and an   |
|               | queue, a quota, a namespace that is being deleted        | event of the object; looks again later    |
| Unavailable   | the cluster cannot be reached or is overloaded           | the work queue: retries with backoff      |
| Unreadable    | the object is not understood (`documents.py`)            | `main.Workers`: a condition of the object |
| kube.ApiError | the raw answer; only 404 and 409 leave `api_errors.py`   | the caller, who knows what they mean      |
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
    """The object has changed since it was read: read it again."""


class AlreadyExists(Exception):
    """An object of that name exists."""


class Refused(Exception):
    """The cluster will not do it as things are.

    Attributes:
        reason: of the object's condition.
        message: of the object's condition: what is in the way.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Unavailable(Exception):
    """The cluster cannot be reached or is overloaded: the same again later.

    Attributes:
        after: seconds that it asks to wait; 0 if it does not.
    """

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Cluster(Protocol):
    """Where objects live and their jobs and servers run."""

    @property
    def is_persistent(self) -> bool:
        """Whether the cluster outlives a run: then the policy is served, and a finished run's time to live ends."""

    def get(self, kind: type[Thing], name: str) -> Thing | None: ...

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]: ...

    def children(self, owner: Object) -> tuple[Object, ...]:
        """The stages (in the order of stages) and endpoints that the object owns."""

    def create(self, thing: Object) -> None:
        """Creates an object. Raises AlreadyExists."""

    def patch_status(self, thing: Object, status: Status) -> None:
        """Replaces the status of an object that has not changed since it was read. Raises Conflict."""

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        """Merges fields into an object; does nothing when it is gone."""

    def delete(self, kind: str, name: str, uid: str = "") -> None:
        """Deletes an object; does nothing when it is gone. uid: only this one; "" for whichever has the name."""

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        """Records an event of an object."""

    def create_job(self, stage: Stage, endpoints: dict[str, str], judge_model: str) -> None:
        """Creates the job of the stage's current attempt.

        Args:
            stage: whose attempt.
            endpoints: URL by tool.
            judge_model: model that the judge's server is asked for; "" for its only one.
        """

    def job(self, stage: Stage) -> JobView | None:
        """The job of the stage's current attempt; None if it was never created."""

    def cancel_job(self, stage: Stage) -> None:
        """Ends the job of the stage's current attempt, gracefully first."""

    def start_server(self, endpoint: Endpoint, port: int, now: datetime) -> None:
        """Starts the server, or updates it to the endpoint's current spec. port: 0 for a free one."""

    def server(self, endpoint: Endpoint) -> ServerView | None:
        """The endpoint's server; None if it was never started."""

    def stop_server(self, name: str) -> None:
        """Stops the server of the endpoint of that name, which may be gone already."""

    def load_version(self, endpoint: Endpoint, version: str) -> None:
        """Makes every pod serve a checkpoint; may return before they do."""

    def prepare_data(self, owner: Object) -> None:
        """Makes the owner's dataset, where it must be made."""

    def data(self, owner: Object) -> DataView:
        """The owner's dataset."""

    def progress(self, stage: Stage, job: JobView | None) -> Progress | None:
        """The progress of the stage's job; None if it does not report any."""

    def store_state(self, owner: Stage | GoGRun) -> StoreView:
        """What the store holds: of a stage's key since its current attempt ended; of a run's skipped stages."""

    def check_store(self, owner: Stage | GoGRun) -> None:
        """Looks into the store, so that `store_state` becomes known."""

    def report(self, run: GoGRun) -> ReportView:
        """The run's report."""

    def write_report(self, run: GoGRun, children: tuple[Object, ...]) -> None:
        """Writes the run's report. children: its stages and endpoints."""

    def default_store(self) -> settings.StoreSpec | None:
        """Where checkpoints go when the manifest names no store; None where it must name one."""
