"""The engine protocol: what plays a rollout needs of whatever samples its conversations.

An engine turns sessions' requests for a next turn into sampled tokens. It may compute in this process, or ask servers
elsewhere; the rollout does not know which. Tokens go in and tokens come out: a session owns the token ids, images and
log-probs of its conversation, and the weight version that sampled each turn, so nothing is tokenized twice.

Rules for an engine
    - samples belong to their conversation: equal prompt, seed and observations give equal tokens, whatever else is under
      way and however long a tool takes, so that a repeated rollout repeats itself. (A server that batches in another
      order may break this in the last bits; it must not break it on purpose.)
    - the n-th token that a conversation samples uses the n-th draw of its seed's generator, so a conversation that is
      resumed skips as many draws as it has sampled tokens
    - tokens of control (padding, images, ends of documents) are never sampled, nor is a token of probability 0
    - its calls are made from one event loop; it must not block that loop for longer than its own computing takes
    - a fault raises in every session that waits, instead of leaving it waiting

To add an engine: implement `Engine`, then name its factory as `module:factory` in the manifest (`stages.*.engine`), or
give it a row in the recipes' table (`gog_recipes.rollout.engine`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gog import prompts
from gog.agent import Session
from gog.images import Image
from gog.trajectory import Segment

Seed = tuple[int, ...]
"""Numbers that decide a conversation's sampling noise, each 0 or more: of the run, the step, the question, the sample."""


@dataclass(frozen=True)
class Limits:
    """How far a conversation may go, and how it is sampled."""

    tokens: int
    """Tokens of a conversation: prompt, turns and observations."""
    turn_tokens: int
    """Tokens of a turn."""
    temperature: float
    """Sampling temperature; 0 takes the most probable token."""


@dataclass(frozen=True)
class Counters:
    """Work of an engine."""

    generated: int = 0
    """Tokens sampled."""
    prefilled: int = 0
    """Tokens of prompts and observations that were read."""
    unique: int = 0
    """Tokens of prompts and observations that had to be read: a prompt once per group, an observation once."""
    steps: int = 0
    """Forward passes, or requests."""

    @classmethod
    def total(cls, several: Iterable[Counters]) -> Counters:
        """The sum of several, field by field."""
        return cls(*map(sum, zip(*(vars(each).values() for each in several), strict=True)))


class Engine(Protocol):
    """Samples the turns of many conversations at once."""

    style: prompts.Style
    """Style in which its model reads prompts and observations."""
    capacity: int
    """Conversations that may be open at once."""

    def prefetch(self, images: Sequence[Image]) -> None:
        """Takes note of images that prompts will soon show, so that they can be prepared together. A hint."""
        ...

    async def open(
        self,
        prompt: str,
        images: Sequence[Image],
        seeds: Sequence[Seed],
        *,
        suppress: Sequence[str] = (),
        resume: Sequence[Sequence[Segment]] | None = None,
    ) -> Sequence[Session]:
        """Opens a group: one conversation per seed, all with the same prompt, which is read once.

        Args:
            prompt: rendered text (`prompts.prompt`) with one image placeholder per image.
            images: the images of the prompt, in order; with `resume`, followed by those that its observations show.
            seeds: the sampling noise of each conversation.
            suppress: texts that must not be sampled, where the tokenizer has a token for them.
            resume: for each seed what `segments()` of an earlier session returned, or nothing for a conversation that
                starts. It continues as if it had never been interrupted, and samples from the present weights.

        Returns:
            Sessions in the order of the seeds. Each must be closed, which frees its place; closing it again does nothing.

        Raises:
            QuestionSkipped: the prompt leaves no room for a turn, or an image cannot be used.
            ValueError: segments to resume do not begin with this prompt, exceed the limit of a conversation, or show an
                image that is not given.
        """
        ...

    @property
    def busy(self) -> bool:
        """Whether a turn waits for this process to compute. A trainer in the same process then yields between its passes."""
        ...

    async def hold(self) -> None:
        """Returns when no turn is being sampled from tensors of the trainer, which may change then. `switch` follows.

        A turn under way ends on the weights that it began with. Turns that are asked for meanwhile begin after `switch`.
        """
        ...

    async def switch(self, weights: Any, version: int) -> None:
        """Samples from new weights from now on, also in conversations that are open. All ranks at once.

        A turn is sampled from one version. What an open conversation holds of an earlier version is computed again, so
        that its next turn is that of a conversation which is resumed with the new weights.

        Args:
            weights: the trainer's model. What is taken from it, and how it travels, is up to the engine.
            version: recorded with every turn that they sample.
        """
        ...

    async def rest(self) -> None:
        """Frees or offloads what it can; no conversation may be open. All ranks at once.

        Called before an update, which needs the memory of caches, workspaces and gathered weights. `switch` follows
        before the next conversation opens.
        """
        ...

    def take_counters(self) -> Counters:
        """Work done since the last call."""
        ...

    async def close(self) -> None:
        """Frees what the engine holds; no conversation may be open."""
        ...
