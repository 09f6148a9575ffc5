"""What a plan may see and what it may ask for: plain data, so that every decision can be tested as a table.

Views are what a cluster observed; actions are what it is asked to do. Every action may be carried out twice without
harm, because a control plane killed between an action and the status that records it does it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from gog import spec as settings
from gog_operator.api import objects
from gog_operator.api.meta import Reason

AnyStatus = TypeVar("AnyStatus", bound=objects.Status)


@dataclass(frozen=True)
class Blocked:
    """Why something does not get on, where waiting may help and a person may have to."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class JobView:
    """A stage's job. lost: it was created, and is gone without a result (the machine's or `gog run`'s death, a job that
    somebody deleted); cancelled: ended because we asked. exit_code: negative for a signal. lines: the last ones of its
    log. cause: what the platform says of its end: `pod trainer-0 OOMKilled`. blocked: why its pods do not start. intact:
    false when something that they wait for is gone, which creating the job anew brings back."""

    state: Literal["running", "succeeded", "failed", "cancelled", "lost"]
    exit_code: int | None = None
    lines: tuple[str, ...] = ()
    cause: str = ""
    blocked: Blocked | None = None
    intact: bool = True


@dataclass(frozen=True)
class ServerView:
    """An endpoint's server. was_ready: it answered at some time of its life. version: checkpoint that every pod of a
    policy serves. replicas: its pods. current: whether it is as the endpoint's spec wants it; if not, it is started again. blocked: why it
    does not get ready."""

    state: Literal["starting", "ready", "exited"]
    url: str = ""
    port: int = 0
    started: datetime | None = None
    was_ready: bool = False
    exit_code: int | None = None
    lines: tuple[str, ...] = ()
    version: str = ""
    current: bool = True
    replicas: int = 0
    blocked: Blocked | None = None


@dataclass(frozen=True)
class DataView:
    """The dataset; `spec` is where it is found once it is ready. blocked: why whoever makes it does not get on."""

    state: Literal["absent", "preparing", "ready", "failed"]
    spec: settings.DataSpec | None = None
    message: str = ""
    blocked: Blocked | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A stage's newest committed checkpoint. complete: whether it says of itself to be the last one; None: it does not
    say, and then a job's exit code decides."""

    stage: str
    step: int
    complete: bool | None = None

    @property
    def ref(self) -> str:
        return f"{self.stage}/{self.step}"


@dataclass(frozen=True)
class StoreView:
    """What the store holds of the keys that were asked about. Where looking takes a job of its own, nothing is known
    until somebody has asked (`CheckStore`) and the job is over. failed: it cannot be had, and `message` says why.
    blocked: why that job does not get on."""

    state: Literal["unknown", "checking", "known", "failed"]
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    message: str = ""
    blocked: Blocked | None = None


@dataclass(frozen=True)
class ReportView:
    """The report. blocked: why whoever writes it does not get on."""

    state: Literal["absent", "writing", "done", "failed"]
    message: str = ""
    blocked: Blocked | None = None


@dataclass(frozen=True)
class CreateObject:
    """Creates a child; one of the same name that is ours already counts as created."""

    thing: objects.Object


@dataclass(frozen=True)
class PatchObject:
    """Merges fields into a child's spec and annotations."""

    kind: str
    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeleteObject:
    """uid: deletes only that one, not a later one of the same name; "" for whichever is there."""

    kind: str
    name: str
    uid: str = ""


@dataclass(frozen=True)
class CreateJob:
    """Creates the job of the stage's current attempt. endpoints: URL of each tool. judge_model: what the judge's server
    is asked for, "" where nobody says."""

    endpoints: dict[str, str] = field(default_factory=dict)
    judge_model: str = ""


@dataclass(frozen=True)
class CancelJob:
    """Asks the current job to end: politely first."""


@dataclass(frozen=True)
class StartServer:
    """port: 0 takes a free one."""

    port: int = 0


@dataclass(frozen=True)
class StopServer:
    pass


@dataclass(frozen=True)
class LoadVersion:
    """Has every pod of a policy serve a checkpoint; done when the server's view says so."""

    version: str


@dataclass(frozen=True)
class PrepareData:
    """Makes the dataset ready where this cluster's jobs and servers can read it."""


@dataclass(frozen=True)
class CheckStore:
    """Has somebody look into the store: after a stage's attempt, or for the checkpoints of a run's skipped stages.
    A complete stage's checkpoint is verified, promoted and older ones retired on the way, as its spec says."""


@dataclass(frozen=True)
class WriteReport:
    """Writes the report of a run that is about to be complete. run: as it will be; children: its stages and endpoints."""

    run: objects.GoGRun
    children: tuple[objects.Object, ...] = ()


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
    | CheckStore
    | WriteReport
)


@dataclass(frozen=True)
class Event:
    """A sentence for people: cause and consequence. Recorded after the status it tells of."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Decision(Generic[AnyStatus]):
    """What one pass over an object comes to. requeue_after: seconds until time alone makes another pass worthwhile."""

    status: AnyStatus
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
