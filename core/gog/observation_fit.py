"""Fit an observation into the tokens that a conversation has left.

A tool may return more text than the context holds. That is not the model's mistake, so it must not cost the episode:
the observation is truncated and a note says so. If not even a part of it fits, the caller records a tool failure.
Token counts come from the session, which owns the tokenizer; this module decides how much to keep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gog import languages, prompts
from gog.images import Image
from gog.trajectory import Observation, Segment

CHARACTERS_PER_TOKEN = 16
"""More than tokenizers reach on average; bounds how much of a tool's text is ever tokenized."""
SHRINK = 0.97
"""Aims a little below the target, so that truncation rarely needs more than two tokenizations."""


class Context(Protocol):
    """The part of a session that fitting needs."""

    def room(self) -> int:
        """Tokens that the conversation can still take, turns and observations together."""
        ...

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        """The tokens of an observation with its frame (`prompts.observation`). Appends nothing."""
        ...


@dataclass(frozen=True)
class Fitted:
    """An observation that fits, ready to be appended to its conversation."""

    observation: Observation
    """As the model reads it."""
    images: tuple[Image, ...]
    """The images that it shows, in order."""
    segment: Segment
    """Its tokens."""
    notice: prompts.Notice
    """Content of its note."""


@dataclass
class Fitter:
    """Fits the observations of one episode."""

    context: Context
    """The conversation."""
    style: prompts.Style
    """Style of the notes and of candidates."""
    turn: int
    """Tokens kept free for the model's turn after the observation."""
    language: str = languages.DEFAULT
    """Of the notes and of candidates."""
    _frame: int | None = field(default=None, init=False)

    async def fit(self, observation: Observation, images: Sequence[Image], notice: prompts.Notice) -> Fitted | None:
        """The whole observation if it fits, else the largest part that fits; None if no part fits.

        When no further turn and observation would fit, the note asks the model to answer next. A text that does not fit
        gets half of the room, so that the episode can continue; candidates get as much as leaves room for another turn
        and observation. If that is too little, an observation gets all of the room.

        Args:
            observation: Result of an action.
            images: The images that it shows, in order.
            notice: Further content of the note.
        """
        room = self.context.room() - self.turn
        continued = room - self.turn - 2 * await self._frame_tokens()  # leaves room for another turn and observation
        last = notice if notice.answer_next else dataclasses.replace(notice, answer_next="max_tokens")
        tries = [(last, room)] if notice.answer_next else [(notice, continued), (last, room)]
        if len(observation.text) <= max(0, room) * CHARACTERS_PER_TOKEN:
            for note, limit in tries:
                fitted = await self._encode(observation, images, note)
                if len(fitted.segment.tokens) <= limit:
                    return fitted
        for note, limit in tries:
            if not note.answer_next and not observation.candidates:
                limit = min(limit, room // 2)
            found = await self._truncate(observation, images, dataclasses.replace(note, truncated=True), limit)
            if found is not None:
                return found
        return None

    async def _truncate(
        self, observation: Observation, images: Sequence[Image], notice: prompts.Notice, limit: int
    ) -> Fitted | None:
        """A part of at most `limit` tokens, within a few per cent of the largest; None if no part fits."""
        frame = await self._frame_tokens()
        whole = len(observation.candidates) or len(observation.text)
        size = min(whole - 1, max(0, limit) * CHARACTERS_PER_TOKEN)
        while size > 0 and limit > frame:
            part, shown = self._part(observation, images, size)
            fitted = await self._encode(part, shown, notice)
            tokens = len(fitted.segment.tokens)
            if tokens <= limit:
                return fitted
            size = min(size - 1, int(size * (limit - frame) / max(1, tokens - frame) * SHRINK))
        return None

    def _part(
        self, observation: Observation, images: Sequence[Image], size: int
    ) -> tuple[Observation, Sequence[Image]]:
        """The first `size` candidates of an observation that offers some, else its first `size` characters."""
        if not observation.candidates:
            return _cut(observation, images, size)
        kept = observation.candidates[:size]
        update = {
            "text": prompts.candidates(kept, style=self.style, language=self.language),
            "candidates": kept,
            "images": observation.images[:size],
        }
        return observation.model_copy(update=update), images[:size]

    async def _encode(self, observation: Observation, images: Sequence[Image], notice: prompts.Notice) -> Fitted:
        note = prompts.note(notice, style=self.style, language=self.language)
        segment = await self.context.encode(observation.text, images, note)
        seen = observation.model_copy(update={"note": note, "truncated": notice.truncated})
        return Fitted(seen, tuple(images), segment, notice)

    async def _frame_tokens(self) -> int:
        """Tokens of an empty observation with every note, the minimum of any observation."""
        if self._frame is None:
            note = prompts.note(prompts.LONGEST_NOTICE, style=self.style, language=self.language)
            self._frame = len((await self.context.encode("", (), note)).tokens)
        return self._frame


def _cut(observation: Observation, images: Sequence[Image], size: int) -> tuple[Observation, Sequence[Image]]:
    """The first `size` characters of an observation, with the images that they show; no image is cut in two."""
    text, length = observation.text, len(prompts.IMAGE)
    if images and (start := text.rfind(prompts.IMAGE, 0, size + length - 1)) >= 0 and start + length > size:
        size = start
    shown = images[: text.count(prompts.IMAGE, 0, size)]
    hashes = tuple(image.hash for image in shown)
    results = tuple(
        each if each.thumbnail in hashes else each.model_copy(update={"thumbnail": ""}) for each in observation.results
    )
    return observation.model_copy(update={"text": text[:size], "images": hashes, "results": results}), shown
