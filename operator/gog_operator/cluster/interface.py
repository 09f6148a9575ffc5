"""The interface between the control plane and its environment: objects, jobs, servers, the dataset, the store.

It has two implementations: files and processes of one machine (`local.py`), and the Kubernetes API (`remote.py`). Every
method is idempotent, so that it can be repeated after a crash. Methods raise these exceptions:

| exception     | meaning                                                  | handled by                                |
|---------------|----------------------------------------------------------|-------------------------------------------|
| Conflict      | the object changed since it was read                     | `reconcile.write_status`: writes again;   |
|               |                                                          | then its caller: another pass             |
| AlreadyExists | an object of that name exists already                    | `reconcile.create`: checks its owner      |
| Refused       | the cluster rejects the request: a missing queue, a      | `reconcile.attempt`: a condition and an   |
|               | quota, a namespace that is being deleted                 | event of the object; retries later        |
| Unavailable   | the cluster cannot be reached or is overloaded           | the work queue: retries with backoff      |
| Unreadable    | the object does not match our models (`documents.py`)    | `main.Workers`: a condition of the object |
| kube.ApiError | the raw error; only 404 and 409 leave `api_errors.py`    | the caller                                |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from gog import spec as settings
from gog.offers import Asked
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, Object, Progress, Stage, Status, ToolServer
from gog_operator.api.presets import GoGRuntime
from gog_operator.plan.actions import (
    DataView,
    Event,
    JobView,
    Launcher,
    PublicationView,
    ReportView,
    ServerView,
    SourcesView,
    StoreView,
    ToolCheckView,
)
from gog_operator.plan.erasure import ErasureView

Thing = TypeVar("Thing", bound=Object)


class Conflict(Exception):
    """The object has changed since it was read; it must be read again."""


class AlreadyExists(Exception):
    """An object of that name exists."""


class Refused(Exception):
    """The cluster rejects the request in its present state.

    Attributes:
        reason: Reason for the object's condition.
        message: Message for the object's condition; names the obstacle.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Unavailable(Exception):
    """The cluster cannot be reached or is overloaded; the pass is to be retried.

    Attributes:
        after: Seconds to wait first, as requested by the server; 0 for no request.
    """

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Cluster(Protocol):
    """Where objects live and their jobs and servers run."""

    @property
    def is_persistent(self) -> bool:
        """Whether the cluster outlives a run. If so, the policy is served, and finished runs expire by their TTL."""

    @property
    def wakes(self) -> bool:
        """Whether it causes a pass when a job reports progress, or a pod that was waited for may run."""

    @property
    def job_ttl_seconds(self) -> int | None:
        """Seconds that ended jobs of finished objects are kept where the spec does not say; None for ever."""

    def get(self, kind: type[Thing], name: str) -> Thing | None: ...

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]: ...

    def children(self, owner: Object) -> tuple[Object, ...]:
        """The stages (in the order of stages) and ToolServers that a run or an agent owns."""

    def preset(self, name: str) -> GoGRuntime | None:
        """The preset of that name; None on one machine, which has none. Raises Refused if there is no such preset."""

    def create(self, thing: Object) -> None:
        """Creates an object. Raises AlreadyExists."""

    def patch_status(self, thing: Object, status: Status) -> None:
        """Replaces the status of an object that has not changed since it was read. Raises Conflict."""

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        """Merges fields into an object; does nothing if it does not exist."""

    def delete(self, kind: str, name: str, uid: str = "") -> None:
        """Deletes an object; does nothing if it does not exist. uid: deletes only this one; empty for any."""

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        """Records an event of an object."""

    def launcher(self, stage: Stage) -> Launcher | None:
        """How an attempt of the stage is started; None on one machine."""

    def create_job(self, stage: Stage, endpoints: dict[str, str], judge_model: str) -> None:
        """Creates the job of the stage's current attempt.

        Args:
            stage: The stage.
            endpoints: URL of each tool, by role.
            judge_model: Model to request from the judge's server; empty for its only one.
        """

    def job(self, stage: Stage) -> JobView | None:
        """The job of the stage's current attempt; None if it was never created."""

    def cancel_job(self, stage: Stage) -> None:
        """Ends the job of the stage's current attempt, gracefully first."""

    def remove_jobs(self, owner: Stage | GoGRun) -> None:
        """Deletes the ended jobs of an object, with their settings and their pods."""

    def start_server(self, tool_server: ToolServer, port: int, now: datetime) -> None:
        """Starts the server, or updates it to the ToolServer's current spec. port: 0 for a free one."""

    def server(self, tool_server: ToolServer) -> ServerView | None:
        """The ToolServer's server; None if it was never started."""

    def stop_server(self, name: str) -> None:
        """Stops the server of the ToolServer of that name. The ToolServer need not exist any more."""

    def load_version(self, tool_server: ToolServer, version: str) -> None:
        """Loads a checkpoint into every pod; may return before this is complete."""

    def set_routes(self, agent: ToolServer, routes: str) -> None:
        """Writes where an agent's chats go. Its server's view shows what was written."""

    def chats(self, agent: ToolServer) -> Progress | None:
        """What an agent reports of its chats; None for no answer."""

    def agent_store(self, run: GoGRun, name: str) -> settings.StoreSpec | None:
        """The store for the versions of an agent that the run starts; None for the run's own. name: of the agent."""

    def publication(self, run: GoGRun) -> PublicationView:
        """The publication of the run's policy as a version of its agent."""

    def publish(self, run: GoGRun, asked: Asked, store: settings.StoreSpec) -> None:
        """Starts that publication; one that was made is found again. store: the agent's."""

    def prepare_data(self, owner: Object) -> None:
        """Generates the owner's dataset, if it is to be generated."""

    def data(self, owner: Object) -> DataView:
        """The owner's dataset."""

    def sources(self, run: GoGRun) -> SourcesView:
        """The fetch of the run's sources into the model cache."""

    def fetch_sources(self, run: GoGRun) -> None:
        """Starts that fetch."""

    def progress(self, stage: Stage, job: JobView | None) -> Progress | None:
        """The progress of the stage's job; None if it does not report any."""

    def store_state(self, owner: Stage | GoGRun) -> StoreView:
        """The checkpoints in the store: of a stage after its attempt ended, or of a run's skipped stages."""

    def check_store(self, owner: Stage | GoGRun) -> None:
        """Checks the store, so that `store_state` becomes known."""

    def tool_check(self, run: GoGRun) -> ToolCheckView:
        """The check of the run's tools whose number its status has."""

    def check_tools(self, run: GoGRun, urls: Mapping[str, str]) -> None:
        """Starts that check. urls: URL of each tool, by role."""

    def set_finalizers(self, thing: Object, finalizers: tuple[str, ...]) -> None:
        """Replaces the finalizers of an object that has not changed since it was read. Raises Conflict."""

    def erasure(self, run: GoGRun) -> ErasureView:
        """The erasure of the artifacts of a run that is being deleted."""

    def erase_artifacts(self, run: GoGRun) -> None:
        """Starts that erasure, or starts it again after a failed one."""

    def report(self, run: GoGRun) -> ReportView:
        """The run's report."""

    def write_report(self, run: GoGRun, children: tuple[Object, ...]) -> None:
        """Writes the run's report. children: its stages and ToolServers."""

    def default_store(self) -> settings.StoreSpec | None:
        """The store for manifests that name none; None if they must name one."""
