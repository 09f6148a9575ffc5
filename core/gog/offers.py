"""What a run offers to an agent: the records of a publication, and the names of versions on servers. Pure.

`gog.publication` makes it; the control plane, which uses no store, plans it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gog.spec import GateSpec


def name_of(ref: str) -> str:
    """The name of a checkpoint on a server: `grpo/120` -> `grpo-120`."""
    return ref.replace("/", "-")


@dataclass(frozen=True)
class Asked:
    """What is to be published."""

    agent: str
    """Name of the agent, and key of its versions in its store."""
    run: str
    """The run, by name and uid, as the version's source names it."""
    checkpoint: str
    """The trained checkpoint: `grpo/60`."""
    policy: str
    """Its name in the evaluation's answers."""
    evaluation: str
    """The evaluation's checkpoint."""
    served: str = ""
    """Version that is served now; empty for none."""
    gate: GateSpec = field(default_factory=GateSpec)
    """What its evaluation must show."""


@dataclass(frozen=True)
class Published:
    """What came of it."""

    version: str
    """The version; empty where the gate is closed."""
    sentence: str
    """Why, with the figures."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Caps of an episode in the evaluation, where they are not the default."""
    tools: dict[str, Any] = field(default_factory=dict)
    """How tools were called in the evaluation, where that is not the default."""

    def document(self) -> dict[str, Any]:
        """For the result of a job."""
        return asdict(self)
