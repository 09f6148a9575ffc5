"""What a plan may request of agents (gog_operator.plan.actions)."""

from __future__ import annotations

from dataclasses import dataclass

from gog import offers
from gog import spec as settings


@dataclass(frozen=True)
class Publish:
    """Publishes a run's policy as a version of its agent, if its evaluation passes the gate."""

    asked: offers.Asked
    """What is published."""
    store: settings.StoreSpec
    """The agent's store."""


@dataclass(frozen=True)
class SetRoutes:
    """Writes where an agent's chats go."""

    routes: str
    """The document."""
