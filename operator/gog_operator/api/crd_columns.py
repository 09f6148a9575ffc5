"""The columns of `kubectl get` for each kind, and the plural and short names of the kinds.

A column reads one field of the status (`status.summary` is text for this purpose), or the Ready condition by its type. A
stage's short name is the stage: `kubectl get grpo`. All kinds are in the category gog.
"""

from __future__ import annotations

from dataclasses import dataclass

from gog import catalog

READY = '.status.conditions[?(@.type=="Ready")]'


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    """Its heading."""
    path: str
    """JSONPath of its value."""
    type: str = "string"
    """OpenAPI type of its value."""
    priority: int = 0
    """1 for a column of `-o wide` only."""
    description: str = ""
    """What it shows."""

    def body(self) -> dict[str, object]:
        """As an item of `additionalPrinterColumns`."""
        made: dict[str, object] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        made |= {"description": self.description} if self.description else {}
        return made | ({"priority": self.priority} if self.priority else {})


@dataclass(frozen=True)
class Names:
    """Names of a kind."""

    plural: str
    """Plural, in URLs and for `kubectl`."""
    short: str
    """Short name for `kubectl`."""


AGE = Column("Age", ".metadata.creationTimestamp", "date")
MESSAGE = Column("Message", READY + ".message", priority=1, description="Message of the Ready condition.")
RUN = (
    Column("Stage", ".status.summary.stage", description="Current stage."),
    Column("Progress", ".status.summary.progress", description="Completed steps of all."),
    Column("Reward", ".status.summary.reward", description="Mean reward of the last steps."),
    Column("Tool-Fail", ".status.summary.toolFailures", description="Fraction of tool calls that failed."),
    Column("Ready", READY + ".reason", description="Reason of the Ready condition."),
    AGE,
    Column("Store", ".spec.store.uri", priority=1),
    MESSAGE,
)
STAGE = (
    Column("Attempt", ".status.attempt", "integer", description="Number of the newest attempt."),
    Column("Progress", ".status.summary.progress", description="Completed steps of all."),
    Column("Reason", READY + ".reason", description="Reason of the Ready condition."),
    AGE,
    Column("Checkpoint", ".status.checkpoint", priority=1, description="Newest committed checkpoint."),
    MESSAGE,
)
TOOL_SERVER = (
    Column("URL", ".status.url", description="Base URL of the server."),
    Column("Ready", READY + ".status", description="Whether the server is ready."),
    Column("Version", ".status.version", description="Checkpoint that every pod serves."),
    AGE,
    Column("Role", ".spec.role", priority=1),
    Column("Reason", READY + ".reason", priority=1),
    MESSAGE,
)
PRESET = (Column("Summary", ".spec.summary", description="What the preset is for."), AGE)
NAMES = {
    "GoGRun": Names("gogruns", "gr"),
    **{stage.kind: Names(f"{stage.kind.lower()}s", stage.name) for stage in catalog.STAGES},
    "GoGRuntime": Names("gogruntimes", "grt"),
    "ToolServer": Names("toolservers", "gts"),
}
