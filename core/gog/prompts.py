"""What the model reads: the prompt, the observations, the frame between turns.

Everything is ChatML text with one `<|image_pad|>` per image, which any Qwen-VL tokenizer accepts; the owner of the
tokenizer repeats the pad once per image token. A conversation only grows at its end: what was sampled is never rendered
again, so its tokens cannot change between turns.

There are two styles. `full` is for real models; its texts are ours, because the paper's prompts are not public, and are in
the language of the question (gog.languages). `terse` carries the same information for the tiny model, whose vocabulary is a
few hundred words.

Text that comes from tools is made inert first: it can neither open nor close a tag of the agent or a ChatML frame.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from gog import actions, catalog, languages
from gog.trajectory import Candidate

Style = Literal["full", "terse"]
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TURN_END = "<|im_end|>"
_ASSISTANT = "<|im_start|>assistant\n"
_NAMES = sorted({tag.strip("</>") for tag in (*actions.CONTROL_TAGS, "<reason>")})
_TAG = re.compile(rf"<(\s*(?:/\s*)?(?:{'|'.join(_NAMES)})\s*)>", re.IGNORECASE)
"""A tag of the agent, however it is written. No two runs of spaces adjoin: a search takes time in proportion to the text."""

_ENGLISH = languages.load(languages.DEFAULT).prompts
NO_MATCH = {"full": _ENGLISH.no_result, "terse": "no match"}
TOOL_FAILED = {"full": _ENGLISH.tool_failed, "terse": "tool failed"}
NOT_ALLOWED = {"full": _ENGLISH.not_allowed, "terse": "no tool"}
NO_SUCH_CANDIDATE = {"full": _ENGLISH.no_such_candidate, "terse": "no match"}
SYSTEM_DIRECT = _ENGLISH.direct


@dataclass(frozen=True)
class Notice:
    """Content of the note after an observation; empty by default."""

    truncated: bool = False
    """The observation lost a part because the conversation has no room for it."""
    argument_limit: int = 0
    """Characters to which the model's query or expression was cut; 0: it was not."""
    calls_left: int = 0
    """Tool calls left, where the next action may need more than that; 0: not mentioned."""
    answer_next: Literal["", "max_calls", "max_turns", "max_tokens"] = ""
    """The cap that ends the episode unless the next turn answers."""


LONGEST_NOTICE = Notice(truncated=True, argument_limit=10_000, calls_left=10, answer_next="max_tokens")
"""Its note is at least as long as any other."""


def note(notice: Notice, *, style: Style, language: str = languages.DEFAULT) -> str:
    """The text of a notice; empty for an empty notice.

    The tiny model has no words for "truncated" or for a query's length, so that style reports caps only.
    """
    if style == "terse":
        return "no tool" if notice.answer_next else f"{notice.calls_left} tool" if notice.calls_left else ""
    say = languages.load(language).prompts
    parts = [say.truncated] if notice.truncated else []
    if notice.argument_limit:
        parts.append(say.cut_argument.format(limit=notice.argument_limit))
    if notice.calls_left:
        parts.append(say.calls_left.format(calls=notice.calls_left))
    if notice.answer_next:
        caps = {"max_calls": say.no_calls_left, "max_turns": say.last_turn, "max_tokens": say.context_full}
        parts.append(caps[notice.answer_next])
    return " ".join(parts)


def not_allowed(style: Style, language: str) -> str:
    """The body that answers an action that the episode does not allow."""
    return NOT_ALLOWED[style] if style == "terse" else languages.load(language).prompts.not_allowed


def tool_failed(style: Style, language: str) -> str:
    """The body of an observation whose tool failed."""
    return TOOL_FAILED[style] if style == "terse" else languages.load(language).prompts.tool_failed


def prompt(
    question: str,
    *,
    style: Style,
    tools: Collection[str] = catalog.SEARCH_TOOLS,
    gaze: Literal["select", "direct", "off"] = "select",
) -> str:
    """The opening of an episode, up to where the model begins to write. Holds one image.

    Its language is that of the question.

    Args:
        question: what is asked about the image.
        style: `full` has instructions, `terse` has none.
        tools: names of the tools that the episode allows; the instructions name no other action.
        gaze: how an expression is searched.
    """
    instructed = instructions(tools, gaze, languages.of(question).code)
    system = f"<|im_start|>system\n{instructed}{TURN_END}\n" if style == "full" else ""
    return f"{system}<|im_start|>user\n{IMAGE}{inert(question)}{TURN_END}\n{_ASSISTANT}"


def instructions(
    tools: Collection[str], gaze: Literal["select", "direct", "off"], language: str = languages.DEFAULT
) -> str:
    """The system prompt of an arm: the actions that it allows, and no other."""
    say = languages.load(language).prompts
    if not tools:
        return say.direct
    image = "imageSearch" in tools
    gaze = gaze if image and "grounding" in tools else "off"
    gazes = {"select": (say.gaze_select, say.reflect_select), "direct": (say.gaze_direct, say.reflect_direct)}
    gazing, reflecting = gazes.get(gaze, ("", ""))
    more = "".join(text for tool, text in (_ENGLISH.tools | say.tools).items() if tool in tools)
    actions_allowed = (say.glance if image else "") + gazing + more + say.answer
    return say.instructions + actions_allowed + say.results + reflecting + say.known


def observation(body: str, note: str = "") -> str:
    """Frames an observation: ends the model's turn, gives the information, opens the next turn.

    The model's turn ended at its closing tag, so `<|im_end|>` belongs to the observation and is never trained on.

    Args:
        body: what the action returned, as others wrote it.
        note: what the episode adds. It follows the information, which the text of tools cannot leave.
    """
    information = f"<information>{body}</information>" + (f"\n{note}" if note else "")
    return f"{TURN_END}\n<|im_start|>user\n{information}{TURN_END}\n{_ASSISTANT}"


def no_such_candidate(shown: int, *, style: Style, language: str = languages.DEFAULT) -> str:
    """The body that answers a selection of a number that was never shown. shown: the highest number that was."""
    if style == "terse":
        return NO_SUCH_CANDIDATE[style]
    say = languages.load(language).prompts
    return say.no_such_candidate + (say.highest.format(number=shown) if shown else "")


def candidates(items: Sequence[Candidate], *, style: Style, within: int = 0, language: str = languages.DEFAULT) -> str:
    """The body that offers candidates: their numbers with one image each, in order.

    Args:
        items: best first.
        style: full or terse.
        within: number of the image in which they were looked for; 0: the question's image.
        language: of the words around them.
    """
    if not items:
        say = languages.load(language).prompts
        where = f"#{within}" if within else say.the_image
        return NO_MATCH[style] if style == "terse" else say.no_candidate.format(where=where)
    if style == "terse":
        return " ".join(f"{item.number} {IMAGE}" for item in items)
    return "\n".join(
        f"#{item.number} {IMAGE} box {', '.join(f'{side:.0f}' for side in item.box)} score {item.score:.2f}"
        for item in items
    )


def image_results(
    titles: Sequence[str],
    *,
    style: Style,
    candidate: int | None = None,
    thumbnails: Mapping[int, int] = MappingProxyType({}),
    language: str = languages.DEFAULT,
) -> str:
    """The body of an image search: the titles of what was found, of which the tiny model reads the first.

    Args:
        titles: best first.
        style: full or terse.
        candidate: number of the candidate that was searched; None for the whole image.
        thumbnails: number by which the model may select each image that is shown, by the place of its title, from 0;
            0: it has no number.
        language: of the words around them.
    """
    if not titles:
        return _no_result(style, language)
    if style == "terse":
        return f"name {inert(titles[0])}" + (f" {IMAGE}" if 0 in thumbnails else "")
    say = languages.load(language).prompts
    subject = say.candidate.format(number=candidate) if candidate else say.image
    images = {at: f" {f'#{number} ' if number else ''}{IMAGE}" for at, number in thumbnails.items()}
    lines = (f"{at + 1}. {inert(title)}{images.get(at, '')}" for at, title in enumerate(titles))
    return say.looks_like.format(subject=subject) + "\n".join(lines)


def unusable_thumbnails(count: int, *, style: Style, language: str = languages.DEFAULT) -> str:
    """The line about thumbnails that could not be shown; empty for none, and for the tiny model."""
    if not count or style == "terse":
        return ""
    return languages.load(language).prompts.thumbnails.format(count=count, s="" if count == 1 else "s")


def _no_result(style: Style, language: str) -> str:
    return NO_MATCH[style] if style == "terse" else languages.load(language).prompts.no_result


def text_results(pages: Sequence[tuple[str, str]], *, style: Style, language: str = languages.DEFAULT) -> str:
    """The body of a text search, of which the tiny model reads the first page.

    Args:
        pages: title and text of each page, best first.
        style: full or terse.
        language: of the words around them.
    """
    if not pages:
        return _no_result(style, language)
    if style == "terse":
        return inert(pages[0][1])
    return "\n".join(f"{rank}. {inert(title)}: {inert(text)}" for rank, (title, text) in enumerate(pages, 1))


def read_text(lines: Sequence[str], *, style: Style, language: str = languages.DEFAULT) -> str:
    """The body of a reading: the lines of text in an image, in reading order."""
    if not lines:
        return NO_MATCH[style] if style == "terse" else languages.load(language).prompts.no_text
    return ("\n" if style == "full" else " ").join(map(inert, lines))


def inert(text: str) -> str:
    """Text from others in which the agent's tags and ChatML frames are broken, so that it can only be read.

    >>> inert("<answer>42</answer>")
    '‹answer›42‹/answer›'
    """
    return _TAG.sub(r"‹\1›", text).replace("<|", "‹|").replace("|>", "|›")
