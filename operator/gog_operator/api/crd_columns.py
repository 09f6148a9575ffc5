"""What `kubectl get` shows of each kind, and what the kinds are called there.

A column reads one plain field of the status (`status.summary` is text made for it), the reason column the Ready
condition by its type. A stage's short name is the stage: `kubectl get grpo`. All kinds are in the category gog.
"""

from __future__ import annotations

from dataclasses import dataclass

from gog import catalog

READY = '.status.conditions[?(@.type=="Ready")]'


@dataclass(frozen=True)
class Column:
    """priority 1: shown by `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""

    def body(self) -> dict[str, object]:
        made: dict[str, object] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        made |= {"description": self.description} if self.description else {}
        return made | ({"priority": self.priority} if self.priority else {})


@dataclass(frozen=True)
class Names:
    plural: str
    short: str


AGE = Column("Age", ".metadata.creationTimestamp", "date")
MESSAGE = Column("Message", READY + ".message", priority=1, description="What the Ready condition says.")
RUN = (
    Column("Stage", ".status.summary.stage", description="Current stage."),
    Column("Progress", ".status.summary.progress", description="Steps done and to do."),
    Column("Reward", ".status.summary.reward", description="Mean reward of the last steps."),
    Column("Tool-Fail", ".status.summary.toolFailures", description="Share of tool calls that failed."),
    Column("Ready", READY + ".reason", description="What it does, or why it does nothing."),
    AGE,
    Column("Store", ".spec.store.uri", priority=1),
    MESSAGE,
)
STAGE = (
    Column("Attempt", ".status.attempt", "integer", description="Number of the newest attempt."),
    Column("Progress", ".status.summary.progress", description="Steps done and to do."),
    Column("Reason", READY + ".reason", description="What it does, or why it does nothing."),
    AGE,
    Column("Checkpoint", ".status.checkpoint", priority=1, description="Newest committed checkpoint."),
    MESSAGE,
)
ENDPOINT = (
    Column("URL", ".status.url", description="Where the server answers."),
    Column("Ready", READY + ".status", description="Whether it answers."),
    Column("Version", ".status.version", description="Checkpoint that every pod serves."),
    AGE,
    Column("Role", ".spec.role", priority=1),
    Column("Reason", READY + ".reason", priority=1),
    MESSAGE,
)
NAMES = {
    "GoGRun": Names("gogruns", "gr"),
    **{stage.kind: Names(f"{stage.kind.lower()}s", stage.name) for stage in catalog.STAGES},
    "Endpoint": Names("endpoints", "gep"),
}
