"""What a plan observes and what it may request: plain data, so that every decision can be tested as a table.

Views are what a cluster observed; actions are what it is asked to do. Every action is idempotent, because a control
plane that dies between an action and the status that records it repeats the action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from gog import offers
from gog import spec as settings
from gog_operator.api import names, objects
from gog_operator.api.meta import Reason
from gog_operator.plan.agent_actions import Publish as Publish
from gog_operator.plan.agent_actions import SetRoutes as SetRoutes

AnyStatus = TypeVar("AnyStatus", bound=objects.Status)


@dataclass(frozen=True)
class Blocked:
    """Why progress is blocked; it may clear by itself or need a human."""

    reason: Reason
    """Reason of the Ready condition."""
    message: str
    """Message of the Ready condition."""

    @property
    def is_fault(self) -> bool:
        """Whether its event is a warning; to wait in a queue is no fault."""
        return self.reason != Reason.QUEUED


@dataclass(frozen=True)
class Launcher:
    """How a cluster starts an attempt of a stage."""

    image: str
    """Image of a stage that has none pinned: that of its spec, or the operator's default."""
    api_version: str
    """Group and version of its job."""
    kind: str
    """Kind of its job."""

    @staticmethod
    def job_name(stage: objects.Stage, attempt: int) -> str:
        """Name of an attempt's job."""
        return names.job(stage.name, attempt, stage.metadata.uid)


@dataclass(frozen=True)
class JobView:
    """The job of a stage's attempt."""

    state: Literal["running", "succeeded", "failed", "cancelled", "lost"]
    """lost: the job was created and is gone without a result, because the machine, the pods or the job itself
    disappeared; cancelled: it ended because gog requested that."""
    exit_code: int | None = None
    """Exit code, negative for a signal; None where none is known."""
    lines: tuple[str, ...] = ()
    """Last lines of its log."""
    cause: str = ""
    """Why the platform ended it: `pod trainer-0 OOMKilled`. Empty when it ended by itself."""
    blocked: Blocked | None = None
    """Why its pods do not start."""
    started: bool = True
    """Whether one of its pods has started; false while it waits for GPUs, a queue, or an image."""
    images: tuple[str, ...] = ()
    """Distinct ids of its pods' images, as the nodes report them; empty where they were not read."""
    pods: tuple[str, ...] = ()
    """Names of its pods; empty where they were not read."""
    intact: bool = True
    """False when something that its pods wait for is gone, which creating the job again restores."""


@dataclass(frozen=True)
class ServerView:
    """A ToolServer's server."""

    state: Literal["starting", "ready", "exited"]
    """exited: it ended by itself."""
    url: str = ""
    """Base URL; empty before the server is ready."""
    port: int = 0
    """Local port; 0 where there is none."""
    started: datetime | None = None
    """When it was started; None before a pod runs."""
    was_ready: bool = False
    """Whether it has been ready at any time."""
    exit_code: int | None = None
    """Exit code, negative for a signal."""
    lines: tuple[str, ...] = ()
    """Last lines of its log."""
    version: str = ""
    """Checkpoint that every pod of a policy serves."""
    routes: str = ""
    """Routes of an agent, as they were written; empty where there are none."""
    current: bool = True
    """Whether it runs with the ToolServer's present spec; otherwise it is restarted."""
    replicas: int = 0
    """Number of its pods."""
    selector: str = ""
    """Label selector of its pods; empty where there are none."""
    image: str = ""
    """Image reference of its pods; empty where there are none."""
    images: tuple[str, ...] = ()
    """Distinct ids of its pods' images, as the nodes report them; empty where they were not read."""
    pods: tuple[str, ...] = ()
    """Names of its pods; empty where they were not read."""
    blocked: Blocked | None = None
    """Why it does not become ready; of a ready server, why some of its replicas do not serve."""


@dataclass(frozen=True)
class DataView:
    """The dataset."""

    state: Literal["absent", "preparing", "ready", "failed", "unavailable"]
    """absent: nothing was requested yet; failed: a user has to correct something; unavailable: a fault that may pass."""
    spec: settings.DataSpec | None = None
    """Where it is, once it is ready."""
    message: str = ""
    """Why its preparation failed."""
    blocked: Blocked | None = None
    """Why its preparation makes no progress."""


@dataclass(frozen=True)
class SourcesView:
    """The fetch of a run's sources into the model cache."""

    state: Literal["skipped", "absent", "fetching", "done", "failed", "unavailable"]
    """skipped: pods fetch them, or they were fetched before; absent: the job was not started; failed: a user has to correct
    something; unavailable: a fault that may pass."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Volume of each source by its address, once it is done."""
    message: str = ""
    """How far it is, what was fetched, or why it failed."""
    blocked: Blocked | None = None
    """Why the job does not start."""


@dataclass(frozen=True)
class Checkpoint:
    """A stage's newest committed checkpoint."""

    stage: str
    """Store key."""
    step: int
    """Step."""
    complete: bool | None = None
    """Whether it is marked as the stage's last; None where it is not marked, and a job's exit code decides."""

    @property
    def ref(self) -> str:
        """`sft/180`"""
        return f"{self.stage}/{self.step}"


@dataclass(frozen=True)
class StoreView:
    """What the store holds of the keys in question.

    Where a check takes a job of its own, nothing is known until `CheckStore` was requested and the job has ended.
    """

    state: Literal["unknown", "checking", "known", "failed"]
    """unknown: no check was requested yet."""
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    """Newest checkpoints by store key."""
    message: str = ""
    """Why the check failed."""
    blocked: Blocked | None = None
    """Why the check makes no progress."""


@dataclass(frozen=True)
class ToolCheckView:
    """The check of a run's tools."""

    state: Literal["skipped", "absent", "running", "passed", "failed", "unavailable"]
    """skipped: there is nothing to check, or it was checked before; absent: the check of this number was not started;
    failed: a user has to correct something; unavailable: a fault that may pass, also of the check itself."""
    message: str = ""
    """What the tools answered, or what is wrong with which tool and the remedy."""
    blocked: Blocked | None = None
    """Why the check does not start."""
    seconds: float = 0.0
    """How long the check took, by its own clock; 0 while it runs, or if it did not."""


@dataclass(frozen=True)
class ReportView:
    """A run's report."""

    state: Literal["absent", "writing", "done", "failed"]
    """absent: it was not requested yet."""
    message: str = ""
    """Why it could not be written."""
    blocked: Blocked | None = None
    """Why writing makes no progress."""


@dataclass(frozen=True)
class PublicationView:
    """The publication of a run's policy as a version of its agent."""

    state: Literal["absent", "running", "done", "failed"]
    """absent: it was not started."""
    published: offers.Published = field(default_factory=lambda: offers.Published("", ""))
    """What came of it, once it is done."""
    message: str = ""
    """Why it failed."""
    blocked: Blocked | None = None
    """Why it does not start."""


@dataclass(frozen=True)
class CreateObject:
    """Creates a child; one of the same name that the object owns already counts as created."""

    thing: objects.Object
    """The child."""


@dataclass(frozen=True)
class PatchObject:
    """Merges fields into a child's spec and annotations."""

    kind: str
    """Kind of the child."""
    name: str
    """Name of the child."""
    spec: dict[str, Any] = field(default_factory=dict)
    """Fields of spec, camelCase."""
    annotations: dict[str, str] = field(default_factory=dict)
    """Annotations."""


@dataclass(frozen=True)
class DeleteObject:
    """Deletes a child."""

    kind: str
    """Kind of the child."""
    name: str
    """Name of the child."""
    uid: str = ""
    """Deletes only the object with this uid, not a later one of the same name; empty for any."""


@dataclass(frozen=True)
class CreateJob:
    """Creates the job of the stage's current attempt."""

    endpoints: dict[str, str] = field(default_factory=dict)
    """URL of each tool, by role."""
    judge_model: str = ""
    """Model to request from the judge's server; empty for its only one."""


@dataclass(frozen=True)
class CancelJob:
    """Ends the current job, gracefully at first."""


@dataclass(frozen=True)
class StartServer:
    """Starts a ToolServer's server, or restarts it with the present spec."""

    port: int = 0
    """Local port; 0 takes a free one."""


@dataclass(frozen=True)
class StopServer:
    """Stops a ToolServer's server."""


@dataclass(frozen=True)
class LoadVersion:
    """Loads a checkpoint into every pod of a policy; done when the server's view shows the version."""

    version: str
    """The checkpoint: `grpo/120`."""


@dataclass(frozen=True)
class PrepareData:
    """Makes the dataset available where this cluster's jobs and servers can read it."""


@dataclass(frozen=True)
class FetchSources:
    """Fetches a run's sources into the model cache."""


@dataclass(frozen=True)
class CheckStore:
    """Checks the store: after a stage's attempt, or for the checkpoints of a run's skipped stages.

    A complete stage's checkpoint is then also verified and promoted, and older ones are retired, as its spec says.
    """


@dataclass(frozen=True)
class CheckTools:
    """Calls every tool of a run once."""

    urls: dict[str, str] = field(default_factory=dict)
    """URL of each tool, by role."""


@dataclass(frozen=True)
class EraseArtifacts:
    """Starts the job that erases the artifacts of a run; one that failed is replaced."""


@dataclass(frozen=True)
class RemoveJobs:
    """Deletes the ended jobs of a finished object, with their pods."""


@dataclass(frozen=True)
class SetFinalizer:
    """Adds a finalizer to an object, or removes it."""

    name: str
    """The finalizer."""
    present: bool
    """Whether the object is to have it."""


@dataclass(frozen=True)
class WriteReport:
    """Writes the report of a run that is about to be complete."""

    run: objects.GoGRun
    """The run as it will be."""
    children: tuple[objects.Object, ...] = ()
    """Its stages and ToolServers."""


Action = (
    CreateObject
    | PatchObject
    | DeleteObject
    | CreateJob
    | CancelJob
    | StartServer
    | StopServer
    | LoadVersion
    | PrepareData
    | FetchSources
    | CheckStore
    | CheckTools
    | EraseArtifacts
    | RemoveJobs
    | SetFinalizer
    | Publish
    | SetRoutes
    | WriteReport
)


@dataclass(frozen=True)
class Event:
    """An event for users: what happened and what follows. Recorded after the status that it refers to is written."""

    reason: str
    """CamelCase word for programs."""
    message: str
    """Sentence for people."""
    warning: bool = False
    """Whether its type is Warning rather than Normal."""


@dataclass(frozen=True)
class Decision(Generic[AnyStatus]):
    """The result of one pass over an object."""

    status: AnyStatus
    """The object's new status."""
    actions: tuple[Action, ...] = ()
    """What is to be done."""
    events: tuple[Event, ...] = ()
    """What is to be recorded."""
    requeue_after: float | None = None
    """Seconds until another pass is due although nothing else changes; None for no such time."""
