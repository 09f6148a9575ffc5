"""Which version of the policy answers a chat, and what each version did with its chats.

The control plane decides and writes a file; the agent follows it. A file names the policy's server, the tools, the version
that is served and, while a new one is tried, that one and its share of the chats. The file is read again whenever it has
changed, so no restart is needed to promote a version or to roll it back. A file that cannot be read changes nothing. Counts
begin anew with each pair of versions; a restart loses them, and the canary then waits for more chats.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gog import metrics, validation
from gog.canary_rule import Chats
from gog.errors import UserError
from gog.trajectory import Trajectory

Arm = Literal["served", "canary"]


class Routes(BaseModel):
    """Where chats go."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    policy: str
    """Base URL of the policy's server."""
    tools: dict[str, str] = {}
    """Base URL of each tool, by its name."""
    served: str = ""
    """Name of the version that is served; empty for the server's default."""
    canary: str = ""
    """Name of the version that is tried; empty for none."""
    share: float = Field(0.0, ge=0, le=1)
    """Share of the chats that the canary answers."""

    @model_validator(mode="after")
    def _two_versions_differ(self) -> Routes:
        if self.canary and self.canary == self.served:
            raise ValueError("canary is the version that is served")
        return self

    def choose(self, chance: float) -> Arm:
        """The version that answers a chat. chance: a number from 0 up to, not including, 1."""
        return "canary" if self.canary and chance < self.share else "served"

    def version(self, arm: Arm) -> str:
        """Name of a version."""
        return self.canary if arm == "canary" else self.served


class RoutesFile:
    """Routes that a file holds, as of its last change."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a file that cannot be read, because there is nothing to serve then."""
        self.path = path
        self._stamp = self._seen()
        self._routes = read(path)

    def current(self) -> Routes:
        """The newest routes that could be read."""
        if (stamp := self._seen()) != self._stamp:
            self._stamp = stamp
            try:
                self._routes = read(self.path)
            except UserError as error:
                logging.getLogger(__name__).warning("%s", error.sentence())
        return self._routes

    def _seen(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self.path)
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read(path: Path) -> Routes:
    """The routes in a file. Raises UserError."""
    try:
        return Routes.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=f"--routes {path}") from None
    except ValidationError as error:
        raise UserError(validation.first_sentence(error), where=f"--routes {path}") from None


@dataclass
class Tally:
    """What each version did with its chats since its counts began."""

    routes: Routes
    """The routes whose chats are counted."""
    counts: dict[Arm, Chats] = field(default_factory=lambda: {"served": Chats(), "canary": Chats()})
    """Chats by arm."""

    def follow(self, routes: Routes) -> None:
        """Begins anew where other versions are compared than before."""
        if (routes.served, routes.canary) != (self.routes.served, self.routes.canary):
            self.counts = {"served": Chats(), "canary": Chats()}
        self.routes = routes

    def failed(self, arm: Arm, version: str) -> None:
        """Counts a chat that ended with an error. version: the one that played it."""
        metrics.record_chat(arm, "failed", None)
        self._add(arm, version, Chats(chats=1, failed=1))

    def ended(self, arm: Arm, version: str, trajectory: Trajectory, seconds: float) -> None:
        """Counts a chat that was played to its end."""
        malformed = is_malformed(trajectory)
        metrics.record_chat(arm, "malformed" if malformed else "answered", seconds)
        took = math.log(max(seconds, 1e-3))
        self._add(arm, version, Chats(1, 0, int(malformed), took, took * took))

    def _add(self, arm: Arm, version: str, one: Chats) -> None:
        if version == self.routes.version(arm):  # a chat may end after its version was replaced
            both = (self.counts[arm], one)
            self.counts[arm] = Chats(*(sum(getattr(each, name) for each in both) for name in one.__dataclass_fields__))

    def document(self) -> dict[str, Any]:
        """For the control plane, as a progress document: whose chats are counted, and the counts."""
        versions = {arm: vars(counted) for arm, counted in self.counts.items()}
        about = {"served": self.routes.served, "canary": self.routes.canary}
        return {"step": self.counts["canary"].chats, "total": 0, "metrics": {**about, "chats": versions}}


def is_malformed(trajectory: Trajectory) -> bool:
    """Whether a turn of an episode broke the format, or it ended without an answer."""
    return trajectory.answer is None or any(turn.action == "none" for turn in trajectory.turns)
