"""The built-in image and questions, and what came back in a short readable form: one row for each tool.

The photograph is an official portrait of Rear Admiral Grace Hopper, a work of the United States Navy and in the public
domain. A detector finds a person in it, and a search of the web knows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import images, tool_api, wording
from gog.tool_client import Toolbox
from gog.tool_types import Grounding, Reply
from gog.wording import plural

PHOTOGRAPH = Path(__file__).with_name("photograph.jpg")
EXPRESSION = "the person"
"""What grounding is to find in the photograph."""
QUERY = "Who was Grace Hopper?"
WORLD, WORLD_QUERY = "world", "height"
"""The back end whose pages know nothing of the real world, and a word of theirs."""
CASE = ("What is the capital of France?", ("Paris",), "Paris")
"""A question, its accepted answers and a correct answer: the judge must reply Yes."""
_SHOWN = 70
"""Characters that are shown of a title, an address or a text."""


def photograph() -> images.Image:
    """The built-in image: 256 x 300 pixels."""
    return images.decode(PHOTOGRAPH.read_bytes())


@dataclass(frozen=True)
class Sample:
    """How one tool is called, and how its answer is shown."""

    ask: Callable[[Toolbox, str], Awaitable[Reply[Any]]]
    """Calls the tool, whose server has the back end of that name; empty for an existing server."""
    words: Callable[[Any], str]
    """The answer in a line."""


async def _ground(tools: Toolbox, backend: str) -> Reply[Grounding]:
    return await tools.ground(photograph(), EXPRESSION)


async def _search_image(tools: Toolbox, backend: str) -> Reply[Sequence[tool_api.SearchHit]]:
    return await tools.search_image(photograph())


async def _search_text(tools: Toolbox, backend: str) -> Reply[Sequence[tool_api.SearchHit]]:
    return await tools.search_text(WORLD_QUERY if backend == WORLD else QUERY)


async def _read(tools: Toolbox, backend: str) -> Reply[Sequence[str]]:
    return await tools.read_text(photograph())


async def _judge(tools: Toolbox, backend: str) -> Reply[bool]:
    return await tools.judge(*CASE)


def _candidates(found: Grounding) -> str:
    if not found.candidates:
        return f"no candidate for {EXPRESSION!r}"
    best = found.candidates[0]
    box = ", ".join(f"{side:.0f}" for side in best.box)
    label = f"{_short(best.label)!r} " if best.label else ""
    return f"{plural(len(found.candidates), 'candidate')}; best: {label}at ({box}), score {best.score:.2f}"


def _pages(hits: Sequence[tool_api.SearchHit]) -> str:
    if not hits:
        return "no page"
    first = hits[0]
    parts = [_short(each) for each in (first.title, first.url, first.text) if each]
    shown = sum(bool(hit.thumbnail) for hit in hits)
    thumbnails = f", {shown} with {'a thumbnail' if shown == 1 else 'thumbnails'}" if shown else ""
    return f"{plural(len(hits), 'page')}{thumbnails}; first: {' · '.join(parts)}"


def _verdict(verdict: bool) -> str:
    return f"{'Yes' if verdict else 'No'} to a correct answer"


def _lines(lines: Sequence[str]) -> str:
    return f"{plural(len(lines), 'line')} of text" + (f"; first: {_short(lines[0])}" if lines else "")


def _short(text: str) -> str:
    return wording.one_line(text, _SHOWN)


SAMPLES = {
    "grounding": Sample(_ground, _candidates),
    "imageSearch": Sample(_search_image, _pages),
    "textSearch": Sample(_search_text, _pages),
    "ocr": Sample(_read, _lines),
    "judge": Sample(_judge, _verdict),
}
"""How each tool is called. One without a row here, of an extension, is noted and not called."""
