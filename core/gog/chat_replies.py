"""Reads the bodies of chat completions (OpenAI's protocol), and reasoning inside their text. Pure.

Servers differ: content is a text, parts, or null; reasoning is in fields of its own, in parts, or in tags of the text. The
judge, the summariser and the evaluated endpoint all read completions here. A body is untrusted: fields of other types
count as absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 10**8
"""A reported number of tokens beyond this is not believed."""

_TAG = r"(?:[a-z]+:)?(?:think|thinking|thought|reason|reasoning|reflection)"
_MARK = re.compile(
    rf"<(?P<close>/?)(?P<tag>{_TAG})>|\[(?P<close2>/?)THINK\]|◁(?P<close3>/?)think▷"
    r"|<\|(?P<thought>begin|end)_of_thought\|>",
    re.IGNORECASE,
)
_OPEN = re.compile(rf"<{_TAG}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSE = re.compile(rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)
"""Blocks of reasoning, of Qwen, DeepSeek, Seed, Magistral, Kimi and others."""
_CHANNEL = re.compile(r"<\|channel\|>(\w++)[^<]*+<\|message\|>")
"""Head of a message in the format of gpt-oss, where a server does not take it apart."""
_MARKER = re.compile(r"<\|[a-z_]+\|>")


@dataclass(frozen=True)
class ChatReply:
    """What a model wrote."""

    content: str
    """Its answer, reasoning in tags included; empty where there is none."""
    reasoning: str
    """Reasoning that the server splits off; empty where there is none."""
    refusal: str
    """Why it refuses, where the server splits that off; empty where it does not."""
    finish_reason: Any
    """Why it ended, as the server reports it."""
    prompt_tokens: int
    """Tokens that the server read; 0 where it does not report them."""
    completion_tokens: int
    """Tokens that the server wrote, reasoning included; 0 where it does not report them."""


def parse(completion: Any) -> ChatReply:
    """The reply in a chat completion.

    Args:
        completion: the body, as JSON values.

    Raises:
        ValueError: not a chat completion.
    """
    try:
        choice = completion["choices"][0]
        message, usage = choice["message"], completion.get("usage")
        content, first, second, refusal = (
            plain_text(message.get(name)) for name in ("content", "reasoning_content", "reasoning", "refusal")
        )
        finish_reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion: {error!r}") from None
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    return ChatReply(content, first if first.strip() else second, refusal, finish_reason, counts[0], counts[1])


def plain_text(content: Any) -> str:
    """Text of a message's content: text, or parts with text that are no reasoning; empty for anything else."""
    if isinstance(content, list):
        return "".join(_part(part) for part in content)
    return content if isinstance(content, str) else ""


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    kind, text = part.get("type"), part.get("text")
    is_reasoning = isinstance(kind, str) and re.search("reason|think|thought", kind)
    return text if isinstance(text, str) and not is_reasoning else ""


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value < MAX_TOKENS else 0


def without_reasoning(text: str) -> str | None:
    """A text without the reasoning in it; None if it was cut off before that ended.

    >>> without_reasoning("<think>no?</think>Yes!"), without_reasoning("<think>Yes")
    ('Yes!', None)
    """
    text = _without_blocks(text)
    if heads := list(_CHANNEL.finditer(text)):
        if heads[-1][1] != "final":
            return None
        text = text[heads[-1].end() :]
    text = _MARKER.sub("", text) if _OPEN.search(text) is None else text
    text = _CLOSE.split(text)[-1]  # some servers put the opening tag into the prompt
    return None if _OPEN.search(text) else text


def _without_blocks(text: str) -> str:
    """The text without complete blocks of reasoning, in time that grows with its length: a model that repeats an opening
    tag must not hold the process."""
    marks = [(*_kind(mark), mark.start(), mark.end()) for mark in _MARK.finditer(text)]
    last_end = {name: start for name, is_end, start, _ in marks if is_end}
    kept, position, within = [], 0, ""
    for name, is_end, start, end in marks:
        if not within and not is_end and last_end.get(name, -1) > start:
            kept.append(text[position:start])
            within = name
        elif is_end and name == within:
            position, within = end, ""
    return "".join([*kept, text[position:]])


def _kind(mark: re.Match[str]) -> tuple[str, bool]:
    """The name of a mark, and whether it ends a block."""
    if mark["tag"] is not None:
        return mark["tag"].lower(), bool(mark["close"])
    if mark["thought"] is not None:
        return "thought", mark["thought"].lower() == "end"
    return mark[0].lower().replace("/", ""), bool(mark["close2"] or mark["close3"])
