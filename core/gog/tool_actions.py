"""Carry out the actions of one episode with its tools: an action in, an observation out.

A tool that fails yields an observation and a failure on the record, never an exception. An action that needs a tool
outside the allowed set is refused here, whatever the prompt or the tokenizer let the model write. Caps, tokens and the
conversation belong to `gog.agent`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gog import actions, catalog, languages, prompts, regions, thumbnails, tool_api, tool_types
from gog.images import Image
from gog.spec import ThumbnailSettings
from gog.thumbnails import Decoded
from gog.trajectory import Candidate, Observation, Result

SEARCH_TOOLS = catalog.SEARCH_TOOLS


class Tools(Protocol):
    """The tools of an episode. A failing tool never raises; its reply holds the failure."""

    async def ground(
        self, image: Image, expression: str, region: regions.Box | None = None
    ) -> tool_types.Reply[tool_types.Grounding]:
        """Candidates for an expression in an image, or in a region of it; their boxes are in pixels of the image."""
        ...

    async def search_image(self, image: Image) -> tool_types.Reply[Sequence[tool_api.SearchHit]]:
        """Pages that show an image, best first."""
        ...

    async def search_text(self, query: str) -> tool_types.Reply[Sequence[tool_api.SearchHit]]:
        """Pages about a query, best first."""
        ...

    async def read_text(self, image: Image) -> tool_types.Reply[Sequence[str]]:
        """The lines of text in an image, in reading order."""
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


@dataclass(frozen=True)
class Shown:
    """An image that the model was shown and can name by its number."""

    image: Image
    """What is searched when it is selected: the crop of a candidate, or an image that a search returned."""
    source: Image
    """The image that it is a part of: the question's, or itself for one that a search returned."""
    box: regions.Box | None = None
    """Its place in the source, in pixels; None: all of it."""


@dataclass
class ToolActions:
    """The tools of one episode, and the images that its model may name.

    Candidates and images that searches return are numbered from 1 in the order in which they are shown, and keep their
    numbers, so that the model can return to an earlier one after a wrong gaze, and look for a detail inside any of them.
    The tiny model has words for few numbers: in its style each offer begins at 1 and replaces the one before.
    """

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
    thumbnails: ThumbnailSettings = field(default_factory=ThumbnailSettings)
    """Which thumbnails of search results the model is shown."""
    language: str = languages.DEFAULT
    """Of the words around what the tools return."""
    shown: dict[int, Shown] = field(default_factory=dict)
    """The images that the model may name, by number."""
    _newest: int = 1
    """Number of the first image of the newest observation that showed any."""

    def cost(self, action: actions.Action) -> int:
        """Tool calls that an action makes at most."""
        if not self._allowed(action):
            return 0
        return len(action.numbers) if isinstance(action, actions.Gaze) else len(self._needs(action))

    def highest_cost(self) -> int:
        """Tool calls that the next action makes at most, whichever it is."""
        selection = actions.Gaze(tuple(range(1, min(len(self.shown), actions.MAX_SELECTED) + 1)))
        worded = (kind("") for kind in actions.KINDS if issubclass(kind, actions.Worded) and kind is not actions.Answer)
        return max(map(self.cost, (actions.Glance(), selection, actions.ReadText(), *worded)))

    @property
    def names_results(self) -> bool:
        """Whether images that searches return get numbers: where the model selects, and has words for many numbers."""
        return self.gaze == "select" and self.style == "full"

    def next_number(self) -> int:
        """The number of the image that is shown next."""
        return 1 if self.style == "terse" else len(self.shown) + 1

    def show(self, images: Sequence[Shown]) -> None:
        """Numbers images that an observation shows, in their order, from `next_number` on."""
        self._newest = self.next_number()
        if self._newest == 1:
            self.shown.clear()
        self.shown.update(enumerate(images, self._newest))

    def show_only(self, count: int) -> None:
        """Takes back all but the first `count` images of the newest observation: the others had no room."""
        self.shown = {number: each for number, each in self.shown.items() if number < self._newest + count}

    def offer(self, candidates: Sequence[Candidate], crops: Sequence[Image], sources: Mapping[str, Image]) -> None:
        """Shows candidates with their crops.

        Args:
            candidates: with the numbers from `next_number` on
            crops: of each its pixels
            sources: images by content hash, of which candidates are parts
        """
        whole = [sources[each.image] if each.image else self.image for each in candidates]
        self.show([Shown(crop, source, each.box) for each, crop, source in zip(candidates, crops, whole, strict=True)])

    async def run(self, action: actions.Action) -> Outcome:
        """The outcome of a search; refuses one that is not allowed. An answer is no search."""
        if not self._allowed(action):
            needs = " and ".join(sorted(self._needs(action) - self.tools))
            return Outcome(
                Observation(text=prompts.not_allowed(self.style, self.language)), error=f"{needs} may not be used"
            )
        match action:
            case actions.Glance():
                return await self._search_images([(None, self.image)])
            case actions.Ground(expression, within):
                return await self._ground(expression, within)
            case actions.Gaze(numbers):
                return await self._gaze(numbers)
            case actions.TextSearch(query):
                return await self._search_text(query)
            case actions.ReadText(number):
                return await self._read_text(number)
        raise AssertionError(action)

    def _needs(self, action: actions.Action) -> frozenset[str]:
        """Names of the tools that an action calls."""
        match action:
            case actions.TextSearch():
                return frozenset({"textSearch"})
            case actions.ReadText():
                return frozenset({"ocr"})
            case actions.Ground():
                by_mode = {"select": {"grounding"}, "direct": {"grounding", "imageSearch"}, "off": {"imageSearch"}}
                return frozenset(by_mode[self.gaze])
        return frozenset({"imageSearch"})

    def _allowed(self, action: actions.Action) -> bool:
        return self._needs(action) <= self.tools

    async def _ground(self, expression: str, within: int) -> Outcome:
        if self.gaze == "off":
            return await self._search_images([(None, self.image)])
        if within and within not in self.shown:
            return self._never_shown()
        look = self.shown[within] if within else Shown(self.image, self.image)
        reply = await self.toolbox.ground(look.source, expression, look.box)
        if reply.failure:
            return Outcome(self._failed("grounding", reply))
        found = reply.unwrap()
        if self.gaze == "direct" and found.candidates:
            return await self._search_unseen(reply)
        image = "" if look.source.hash == self.image.hash else look.source.hash
        numbered = tuple(
            each.model_copy(update={"number": number, "image": image, "within": within})
            for number, each in enumerate(found.candidates, self.next_number())
        )
        self.show([Shown(crop, look.source, each.box) for each, crop in zip(numbered, found.crops, strict=True)])
        text = prompts.candidates(numbered, style=self.style, within=within, language=self.language)
        hashes = tuple(crop.hash for crop in found.crops)
        return Outcome(_seen("grounding", reply, text, candidates=numbered, images=hashes), found.crops)

    async def _search_unseen(self, grounding: tool_types.Reply[tool_types.Grounding]) -> Outcome:
        """Searches the best candidate at once; none is offered, so none can be selected later."""
        searched = await self._search_images([(1, grounding.unwrap().crops[0])])
        observation = searched.observation
        both = {
            "calls": 2,
            "attempts": grounding.attempts + observation.attempts,
            "seconds": round(grounding.seconds + observation.seconds, 4),
            "cached": grounding.cached and observation.cached,
            "decisions": tuple(dict.fromkeys((*grounding.decisions, *observation.decisions))),
            "waited": round(grounding.waited + observation.waited, 4),
            "usd": grounding.usd + observation.usd,
        }
        return Outcome(observation.model_copy(update=both), searched.images, selected=(1,))

    async def _gaze(self, numbers: Sequence[int]) -> Outcome:
        """Searches the selected images and no other; a number that was never shown is the model's mistake."""
        if not all(number in self.shown for number in numbers):
            return self._never_shown()
        return await self._search_images([(number, self.shown[number].image) for number in numbers])

    def _never_shown(self) -> Outcome:
        text = prompts.no_such_candidate(len(self.shown), style=self.style, language=self.language)
        return Outcome(Observation(text=text), error="a candidate that was never offered")

    async def _search_images(self, chosen: Sequence[tuple[int | None, Image]]) -> Outcome:
        """Searches these images at the same time; the results are in the order of `chosen`."""
        replies = await asyncio.gather(*(self.toolbox.search_image(image) for _, image in chosen))
        decoded = await self._thumbnails([() if reply.failure else reply.unwrap() for reply in replies])
        texts, results, failures, images = [], [], [], list[Image]()
        for (number, _), reply, found in zip(chosen, replies, decoded.by_search, strict=True):
            if failure := reply.failure_record:
                failures.append(failure)
                texts.append(prompts.tool_failed(self.style, self.language))
                continue
            hits = reply.unwrap()
            results += [_result(hit, found.get(place)) for place, hit in enumerate(hits)]
            first = self.next_number() + len(images)
            numbers = {place: first + at if self.names_results else 0 for at, place in enumerate(sorted(found))}
            images += [found[place] for place in sorted(found)]
            titles = [hit.title for hit in hits]
            texts.append(
                prompts.image_results(
                    titles, style=self.style, candidate=number, thumbnails=numbers, language=self.language
                )
            )
        if unusable := prompts.unusable_thumbnails(decoded.unusable, style=self.style, language=self.language):
            texts.append(unusable)
        observation = Observation(
            text="\n".join(texts),
            tool="imageSearch",
            images=tuple(image.hash for image in images),
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
        if images and self.names_results:
            self.show([Shown(image, image) for image in images])
        return Outcome(observation, tuple(images))

    async def _thumbnails(self, searches: Sequence[Sequence[tool_api.SearchHit]]) -> Decoded:
        """The thumbnails to show; the tiny model reads the first result only."""
        if not self.thumbnails.count or not any(hit.thumbnail for hits in searches for hit in hits):
            return Decoded(({},) * len(searches))
        readable = [hits[:1] if self.style == "terse" else hits for hits in searches]
        return await asyncio.to_thread(thumbnails.decode, readable, self.thumbnails)

    async def _search_text(self, query: str) -> Outcome:
        reply = await self.toolbox.search_text(query)
        if reply.failure:
            return Outcome(self._failed("textSearch", reply))
        hits = reply.unwrap()
        text = prompts.text_results([(hit.title, hit.text) for hit in hits], style=self.style, language=self.language)
        return Outcome(_seen("textSearch", reply, text, results=tuple(_result(hit) for hit in hits)))

    async def _read_text(self, number: int) -> Outcome:
        if number and number not in self.shown:
            return self._never_shown()
        reply = await self.toolbox.read_text(self.shown[number].image if number else self.image)
        if reply.failure:
            return Outcome(self._failed("ocr", reply))
        return Outcome(_seen("ocr", reply, prompts.read_text(reply.unwrap(), style=self.style, language=self.language)))

    def _failed(self, tool: str, reply: tool_types.Reply) -> Observation:
        return _seen(tool, reply, prompts.tool_failed(self.style, self.language), failures=(reply.failure_record,))


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
        pages_read=reply.pages[0],
        pages_failed=reply.pages[1],
        **fields,
    )


def _result(hit: tool_api.SearchHit, thumbnail: Image | None = None) -> Result:
    shown = thumbnail.hash if thumbnail is not None else ""
    return Result(title=hit.title[:200], url=hit.url[:500], text=hit.text[:2000], thumbnail=shown)
