"""Settings of the profiler."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gog.spec.base import Spec


class ProfileSettings(Spec):
    """Which steps are traced."""

    steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1,
        max_length=8,
        description="Steps, counted from 1, of which each process writes traces into the store, for ui.perfetto.dev; those "
        "that the stage does not reach are ignored.",
    )
    seconds: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Seconds at the beginning of the step's rollouts, and of its update, in which every operation is "
        "recorded. What episodes and trainer do is recorded for the whole step [ours].",
    )
