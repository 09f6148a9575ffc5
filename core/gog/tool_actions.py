"""Carry out the actions of one episode with its tools: an action in, an observation out.

A tool that fails yields an observation and a failure on the record, never an exception. An action that needs a tool
outside the allowed set is refused here, whatever the prompt or the tokenizer let the model write. Caps, tokens and the
conversation belong to `gog.agent`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gog import actions, catalog, prompts, tool_api, tool_types
from gog.images import Image
from gog.trajectory import Candidate, Observation, Result

SEARCH_TOOLS = catalog.SEARCH_TOOLS


class Tools(Protocol):
    """The tools of an episode. A failing tool never raises; its reply holds the failure."""

    async def ground(self, image: Image, expression: str) -> tool_types.Reply[tool_types.Grounding]:
        """Candidates for an expression in an image."""
        ...

    async def search_image(self, image: Image) -> tool_types.Reply[Sequence[tool_api.SearchHit]]:
        """Pages that show an image, best first."""
        ...

    async def search_text(self, query: str) -> tool_types.Reply[Sequence[tool_api.SearchHit]]:
        """Pages about a query, best first."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What an action came to."""

    observation: Observation
    """Its result, as long as the tools made it."""
    images: tuple[Image, ...] = ()
    """The images that the observation shows, in order."""
    error: str = ""
    """The model's mistake, if it made one: an action that is not allowed, a candidate that was never offered."""
    selected: tuple[int, ...] = ()
    """Number of the candidate that the arm selected for the model; empty if it selected none."""


@dataclass
class ToolActions:
    """The tools of one episode, and the candidates that its model may select."""

    image: Image
    """The image of the question."""
    toolbox: Tools
    """Calls the tools."""
    gaze: Literal["select", "direct", "off"]
    """How an expression is searched."""
    style: prompts.Style
    """Style of the observations."""
    tools: frozenset[str] = SEARCH_TOOLS
    """Names of the tools that may be called; empty: the model answers from what it sees and knows."""
    offered: tool_types.Grounding = field(default_factory=tool_types.Grounding)
    """The newest candidates that the model was shown."""

    def cost(self, action: actions.Action) -> int:
        """Tool calls that an action makes at most."""
        if not self._allowed(action):
            return 0
        return len(action.numbers) if isinstance(action, actions.Gaze) else len(self._needs(action))

    def highest_cost(self) -> int:
        """Tool calls that the next action makes at most, whichever it is."""
        selection = actions.Gaze(tuple(range(1, min(len(self.offered.candidates), actions.MAX_SELECTED) + 1)))
        worded = (kind("") for kind in actions.KINDS if issubclass(kind, actions.Worded) and kind is not actions.Answer)
        return max(map(self.cost, (actions.Glance(), selection, *worded)))

    def offer(self, candidates: Sequence[Candidate], crops: Sequence[Image]) -> None:
        """Offers these candidates with their crops, as the grounding of an earlier process did."""
        self.offered = tool_types.Grounding(tuple(candidates), tuple(crops))

    def offer_only(self, count: int) -> None:
        """Withdraws all but the first `count` candidates: the others were not shown."""
        self.offered = tool_types.Grounding(self.offered.candidates[:count], self.offered.crops[:count])

    async def run(self, action: actions.Action) -> Outcome:
        """The outcome of a search; refuses one that is not allowed. An answer is no search."""
        if not self._allowed(action):
            needs = " and ".join(sorted(self._needs(action) - self.tools))
            return Outcome(Observation(text=prompts.NOT_ALLOWED[self.style]), error=f"{needs} may not be used")
        match action:
            case actions.Glance():
                return Outcome(await self._search_images([(None, self.image)]))
            case actions.Ground(expression):
                return await self._ground(expression)
            case actions.Gaze(numbers):
                return await self._gaze(numbers)
            case actions.TextSearch(query):
                return await self._search_text(query)
        raise AssertionError(action)

    def _needs(self, action: actions.Action) -> frozenset[str]:
        """Names of the tools that an action calls."""
        match action:
            case actions.TextSearch():
                return frozenset({"textSearch"})
            case actions.Ground():
                by_mode = {"select": {"grounding"}, "direct": {"grounding", "imageSearch"}, "off": {"imageSearch"}}
                return frozenset(by_mode[self.gaze])
        return frozenset({"imageSearch"})

    def _allowed(self, action: actions.Action) -> bool:
        return self._needs(action) <= self.tools

    async def _ground(self, expression: str) -> Outcome:
        if self.gaze == "off":
            return Outcome(await self._search_images([(None, self.image)]))
        reply = await self.toolbox.ground(self.image, expression)
        if reply.failure:
            return Outcome(self._failed("grounding", reply))
        found = reply.unwrap()
        if self.gaze == "direct" and found.candidates:
            return await self._search_unseen(reply)
        self.offered = found
        text = prompts.candidates(found.candidates, style=self.style)
        hashes = tuple(crop.hash for crop in found.crops)
        return Outcome(_seen("grounding", reply, text, candidates=found.candidates, images=hashes), found.crops)

    async def _search_unseen(self, grounding: tool_types.Reply[tool_types.Grounding]) -> Outcome:
        """Searches the best candidate at once; none is offered, so none can be selected later."""
        observation = await self._search_images([(1, grounding.unwrap().crops[0])])
        both = {
            "calls": 2,
            "attempts": grounding.attempts + observation.attempts,
            "seconds": round(grounding.seconds + observation.seconds, 4),
            "cached": grounding.cached and observation.cached,
            "decisions": tuple(dict.fromkeys((*grounding.decisions, *observation.decisions))),
            "waited": round(grounding.waited + observation.waited, 4),
            "usd": grounding.usd + observation.usd,
        }
        return Outcome(observation.model_copy(update=both), selected=(1,))

    async def _gaze(self, numbers: Sequence[int]) -> Outcome:
        """Searches the selected candidates and no other; a number that was never offered is the model's mistake."""
        if not all(1 <= number <= len(self.offered.candidates) for number in numbers):
            text = prompts.NO_SUCH_CANDIDATE[self.style]
            return Outcome(Observation(text=text), error="a candidate that was never offered")
        chosen = [(number, self.offered.crops[number - 1]) for number in numbers]
        return Outcome(await self._search_images(chosen))

    async def _search_images(self, chosen: Sequence[tuple[int | None, Image]]) -> Observation:
        """Searches these images at the same time; the results are in the order of `chosen`."""
        replies = await asyncio.gather(*(self.toolbox.search_image(image) for _, image in chosen))
        texts, results, failures = [], [], []
        for (number, _), reply in zip(chosen, replies, strict=True):
            if failure := reply.failure_record:
                failures.append(failure)
                texts.append(prompts.TOOL_FAILED[self.style])
                continue
            hits = reply.unwrap()
            results += [_result(hit) for hit in hits]
            texts.append(prompts.image_results([hit.title for hit in hits], style=self.style, candidate=number))
        return Observation(
            text="\n".join(texts),
            tool="imageSearch",
            results=tuple(results),
            failures=tuple(failures),
            calls=len(chosen),
            seconds=round(max(reply.seconds for reply in replies), 4),
            attempts=sum(reply.attempts for reply in replies),
            cached=all(reply.cached for reply in replies),
            decisions=tuple(dict.fromkeys(each for reply in replies for each in reply.decisions)),
            waited=round(max(reply.waited for reply in replies), 4),
            usd=sum(reply.usd for reply in replies),
        )

    async def _search_text(self, query: str) -> Outcome:
        reply = await self.toolbox.search_text(query)
        if reply.failure:
            return Outcome(self._failed("textSearch", reply))
        hits = reply.unwrap()
        text = prompts.text_results([(hit.title, hit.text) for hit in hits], style=self.style)
        return Outcome(_seen("textSearch", reply, text, results=tuple(_result(hit) for hit in hits)))

    def _failed(self, tool: str, reply: tool_types.Reply) -> Observation:
        return _seen(tool, reply, prompts.TOOL_FAILED[self.style], failures=(reply.failure_record,))


def _seen(tool: str, reply: tool_types.Reply, text: str, **fields: object) -> Observation:
    return Observation(
        text=text,
        tool=tool,
        seconds=round(reply.seconds, 4),
        attempts=reply.attempts,
        cached=reply.cached,
        decisions=reply.decisions,
        waited=round(reply.waited, 4),
        usd=reply.usd,
        **fields,
    )


def _result(hit: tool_api.SearchHit) -> Result:
    return Result(title=hit.title[:200], url=hit.url[:500], text=hit.text[:2000])
