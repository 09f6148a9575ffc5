"""What a model wrote in one turn: its reasoning, and the tool it called or the answer it gave. Pure.

Calls are JSON in <tool_call>, as function-calling templates write them, or a tag of the tool's own name, as Search-R1,
MMSearch-R1 and OpenSearch-VL's fallbacks do. Tools that gog has under another name are shown as gog's; any other is a
`call` with its arguments. Nothing is checked against a grammar: it is another project's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT = frozenset(
    ("search", "text_search", "web_search", "local_search", "google_search", "wiki_search", "wikipedia_search", "query")
)
"""Names of text search, elsewhere."""
IMAGE = frozenset(
    ("image_search", "img_search", "local_image_search", "lens_scan", "reverse_image_search", "visual_search")
)
"""Names of image search, elsewhere."""
OTHER = ("crop", "zoom", "zoom_in", "visit", "browse", "python", "code", "ocr", "layout_parsing", "perspective_correct",
         "super_resolution", "sharpen", "crop_and_search")  # fmt: skip
"""Further tools that are called by tags of their names."""
SHORT = 300
"""Characters up to which a last turn without any tag is an answer; a longer one is a text that contains one."""
_THINK = re.compile(r"<(think|reason|reasoning)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_HALF = re.compile(r"\A(.*?)</(?:think|reason|reasoning)>", re.DOTALL)
"""Reasoning whose opening tag is in the prompt."""
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_TAG = re.compile(rf"<({'|'.join(sorted((*TEXT, *IMAGE, *OTHER), key=len, reverse=True))})>\s*(.*?)\s*</\1>", re.DOTALL)
_ANSWER = re.compile(r"<(answer|response|final_answer)>\s*(.*?)\s*(?:</\1>|\Z)", re.DOTALL)
_BOXED = re.compile(r"\\?boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_BOXES = ("bbox_2d", "bbox", "box")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Act:
    """The action of a turn."""

    kind: str
    """text, glance, call, answer or none, as `gog.trajectory.Turn.action`."""
    tool: str = ""
    """The tool: gog's name where it has it, else the project's; empty for an answer."""
    argument: str = ""
    """The query, the answer, or the arguments of any other tool."""
    reference: str = ""
    """The image that the call is about, as the call names it."""
    box: Box | None = None
    """The part of that image, in the call's own pixels: left, top, right, bottom."""


def reasoning(text: str) -> tuple[str | None, str]:
    """The reasoning of a turn, None without any, and the text without it.

    >>> reasoning("<think>who?</think><answer>Ada</answer>"), reasoning("who?</think>Ada")
    (('who?', '<answer>Ada</answer>'), ('who?', 'Ada'))
    """
    thoughts = [match[2].strip() for match in _THINK.finditer(text)]
    if not thoughts and (half := _HALF.match(text)):
        return half[1].strip(), text[half.end() :].strip()
    return ("\n".join(thoughts) if thoughts else None), _THINK.sub("", text).strip()


def act(text: str, *, last: bool) -> Act:
    """The action of a turn's text without its reasoning. last: whether nothing came back after it."""
    answer = _ANSWER.search(text)
    call = _CALL.search(text) or _TAG.search(text)
    if call and not (answer and last):
        return _called(call)
    if answer:
        return Act("answer", argument=_final(answer[2]))
    if not last or not text:
        return Act("none")
    boxed = _BOXED.findall(text)
    if boxed or len(text) <= SHORT:
        return Act("answer", argument=boxed[-1].strip() if boxed else text)
    return Act("none")


def _final(text: str) -> str:
    """The answer inside an answer's tags: what is boxed, if anything is."""
    boxed = _BOXED.findall(text)
    return boxed[-1].strip() if boxed else text


def _called(match: re.Match[str]) -> Act:
    if match.re is _TAG:
        return _named(match[1], _arguments(match[2]), match[2])
    call = _arguments(match[1])
    name = call.get("name")
    arguments = call.get("arguments", call.get("parameters"))
    arguments = _arguments(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(name, str):
        return Act("call", argument=match[1])
    return _named(name, arguments if isinstance(arguments, Mapping) else {}, "")


def _named(name: str, arguments: Mapping[str, Any], raw: str) -> Act:
    plain = name.lower()
    reference = next((str(arguments[key]) for key in ("image", "url", "image_url", "img_idx") if key in arguments), "")
    if plain in TEXT:
        return Act("text", "textSearch", _query(arguments) or raw)
    if plain in IMAGE:
        return Act("glance", "imageSearch", reference or raw, reference or raw)
    shown = json.dumps(arguments, ensure_ascii=False, default=str) if arguments else raw
    return Act("call", name, f"{name} {shown}".strip(), reference, _box(arguments))


def _query(arguments: Mapping[str, Any]) -> str:
    found = next((arguments[key] for key in ("q", "query", "queries", "query_list", "text") if arguments.get(key)), "")
    return "; ".join(map(str, found)) if isinstance(found, list) else str(found)


def _box(arguments: Mapping[str, Any]) -> Box | None:
    """The box of a call, as two corners or as corner and size; None without one."""
    corners = next((arguments[key] for key in _BOXES if isinstance(arguments.get(key), list)), None)
    given: list[Any] = corners if corners is not None else [arguments.get(key) for key in ("x", "y", "width", "height")]
    try:
        left, top, right, bottom = (float(side) for side in given)
    except (TypeError, ValueError):
        return None
    if corners is None:
        right, bottom = left + right, top + bottom
    return (left, top, right, bottom) if right > left and bottom > top else None


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
