"""What a policy is asked to write, and what it wrote. Apart from the model, so that the server's HTTP needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gog.images import Image


@dataclass(frozen=True)
class Prompt:
    """text or token ids, with one image pad per image (ids may also have each pad repeated already)."""

    text: str | tuple[int, ...]
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """temperature 0 takes the most probable token. seed None draws from the system's entropy."""

    max_tokens: int | None = None
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Job:
    """One completion to make; adapter "" is the base model."""

    prompt: Prompt
    sampling: Sampling
    adapter: str = ""


@dataclass
class Completion:
    """tokens with their log-probabilities under the distribution they were drawn from (at temperature 0: of 1).

    text is up to the stop string, which is `stopped_by` where one ended it. finish: stop | length.
    """

    prompt_tokens: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    stopped_by: str = ""
    finish: str = ""


class Model(Protocol):
    """What the server needs of a policy. Called from one thread, except for `render` and `words`."""

    adapters: dict[str, str]
    """Loaded adapters by name."""

    def complete(self, jobs: Sequence[Job]) -> list[Completion | Exception]: ...

    def load_adapter(self, name: str, folder: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Chat messages as a prompt."""
        ...

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Each token as text."""
        ...
