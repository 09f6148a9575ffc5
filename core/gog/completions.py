"""Completion requests and results, between a policy server and the model behind it.

Kept apart from the model, so that the server needs no torch, and from the server, so that the model needs no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gog.images import Image


@dataclass(frozen=True)
class Prompt:
    """What a completion follows."""

    text: str | tuple[int, ...]
    """Text or token ids, with one image placeholder per image; in ids each may be repeated per image token already."""
    images: tuple[Image, ...] = ()
    """Images in the order of their placeholders."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, and when to stop."""

    max_tokens: int | None = None
    """Most tokens to generate; None: as many as the context has room for."""
    temperature: float = 1.0
    """0 takes the most probable token."""
    stop: tuple[str, ...] = ()
    """Strings that end the completion; none is part of its text."""
    seed: int | None = None
    """Seed of the draws; None uses the system's entropy."""


@dataclass(frozen=True)
class Job:
    """One completion to make."""

    prompt: Prompt
    """What it follows."""
    sampling: Sampling
    """How its tokens are drawn."""
    adapter: str = ""
    """Name of a loaded adapter; empty: the base model."""


@dataclass
class Completion:
    """A completion, filled in while it is generated."""

    prompt_tokens: tuple[int, ...]
    """Token ids of the prompt, each placeholder repeated per image token."""
    tokens: list[int] = field(default_factory=list)
    """Generated token ids, a stop string's included."""
    logprobs: list[float] = field(default_factory=list)
    """Log-probability of each token under the distribution it was drawn from; at temperature 0, that of 1."""
    text: str = ""
    """The generated text, up to the stop string."""
    stopped_by: str = ""
    """The stop string that ended it; empty: none did."""
    finish: str = ""
    """`stop` or `length`; empty while it is being generated."""


@runtime_checkable
class Model(Protocol):
    """What the server needs of a policy model. Called from one thread, except for `render` and `words`."""

    adapters: dict[str, str]
    """Loaded adapters by name."""

    def complete(self, jobs: Sequence[Job]) -> list[Completion | Exception]:
        """A completion, or the UserError that forbids it, for each job, in order."""
        ...

    def load_adapter(self, name: str, folder: Path) -> None:
        """Loads a PEFT folder under a new name. Raises UserError, and leaves the model as it was."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Drops an adapter; without effect when none has this name."""
        ...

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Chat messages as a prompt. Raises UserError for messages that the model's chat template refuses."""
        ...

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Each token as text."""
        ...
