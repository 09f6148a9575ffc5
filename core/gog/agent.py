"""One question, from the first look to the answer.

The loop is a coroutine per episode: the policy writes a turn, the turn is read, its action runs, the observation goes
back. Hundreds run at once in one event loop; an episode that waits for a slow tool keeps nobody waiting. Nothing a
tool does can raise into an episode: a failed tool is an observation, and a mark on the trajectory.

A session stands between text and tokens (`Session`): it owns the conversation's tokens and gives back what it
sampled, so that this file knows neither tokenizers nor engines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gog import actions, prompts, tool_api, tool_types, tracing
from gog.dataset import Question
from gog.images import Image
from gog.spec import AgentSettings
from gog.trajectory import Candidate, Failure, Observation, Result, Segment, StopReason, Trajectory, Turn


@dataclass(frozen=True)
class Generation:
    """A sampled turn. finished: it ended at a closing tag; otherwise a cap cut it off, and `room` says which."""

    text: str
    finished: bool
    room: bool = True


class Session(Protocol):
    """One conversation with a policy."""

    async def generate(self) -> Generation:
        """The next turn."""
        ...

    def observe(self, body: str, images: Sequence[Image]) -> bool:
        """Appends an observation; False when it leaves no room for another turn."""
        ...

    def segments(self) -> tuple[Segment, ...]: ...

    def close(self) -> None: ...


@dataclass
class Episode:
    """The state of an episode while it runs."""

    question: Question
    image: Image
    session: Session
    toolbox: tool_types.Tools
    settings: AgentSettings
    style: prompts.Style
    clock: Clock = time.monotonic
    turns: list[Turn] = field(default_factory=list)
    candidates: Sequence[tool_types.Candidate] = ()
    images: dict[str, Image] = field(default_factory=dict)
    calls: int = 0

    async def run(self) -> Trajectory:
        """Plays the episode to its end. Never raises for a tool's or the model's sake."""
        started, stop = self.clock(), None
        self.images[self.image.hash] = self.image
        try:
            while stop is None:
                with tracing.span("turn"):
                    stop = await self._turn()
        finally:
            self.session.close()
        last = self.turns[-1]
        return Trajectory(
            id=self.question.id,
            question_id=self.question.id,
            question=self.question.question,
            answers=self.question.answers,
            image=self.image.hash,
            kind=self.question.evidence.kind,
            region=self.question.evidence.region,
            turns=tuple(self.turns),
            segments=self.session.segments(),
            stop=stop,
            answer=last.argument if stop == "answer" else None,
            failures=tuple(f for turn in self.turns if turn.observation for f in turn.observation.failures),
            seconds=round(self.clock() - started, 4),
        )

    async def _turn(self) -> StopReason | None:
        started = self.clock()
        with tracing.span("chat"):
            generation = await self.session.generate()
        parsed = actions.parse_turn(generation.text, reasoning=self.settings.reasoning)
        action = parsed.action if generation.finished else None
        turn = Turn(
            text=generation.text,
            action=action.name if action else "none",
            argument=_argument(action),
            selected=action.numbers if isinstance(action, actions.Gaze) else (),
            reasoning=parsed.reasoning,
            well_formed=parsed.well_formed and generation.finished,
            error=parsed.error if generation.finished else "cut off before its closing tag",
            seconds=round(self.clock() - started, 4),
        )
        self.turns.append(turn)
        if action is None:
            return _why_nothing(generation)
        if isinstance(action, actions.Answer):
            return "answer"
        return await self._act(turn, action)

    async def _act(self, turn: Turn, action: actions.Action) -> StopReason | None:
        """Runs the action and shows its result; the reason to stop if a cap is reached."""
        if len(self.turns) >= self.settings.max_turns:
            return "max_turns"
        if self.calls + self._cost(action) > self.settings.max_calls:
            return "max_calls"
        if isinstance(action, actions.Gaze) and not self._offered(action.numbers):
            turn = turn.model_copy(update={"well_formed": False, "error": "a candidate that was never offered"})
        observation, images = await self._observe(action)
        self.turns[-1] = turn.model_copy(update={"observation": observation})
        self.images.update((image.hash, image) for image in images)
        return None if self.session.observe(observation.text, images) else "max_tokens"

    def _cost(self, action: actions.Action) -> int:
        """Tool calls that an action makes at most."""
        if isinstance(action, actions.Gaze):
            return len(action.numbers)
        return 2 if isinstance(action, actions.Ground) and self.settings.gaze == "direct" else 1

    def _offered(self, numbers: Sequence[int]) -> bool:
        return all(1 <= number <= len(self.candidates) for number in numbers)

    async def _observe(self, action: actions.Action) -> tuple[Observation, Sequence[Image]]:
        match action:
            case actions.Glance():
                return await self._search_images([(None, self.image)])
            case actions.Ground(expression):
                return await self._ground(expression)
            case actions.Gaze(numbers):
                return await self._gaze(numbers)
            case actions.TextSearch(query):
                return await self._search_text(query)
        raise AssertionError(action)

    async def _ground(self, expression: str) -> tuple[Observation, Sequence[Image]]:
        if self.settings.gaze == "off":
            return await self._search_images([(None, self.image)])
        self.calls += 1
        reply = await self.toolbox.ground(self.image, expression)
        if reply.failure:
            return self._failed("grounding", reply), ()
        found = reply.unwrap()
        if self.settings.gaze == "direct" and found:
            return await self._search_unseen(reply, found[0])
        self.candidates = found
        shown = [prompts.CandidateText(n, c.box, c.score) for n, c in enumerate(self.candidates, 1)]
        record = tuple(
            Candidate(number=n, box=c.box, score=round(c.score, 4), label=c.label, crop=c.crop.hash)
            for n, c in enumerate(self.candidates, 1)
        )
        crops = [candidate.crop for candidate in self.candidates]
        text = prompts.candidates(shown, style=self.style)
        return self._seen("grounding", reply, text, candidates=record, images=tuple(crop.hash for crop in crops)), crops

    async def _search_unseen(
        self, grounding: tool_types.Reply, best: tool_types.Candidate
    ) -> tuple[Observation, Sequence[Image]]:
        """Searches the best candidate at once; none is offered, so none can be chosen later."""
        observation, images = await self._search_images([(1, best.crop)])
        both = {
            "calls": 2,
            "attempts": grounding.attempts + observation.attempts,
            "seconds": round(grounding.seconds + observation.seconds, 4),
            "cached": grounding.cached and observation.cached,
        }
        return observation.model_copy(update=both), images

    async def _gaze(self, numbers: Sequence[int]) -> tuple[Observation, Sequence[Image]]:
        """Searches the candidates chosen, and no other; a number that was never offered is the model's mistake."""
        if not self._offered(numbers):
            return Observation(text=prompts.NO_SUCH_CANDIDATE[self.style]), ()
        return await self._search_images([(number, self.candidates[number - 1].crop) for number in numbers])

    async def _search_images(self, chosen: Sequence[tuple[int | None, Image]]) -> tuple[Observation, Sequence[Image]]:
        texts, results, failures, seconds, attempts, cached = [], [], [], 0.0, 0, True
        for number, image in chosen:
            self.calls += 1
            reply = await self.toolbox.search_image(image)
            seconds, attempts, cached = seconds + reply.seconds, attempts + reply.attempts, cached and reply.cached
            if reply.failure:
                failures.append(_failure(reply.failure))
                texts.append(prompts.TOOL_FAILED[self.style])
                continue
            hits = reply.unwrap()
            results += [_result(hit) for hit in hits]
            texts.append(prompts.image_results([hit.title for hit in hits], style=self.style, candidate=number))
        observation = Observation(
            text="\n".join(texts),
            tool="imageSearch",
            results=tuple(results),
            failures=tuple(failures),
            calls=len(chosen),
            seconds=round(seconds, 4),
            attempts=attempts,
            cached=cached,
        )
        return observation, ()

    async def _search_text(self, query: str) -> tuple[Observation, Sequence[Image]]:
        self.calls += 1
        reply = await self.toolbox.search_text(query)
        if reply.failure:
            return self._failed("textSearch", reply), ()
        hits = reply.unwrap()
        text = prompts.text_results([(hit.title, hit.text) for hit in hits], style=self.style)
        return self._seen("textSearch", reply, text, results=tuple(_result(hit) for hit in hits)), ()

    def _failed(self, tool: str, reply: tool_types.Reply) -> Observation:
        assert reply.failure is not None
        return self._seen(tool, reply, prompts.TOOL_FAILED[self.style], failures=(_failure(reply.failure),))

    def _seen(self, tool: str, reply: tool_types.Reply, text: str, **fields: object) -> Observation:
        return Observation(
            text=text,
            tool=tool,
            seconds=round(reply.seconds, 4),
            attempts=reply.attempts,
            cached=reply.cached,
            **fields,
        )


class Clock(Protocol):
    def __call__(self) -> float: ...


def _argument(action: actions.Action | None) -> str:
    match action:
        case actions.Answer(text):
            return text
        case actions.Ground(expression):
            return expression
        case actions.TextSearch(query):
            return query
    return ""


def _why_nothing(generation: Generation) -> StopReason:
    if generation.finished:
        return "format"
    return "max_turn_tokens" if generation.room else "max_tokens"


def _failure(failure: tool_types.ToolFailure) -> Failure:
    return Failure(tool=failure.tool, kind=failure.kind, message=failure.message[:200])


def _result(hit: tool_api.SearchHit) -> Result:
    return Result(title=hit.title[:200], url=hit.url[:500], text=hit.text[:2000])
