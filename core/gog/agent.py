"""One question, from the first look to the answer.

The loop is a coroutine per episode: the model writes a turn, the turn is parsed, its action is carried out, the
observation is appended. Hundreds of episodes run in one event loop; one that waits for a slow tool delays no other.
A tool that fails does not end an episode: the failure is an observation and a mark on the trajectory.

A `Session` is between text and tokens: it owns the conversation's tokens and returns what it sampled, so this module
depends on no tokenizer and no engine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from gog import actions, languages, observation_fit, prompts, tracing
from gog.dataset import Question
from gog.images import Image
from gog.journal.chains import Found
from gog.journal.records import Kept
from gog.spec import AgentSettings
from gog.tool_actions import SEARCH_TOOLS, Outcome, Shown, ToolActions, Tools
from gog.trajectory import Failure, Observation, Segment, StopReason, Trajectory, Turn

TOO_LONG = "too_long"
"""Kind of failure of a tool whose result does not fit the context, not even truncated."""


@dataclass(frozen=True)
class Generation:
    """A sampled turn."""

    text: str
    """What the model wrote."""
    finished: bool
    """Whether it ended at a closing tag; otherwise a cap cut it off."""
    room: bool = True
    """Of a turn that was cut off: False if the conversation was full, True if the turn reached its own cap."""


class Session(observation_fit.Context, Protocol):
    """One conversation with a policy: the owner of its tokens, of which there are never more than its limit."""

    async def generate(self) -> Generation:
        """Samples the next turn and appends it."""
        ...

    def observe(self, observation: Segment) -> None:
        """Appends an observation that `encode` of this session returned and that is no longer than `room()`."""
        ...

    def segments(self) -> tuple[Segment, ...]:
        """The conversation so far, in order."""
        ...

    def close(self) -> None:
        """Frees what the conversation holds."""
        ...


class Keeper(Protocol):
    """Keeps what an episode has done, so that a later process can continue it."""

    def keep(self, kept: Kept, images: Iterable[Image]) -> None:
        """Takes what was done since the last call, and the images that were shown by it."""
        ...

    async def settled(self) -> None:
        """Waits until the last turn that was taken is durable."""
        ...


class Clock(Protocol):
    def __call__(self) -> float: ...


class Workflow(Protocol):
    """Decides turns that the model does not write: a baseline that searches by rule.

    The model reads what such a turn returned, not the turn itself, so no token of it can be learned.
    """

    def __call__(self, question: Question, turns: Sequence[Turn], style: prompts.Style) -> str | None:
        """The text of the next turn; None once the model writes."""
        ...


@dataclass
class Episode:
    """The state of an episode while it runs."""

    question: Question
    """What is asked."""
    image: Image
    """The image that it is asked about."""
    session: Session
    """The conversation with the policy."""
    toolbox: Tools
    """Calls the tools."""
    settings: AgentSettings
    """Its caps, and how expressions are searched."""
    style: prompts.Style
    """Style of what the model reads."""
    clock: Clock = time.monotonic
    """Seconds from any origin."""
    tools: frozenset[str] = SEARCH_TOOLS
    """Names of the tools that the policy may use; an action that needs another is refused."""
    turns: list[Turn] = field(default_factory=list)
    """The turns so far."""
    images: dict[str, Image] = field(default_factory=dict)
    """Every image that was shown, by content hash."""
    calls: int = 0
    """Tool calls so far."""
    answer_next: str = ""
    """The cap for which the newest observation asks the model to answer next; empty if none is close."""
    keeper: Keeper | None = None
    """Keeps every finished turn; None: they are lost with this process."""
    workflow: Workflow | None = None
    """Writes the first turns in place of the model; None: the model writes all of them."""
    waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while the episode waits for a tool: measures the time."""
    stop: StopReason | None = None
    """Why it ended; None while it runs."""
    seconds: float = 0.0
    """Wall-clock time of earlier processes."""
    kept: int = 0
    """Segments of the conversation that were kept."""

    def __post_init__(self) -> None:
        language = languages.of(self.question.question).code
        self.actions = ToolActions(
            self.image, self.toolbox, self.settings.gaze, self.style, self.tools, self.settings.thumbnails, language
        )
        self._fitter = observation_fit.Fitter(self.session, self.style, turn_reserve(self.settings), language)

    def restore(self, found: Found, images: Mapping[str, Image]) -> None:
        """Continues where an earlier process ended. The session must have been opened with the segments that were found.

        No tool is called again, except for a last turn whose observation was lost.

        Args:
            found: what was kept of the episode.
            images: the images that its observations show or offer, by content hash.
        """
        self.turns, self.answer_next, self.stop = list(found.turns), found.answer_next, found.stop
        self.seconds, self.kept = found.seconds, len(found.segments)
        for turn in self.turns:
            seen = turn.observation
            if seen is None:
                continue
            self.calls += seen.calls if seen.tool else 0
            self.images.update((each, images[each]) for each in seen.images)
            if turn.action == "ground" and seen.tool == "grounding" and not seen.failures:
                self.actions.offer(seen.candidates, [images[each.crop] for each in seen.candidates], images)
            elif seen.images and self.actions.names_results:
                self.actions.show([Shown(images[each], images[each]) for each in seen.images])

    async def run(self) -> Trajectory:
        """Plays the episode to its end. Mistakes of tools and of the model are recorded, not raised."""
        self._started = self.clock() - self.seconds
        self.images[self.image.hash] = self.image
        try:
            while self.stop is None:
                if self.keeper is not None and self.turns:
                    await self.keeper.settled()
                with tracing.span("turn"):
                    await self._turn()
        finally:
            self.session.close()
        last, segments = self.turns[-1], self.session.segments()
        return Trajectory(
            id=self.question.id,
            question_id=self.question.id,
            question=self.question.question,
            answers=self.question.answers,
            image=self.image.hash,
            gaze=self.settings.gaze,
            kind=self.question.evidence.kind,
            region=self.question.evidence.region,
            turns=tuple(self.turns),
            segments=segments,
            generated=sum(len(each.tokens) for each in segments if each.source == "model"),
            stop=self.stop,
            answer=last.argument if self.stop == "answer" else None,
            failures=tuple(f for turn in self.turns if turn.observation for f in turn.observation.failures),
            seconds=round(self.clock() - self._started, 4),
        )

    async def _turn(self) -> None:
        if self.turns and self.turns[-1].observation is None:  # restored: the result of its tool was lost
            action = actions.parse_turn(self.turns[-1].text, reasoning=self.settings.reasoning).action
        else:
            action = await self._write()
            self._keep(())
        if self.stop is None and action is not None:
            await self._act(self.turns[-1], action)

    async def _write(self) -> actions.Action | None:
        """The model's next turn, and what it means: an action to carry out, or why the episode stops."""
        started = self.clock()
        text = self.workflow(self.question, self.turns, self.style) if self.workflow is not None else None
        if text is None:
            with tracing.span("chat"):
                generation = await self.session.generate()
        else:
            generation = Generation(text, finished=True)
        parsed = actions.parse_turn(generation.text, reasoning=self.settings.reasoning)
        action = parsed.action if generation.finished else None
        turn = Turn(
            text=generation.text,
            action=action.name if action else "none",
            argument=action.argument if isinstance(action, actions.Worded) else "",
            within=action.within if isinstance(action, actions.Ground) else 0,
            selected=action.numbers if isinstance(action, actions.Gaze) else (),
            reasoning=parsed.reasoning,
            well_formed=parsed.well_formed and generation.finished,
            error=parsed.error if generation.finished else "cut off before its closing tag",
            seconds=round(self.clock() - started, 4),
        )
        self.turns.append(turn)
        if action is None:
            self.stop = _why_nothing(generation)
        else:
            self.stop = "answer" if isinstance(action, actions.Answer) else self._cap(action)
        return action

    def _keep(self, shown: Iterable[Image]) -> None:
        """Keeps the last turn as it is now. shown: the images of its observation."""
        if self.keeper is None:
            return
        segments = self.session.segments()
        kept = Kept(
            number=len(self.turns) - 1,
            turn=self.turns[-1],
            segments=segments[self.kept :],
            answer_next=self.answer_next,
            stop=self.stop,
            seconds=round(self.clock() - self._started, 4),
        )
        self.kept = len(segments)
        self.keeper.keep(kept, shown)

    def _cap(self, action: actions.Action) -> StopReason | None:
        """The cap that forbids this search. The note of the last observation announced it."""
        if len(self.turns) >= self.settings.max_turns:
            return "max_turns"
        if self.calls + self.actions.cost(action) > self.settings.max_calls:
            return "max_calls"
        return "max_tokens" if self.answer_next == "max_tokens" else None

    async def _act(self, turn: Turn, action: actions.Action) -> None:
        """Carries out the action and appends its observation. Stops the episode if no part of that fits."""
        action, limit = action.clipped() if isinstance(action, actions.Worded) else (action, 0)
        with self.waiting():
            outcome = await self.actions.run(action)
        if outcome.observation.tool:
            self.calls += outcome.observation.calls
        fitted = await self._fitter.fit(outcome.observation, outcome.images, self._notice(limit))
        self.turns[-1] = _with_outcome(turn, outcome, fitted)
        if fitted is None:
            self.stop = "max_tokens"
        else:
            self.session.observe(fitted.segment)
            if outcome.observation.candidates or (outcome.images and self.actions.names_results):
                self.actions.show_only(len(fitted.images))
            self.images.update((image.hash, image) for image in fitted.images)
            self.answer_next = fitted.notice.answer_next
        self._keep(fitted.images if fitted else ())

    def _notice(self, argument_limit: int) -> prompts.Notice:
        """What the next observation must announce, apart from what depends on its length."""
        notice = prompts.Notice(argument_limit=argument_limit)
        left, most = self.settings.max_calls - self.calls, self.actions.highest_cost()
        if left <= 0 < most:
            return dataclasses.replace(notice, answer_next="max_calls")
        if len(self.turns) + 1 >= self.settings.max_turns:
            return dataclasses.replace(notice, answer_next="max_turns")
        return dataclasses.replace(notice, calls_left=left if left < most else 0)


def turn_reserve(settings: AgentSettings) -> int:
    """Tokens kept free for a turn after an observation: a whole turn, but at most a quarter of the context."""
    return min(settings.max_turn_tokens, settings.max_tokens // 4)


def _with_outcome(turn: Turn, outcome: Outcome, fitted: observation_fit.Fitted | None) -> Turn:
    observation = fitted.observation if fitted else _unfit(outcome.observation)
    update: dict[str, object] = {"observation": observation, "selected": outcome.selected or turn.selected}
    if outcome.error:
        update |= {"well_formed": False, "error": outcome.error}
    return turn.model_copy(update=update)


def _unfit(observation: Observation) -> Observation:
    """What is recorded of an observation that was never shown. If a tool made it, that tool failed."""
    failed = (Failure(tool=observation.tool, kind=TOO_LONG, message="no part of the result fits the context"),)
    failures = observation.failures + (failed if observation.tool else ())
    return observation.model_copy(update={"text": "", "images": (), "candidates": (), "failures": failures})


def _why_nothing(generation: Generation) -> StopReason:
    if generation.finished:
        return "format"
    return "max_turn_tokens" if generation.room else "max_tokens"
