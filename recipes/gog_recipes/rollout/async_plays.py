"""Asynchronous rollouts: the plays of the next steps go on while a step is learned.

A step's questions and noise follow from the seed and the step's number, so all ranks know which groups form a step. The
play of a step begins as soon as the weights are at most `bound` optimizer steps older than those that will learn from it;
its turns are sampled from the newest weights at their time. So

    - no group is older than the bound, and none is dropped for it: a slow group delays its own step, while later steps are
      played, and a step never consists of the groups that happened to be fast, which would favour short episodes
    - with a bound of 0 a play begins and ends between two updates, which is the synchronous loop

Plays are begun and finished by the task that trains, in the order of their steps, because all ranks take part in both.
What a killed process leaves of a play is in its journal, which is named without the weights: it spans several versions. Each
turn names the weights that sampled it. The next attempt's updates may differ, as where a verdict was lost and is asked for
again; a turn of other weights than this attempt has under its version is learned as one of older weights.

An engine in this process shares its device with the update. They alternate: after a pass the engine computes for as long as
the pass did, if turns wait. Tools are called by a thread of their own, so those calls always overlap.

An episode takes several turns of the event loop from one request to the next: the answer arrives, a worker thread prepares
its images, the next request is built. A pass blocks the loop, so the loop runs after each for FOLLOW_UP of its time even if
no turn waits in this process. With one turn of the loop per pass, an episode would send a request every few passes only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar, cast

from gog.engine import Engine
from gog_recipes.rollout.ongoing import Ongoing
from gog_recipes.runtime.interruption import Interrupted
from gog_recipes.runtime.stage import Stage
from gog_recipes.runtime.timers import StepTimer

Result = TypeVar("Result")
FOLLOW_UP = 0.02
"""Share of a pass for which the event loop runs after it, at least."""
TICK = 0.001
"""Seconds between two looks at an engine for which no turn waits."""


class AsyncPlays:
    """The plays that have begun, by step.

    Args:
        begin: begins the play of a step, counted from 0; all ranks at once
        steps: of the stage
        bound: `async.maxStaleness`; 0 begins no play before its own step
    """

    def __init__(self, begin: Callable[[int], Awaitable[Ongoing]], steps: int, bound: int) -> None:
        self._begin, self.steps, self.bound = begin, steps, bound
        self._begun: dict[int, Ongoing] = {}

    async def fill(self, version: int, stage: Stage) -> None:
        """Begins the plays that weights of this version may sample. All ranks at once.

        Raises:
            Interrupted: a rank was asked to end. Steps that are played already would delay the end.
        """
        if stage.is_interrupted():
            raise Interrupted
        for step in range(version, min(version + self.bound + 1, self.steps)):
            if step not in self._begun:
                self._begun[step] = await self._begin(step)

    def take(self, step: int) -> Ongoing | None:
        """The play of a step, once; None if it has not begun or was taken."""
        return self._begun.pop(step, None)


async def yield_to(engine: Engine, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Lets the event loop run for so long at most, while turns of the engine wait for this process; else for FOLLOW_UP."""
    await asyncio.sleep(0)
    begun = clock()
    while clock() < begun + seconds:
        if engine.busy:
            await asyncio.sleep(0)
        elif clock() < begun + FOLLOW_UP * seconds:
            await asyncio.sleep(TICK)
        else:
            return


async def interleaved(
    parts: Generator[bool, None, Result],
    engine: Engine,
    timer: StepTimer,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """The result of an update that is made in parts (`Learner.updating`), between which the engine computes.

    Args:
        parts: of the update
        engine: that may share the device
        timer: of the step, in which the trainer waits between parts
        clock: seconds; only differences matter
    """
    while True:
        begun = clock()
        try:
            weights_change = next(parts)
        except StopIteration as ended:
            return cast(Result, ended.value)
        with timer.waiting():
            await (engine.hold() if weights_change else yield_to(engine, clock() - begun, clock))
