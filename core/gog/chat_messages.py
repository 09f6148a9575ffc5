"""Conversations as messages of OpenAI's chat protocol, and what is read of its completions. Pure.

An endpoint returns text and no tokens, so the segments of such a conversation hold the text itself: four UTF-8 bytes a
token, which is near what tokenizers reach, and zeros for images. They serve to count, to journal and to resume; they are
never trained on, and have no log-probs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gog import actions, chat_replies, prompts, served_models, tool_api
from gog.images import Image
from gog.trajectory import Segment

BYTES = 4
"""Bytes of text in a token."""
PATCH, MOST_PATCHES = 28, 1_280
"""An image counts one token per patch of this side in pixels, up to so many: an estimate, because models differ."""
REASONING_CHARACTERS = 2_000
"""Characters that are kept of reasoning which a server returns apart from the content."""
_FRAME = re.compile(r"<\|im_start\|>(system|user)\n(.*?)<\|im_end\|>\n", re.DOTALL)


@dataclass(frozen=True)
class Completion:
    """What an endpoint returned for a turn."""

    text: str
    """The turn, up to its first closing tag, with the reasoning in tags before it."""
    finished: bool
    """Whether it ended by itself or at a closing tag, rather than at the limit of tokens."""
    read: int
    """Tokens of the prompt that the server read; 0 where it does not report them."""
    written: int
    """Tokens that the server wrote; 0 where it does not report them."""
    served_by: str = ""
    """The model that the server names (gog.served_models); empty where it names none."""


def segment(source: Any, text: str, images: Sequence[Image] = ()) -> Segment:
    """A segment that holds a text and counts its images.

    Args:
        source: prompt, model or observation.
        text: what was written; every image has its placeholder in it.
        images: in the order of their placeholders.
    """
    data = text.replace("\0", "\ufffd").encode("utf-8", "replace")
    tokens = [int.from_bytes(data[at : at + BYTES], "big") for at in range(0, len(data), BYTES)]
    tokens += [0] * sum(map(image_tokens, images))
    return Segment(source=source, tokens=tuple(tokens), images=tuple(image.hash for image in images))


def text_of(part: Segment) -> str:
    """The text of a segment that `segment` made.

    >>> text_of(segment("model", "größer"))
    'größer'
    """
    data = b"".join(token.to_bytes((token.bit_length() + 7) // 8, "big") for token in part.tokens)
    return data.decode("utf-8", "replace")


def image_tokens(image: Image) -> int:
    """Tokens that an image counts."""
    return min(MOST_PATCHES, -(-image.width // PATCH) * -(-image.height // PATCH))


def data_urls(images: Sequence[Image]) -> dict[str, str]:
    """Data URL of each image, by content hash. Takes a second for a large one: call it in a worker thread."""
    return {image.hash: f"data:image/png;base64,{tool_api.encode_image(image)}" for image in images}


def messages(segments: Iterable[Segment], urls: Mapping[str, str]) -> list[dict[str, Any]]:
    """A conversation as chat messages.

    Args:
        segments: prompt, turns and observations, in order.
        urls: data URL of each image, by content hash.
    """
    made: list[dict[str, Any]] = []
    for part in segments:
        text, images = text_of(part), iter(part.images)
        if part.source == "model":
            made.append({"role": "assistant", "content": text})
            continue
        for frame in _FRAME.finditer(text):
            made.append({"role": frame[1], "content": _content(frame[2], images, urls)})
    return made


def _content(text: str, images: Iterable[str], urls: Mapping[str, str]) -> str | list[dict[str, Any]]:
    """Text, or parts where it shows images."""
    first, *rest = text.split(prompts.IMAGE)
    if not rest:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
    for image, following in zip(images, rest, strict=False):
        parts.append({"type": "image_url", "image_url": {"url": urls[image]}})
        if following:
            parts.append({"type": "text", "text": following})
    return parts


def read(answer: bytes) -> Completion:
    """The turn in the body of a chat completion.

    A refusal is what the policy wrote, so it is a turn without an action.

    Raises:
        ValueError: not a chat completion.
    """
    completion = json.loads(answer)
    reply = chat_replies.parse(completion)
    text, closed = _until_closed(reply.content or reply.refusal)
    if reply.reasoning and "<think>" not in text:
        kept = prompts.inert(reply.reasoning.strip()[:REASONING_CHARACTERS])
        text = f"<think>{kept}</think>\n{text}"
    finished = closed or reply.finish_reason != "length"
    served_by = served_models.identity(completion)
    return Completion(text, finished, reply.prompt_tokens, reply.completion_tokens, served_by)


def _until_closed(text: str) -> tuple[str, bool]:
    """A turn up to its first closing tag, and whether it has one: what follows would be invented observations."""
    ends = [place + len(tag) for tag in actions.CLOSING_TAGS if (place := text.find(tag)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
