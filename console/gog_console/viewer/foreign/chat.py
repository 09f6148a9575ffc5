"""Who said what in a text that a trainer has decoded. Pure.

Texts keep the special tokens of their chat template (ChatML, Llama, Gemma, GLM), or have lost them: verl and TRL decode
without special tokens, which leaves of ChatML a line with the role's name. Such a line counts only where the role can
follow, so that a page with a line "user" opens no turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "model": "assistant", "gpt": "assistant", "tool": "tool", "ipython": "tool", "observation": "tool", "function": "tool",
}  # fmt: skip
"""Roles of templates, and which of system, user, assistant and tool each is."""
IMAGE = "[image]"
"""In place of the tokens of an image, of which there may be thousands."""
_OPEN = re.compile(
    r"<\|im_start\|>[ ]*(\w+)[ \t]*\n?|<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*|<start_of_turn>[ ]*(\w+)\n?"
    r"|<\|(system|user|assistant|observation|tool)\|>\n?"
)
_END = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|eom_id|end_of_text|begin_of_text|end|pad|finetune_right_pad_id)\|>"
    r"|<end_of_turn>|<bos>|<eos>|<pad>|\[PAD\]|</?s>"
)
_IMAGE = re.compile(
    r"(?:<\|vision_start\|>)?(?:<\|(?:image|video)_pad\|>|<image_soft_token>|<IMG_CONTEXT>|<image>)+(?:<\|vision_end\|>)?"
)
_BARE = re.compile(r"^(system|user|assistant|tool)$\n?", re.MULTILINE)
_FOLLOWS = {
    "": "system user",
    "system": "user",
    "user": "assistant",
    "tool": "assistant tool",
    "assistant": "user tool",
}
"""Roles that a line with a role's name may open, by the role before."""


@dataclass(frozen=True)
class Message:
    """What one speaker said."""

    role: str
    """system, user, assistant or tool."""
    text: str
    """The words, without special tokens."""


def of_text(text: str, speaker: str) -> list[Message]:
    """The messages of a text.

    Args:
        text: as the trainer decoded it.
        speaker: role of what stands before the first message; empty for a prompt, which may be a bare question.

    >>> of_text("system\\nBe brief.\\nuser\\nWho?\\nassistant\\n", "")
    [Message(role='system', text='Be brief.'), Message(role='user', text='Who?'), Message(role='assistant', text='')]
    """
    opened = list(_OPEN.finditer(text))
    marks = [(mark.start(), mark.end(), next(filter(None, mark.groups()))) for mark in opened] or _bare(text, speaker)
    ends = [start for start, _, _ in marks] + [len(text)]
    first = Message(speaker or "user", _plain(text[: ends[0]]))
    found = [
        Message(ROLES.get(role, "user"), _plain(text[end:next_])) for (_, end, role), next_ in zip(marks, ends[1:])
    ]
    return [first, *found] if first.text or not found else found


def of_messages(turns: Sequence[Any]) -> list[Message]:
    """The messages of a conversation as chat servers take it. Raises ValueError for what is no message."""
    found = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise ValueError("a turn that is no object")
        role = str(turn.get("role") or turn.get("from") or "")
        found.append(Message(ROLES.get(role, "user"), _plain(_content(turn))))
    return found


def _content(turn: Mapping[str, Any]) -> str:
    """The text of a turn, with its reasoning and its tool calls in the tags that a template gives them."""
    said = turn.get("content", turn.get("value"))
    if isinstance(said, list):
        parts = (part if isinstance(part, Mapping) else {"text": part} for part in said)
        said = "\n".join(str(part["text"]) if part.get("text") else IMAGE for part in parts)
    reasoning = turn.get("reasoning_content") or turn.get("reasoning")
    calls = [call.get("function", call) for call in turn.get("tool_calls") or () if isinstance(call, Mapping)]
    thought = [f"<think>{reasoning}</think>"] if reasoning else []
    tagged = [f"<tool_call>{json.dumps(call, ensure_ascii=False, default=str)}</tool_call>" for call in calls]
    return "\n".join([*thought, *([str(said)] if said else []), *tagged])


def _bare(text: str, speaker: str) -> list[tuple[int, int, str]]:
    """Start, end and role of each line that opens a message."""
    found: list[tuple[int, int, str]] = []
    marks = list(_BARE.finditer(text))
    for place, mark in enumerate(marks):
        role = mark[1]
        if not speaker and not found and text[: mark.start()].strip():
            return []  # a prompt that does not begin with a role is no chat
        if role not in _FOLLOWS[found[-1][2] if found else speaker].split():
            continue
        if role in ("user", "tool") and speaker and not _opens(text[mark.end() :], marks[place + 1 :]):
            continue
        found.append((mark.start(), mark.end(), role))
    return found


def _opens(after: str, later: Sequence[re.Match[str]]) -> bool:
    """Whether a line "user" within a completion ends the model's turn: a tag follows, or the model speaks again."""
    return after.lstrip().startswith("<") or any(mark[1] == "assistant" for mark in later)


def _plain(text: str) -> str:
    return _IMAGE.sub(IMAGE, _END.sub("", text)).strip()
