"""The turn grammar: from a turn's text to its action, or the reason why it has none.

    <think>…</think>                                reasoning
    <img_search><img></img_search>                  glance: search the whole image
    <img_search>red ring</img_search>               ground: ask for numbered candidates; nothing is searched yet
    <img_search>#2: the left wheel</img_search>     ground inside an image that was shown, not in the question's
    <img_search>#2</img_search>, #1,#3              gaze: search the selected candidates
    <text_search>QUERY</text_search>
    <ocr><img></ocr>, <ocr>#2</ocr>                 read the text in the question's image, in one that was shown
    <answer>…</answer>                              ends the episode

A turn holds exactly one action and ends with it: generation stops at its closing tag. The tag names are those of
DeepMMSearch-R1 [peer]; the `#n` selection is ours, because the paper's selection step is not published.

Parsing is more lenient than the format reward. A turn without reasoning, or with words around its action, is still
acted on, but it is not *well formed*, and the format reward of its episode is 0. The exception is a turn that writes an
observation itself: nothing is done with it, because an answer that rests on forged evidence must earn nothing.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

from gog import catalog, tool_api

TAGS = (*catalog.ACTION_TAGS, "answer")
"""Names of the tags that hold an action."""
CLOSING_TAGS = tuple(f"</{tag}>" for tag in TAGS)
"""Generation stops at these."""
CONTROL_TAGS = tuple(f"<{slash}{tag}>" for tag in ("think", *TAGS, "information") for slash in ("", "/")) + ("<img>",)
"""Every tag that the agent interprets; escaped in text that comes from tools."""
WHOLE_IMAGE = "<img>"
"""Argument of an image search that takes the whole image."""
MAX_SELECTED = 5
"""Candidates that one action may select."""


@dataclass(frozen=True)
class Glance:
    """Search the whole image."""

    name: Literal["glance"] = "glance"
    """As trajectories name it."""


@dataclass(frozen=True)
class Worded:
    """An action whose argument is a text."""

    argument: str
    """The text."""
    limit: ClassVar[int] = 0
    """Characters of the argument that the tool accepts; a longer one is cut. 0: any number."""

    def clipped(self) -> tuple[Self, int]:
        """The action with its argument cut to the limit, and that limit; 0 if nothing was cut."""
        if not self.limit or len(self.argument) <= self.limit:
            return self, 0
        return dataclasses.replace(self, argument=self.argument[: self.limit]), self.limit


@dataclass(frozen=True)
class Ground(Worded):
    """Ask for candidates of an expression: words that refer to the thing, such as "red ring"."""

    within: int = 0
    """Number of the shown image in which to look; 0: the question's image."""
    name: Literal["ground"] = "ground"
    """As trajectories name it."""
    limit = tool_api.MAX_EXPRESSION


@dataclass(frozen=True)
class Gaze:
    """Search the selected candidates, or other images that were shown."""

    numbers: tuple[int, ...]
    """Their numbers, in the order in which they were selected; numbers start at 1."""
    name: Literal["gaze"] = "gaze"
    """As trajectories name it."""


@dataclass(frozen=True)
class TextSearch(Worded):
    """Search the web for text: the argument is the query."""

    name: Literal["text"] = "text"
    """As trajectories name it."""
    limit = tool_api.MAX_QUERY


@dataclass(frozen=True)
class ReadText:
    """Read the text in an image."""

    number: int = 0
    """Number of the shown image; 0: the question's image."""
    name: Literal["ocr"] = "ocr"
    """As trajectories name it."""


@dataclass(frozen=True)
class Answer(Worded):
    """Answer the question and end the episode."""

    name: Literal["answer"] = "answer"
    """As trajectories name it."""


Action = Glance | Ground | Gaze | TextSearch | ReadText | Answer
KINDS = get_args(Action)
NAMES = tuple(kind.name for kind in KINDS)
"""Names of all actions, as trajectories record them."""


@dataclass(frozen=True)
class ParsedTurn:
    """A turn that was parsed."""

    action: Action | None
    """Its action; None if it holds none that can be carried out."""
    reasoning: str | None
    """Its reasoning without the tags; None if it has none."""
    well_formed: bool
    """Whether it counts for the format reward."""
    error: str = ""
    """Why it is not well formed; empty if it is."""


_REASONING = re.compile(r"\s*<(think|reason)>(.*?)</\1>", re.DOTALL)
_ACTION = re.compile(rf"<({'|'.join(TAGS)})>(.*?)</\1>", re.DOTALL)
_SELECTION = re.compile(r"#\s*\d{1,3}(?:\s*,\s*#\s*\d{1,3})*")
_WITHIN = re.compile(r"#\s*(\d{1,3})\s*:\s*([^#]+)")
_ONE = re.compile(r"#\s*(\d{1,3})")
_TAG = re.compile(r"</?[a-z_]+>")
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
_FORGED = re.compile(r"<\s*(?:/\s*)?information\b", re.IGNORECASE)


def parse_turn(text: str, *, reasoning: Literal["required", "optional"] = "required") -> ParsedTurn:
    """Parses a model turn. Never raises.

    Args:
        text: what the model wrote.
        reasoning: whether a turn without reasoning is well formed.

    >>> parse_turn("<think>two rings</think><img_search># 2</img_search>").action
    Gaze(numbers=(2,), name='gaze')
    >>> parse_turn("<answer>blue</answer>").well_formed
    False
    """
    thought = _REASONING.match(text)
    if _FORGED.search(text):
        return ParsedTurn(None, _thought(thought), False, "an observation written by the model")
    body = text[thought.end() :] if thought else text
    found = _ACTION.search(body)
    if found is None:
        return ParsedTurn(None, _thought(thought), False, "no complete action")
    action = _read(found[1], found[2].strip())
    if isinstance(action, str):
        return ParsedTurn(None, _thought(thought), False, action)
    error = _fault(body, found, _thought(thought), required=reasoning == "required") or _selection_error(action)
    return ParsedTurn(action, _thought(thought), not error, error)


def _thought(match: re.Match[str] | None) -> str | None:
    return match[2].strip() if match else None


def _has_text(text: str) -> bool:
    """Whether there is a visible character: neither a space, nor a control or format character."""
    return any(unicodedata.category(char) not in _INVISIBLE for char in text)


def _selection_error(action: Action) -> str:
    return "candidates are numbered from 1" if isinstance(action, Gaze) and 0 in action.numbers else ""


def _read(tag: str, argument: str) -> Action | str:
    """The action that a tag holds, or what is wrong with it."""
    if not _has_text(argument):
        return f"empty <{tag}>"
    if any(control in argument for control in CONTROL_TAGS if control != WHOLE_IMAGE):
        return f"a tag inside <{tag}>"
    if WHOLE_IMAGE in argument and tag not in ("img_search", "ocr"):
        return f"{WHOLE_IMAGE} inside <{tag}>"
    return READERS[tag](argument)


def _read_image_search(argument: str) -> Action | str:
    if argument == WHOLE_IMAGE:
        return Glance()
    if WHOLE_IMAGE in argument:
        return f"{WHOLE_IMAGE} among other words"
    if _SELECTION.fullmatch(argument):
        numbers = tuple(dict.fromkeys(int(number) for number in re.findall(r"\d+", argument)))
        return Gaze(numbers) if len(numbers) <= MAX_SELECTED else f"more than {MAX_SELECTED} candidates selected"
    if (within := _WITHIN.fullmatch(argument)) and int(within[1]) and _has_text(within[2]):
        return Ground(within[2].strip(), int(within[1]))
    if "#" in argument:
        return "a selection mixed with words"
    return Ground(argument)


def _read_text_in(argument: str) -> Action | str:
    if argument == WHOLE_IMAGE:
        return ReadText()
    if (one := _ONE.fullmatch(argument)) and int(one[1]):
        return ReadText(int(one[1]))
    return f"<ocr> holds neither {WHOLE_IMAGE} nor the number of one image"


READERS: Mapping[str, Callable[[str], Action | str]] = {
    "img_search": _read_image_search,
    "text_search": TextSearch,
    "ocr": _read_text_in,
    "answer": Answer,
}
"""Parsers by tag: argument -> action, or a message about the invalid argument."""


def _fault(body: str, found: re.Match[str], thought: str | None, *, required: bool) -> str:
    """Why a turn with an action is not well formed; empty if it is."""
    if required and thought is None:
        return "no reasoning"
    if required and not _has_text(_TAG.sub("", thought or "")):
        return "empty reasoning"
    if thought is not None and any(tag in thought for tag in CLOSING_TAGS):
        return "an action inside the reasoning"
    if body[: found.start()].strip():
        return "text before the action"
    if body[found.end() :].strip():
        return "text after the action"
    return ""
