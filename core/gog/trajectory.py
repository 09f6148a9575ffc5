"""The record of an episode.

One object owns everything: token ids, which of them the model wrote, their log-probs, the images they stand for,
and the weight version that sampled them. Text is a view of it. So the trainer never tokenises again, ids and pixels
cannot come apart, and tokens from tools cannot be trained on by accident.

A trajectory is one line of versioned JSONL; its images lie beside it, one file per content hash. Example, two
turns, `p` prompt, `m` model, `o` observation:

    segments   p p p p  m m m m m  o o o o o o  m m m m
    mask       0 0 0 0  1 1 1 1 1  0 0 0 0 0 0  1 1 1 1
    log-probs  . . . .  x x x x x  . . . . . .  x x x x
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gog.errors import UserError

if TYPE_CHECKING:
    from gog.tool_types import ToolFailure

VERSION = 1

StopReason = Literal["answer", "format", "max_turns", "max_calls", "max_tokens", "max_turn_tokens"]
"""Why an episode ended: answered; a turn held no action; or the cap of that name was reached."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Segment(Record):
    """A stretch of tokens from one author. logprobs: one per token of the model's, none otherwise.
    images: content hashes, in the order of their image tokens. version: of the weights that sampled it."""

    source: Literal["prompt", "model", "observation"]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    images: tuple[str, ...] = ()
    version: int = 0


class Failure(Record):
    """A tool that failed: infrastructure's fault, never the model's."""

    tool: str
    kind: str
    message: str = ""

    @classmethod
    def of(cls, failure: ToolFailure | None) -> Failure | None:
        """The record of a call's failure, its message cut to 200 characters; None for None."""
        if failure is None:
            return None
        return cls(tool=failure.tool, kind=failure.kind, message=failure.message[:200])


class Candidate(Record):
    """A thing offered to the policy. number counts from 1; box in pixels of the image; crop: content hash."""

    number: int
    box: tuple[float, float, float, float]
    score: float
    label: str = ""
    crop: str = ""


class Result(Record):
    """One search result as it was shown."""

    title: str
    url: str = ""
    text: str = ""


class Observation(Record):
    """What came back after an action. text is the body as the policy read it; calls: tool calls made, if `tool` is set."""

    text: str
    note: str = ""
    """What the episode added after the information: a truncation, a cap that is close."""
    truncated: bool = False
    """Whether a part of the result was left out because the conversation had no room for it."""
    tool: str = ""
    images: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    results: tuple[Result, ...] = ()
    failures: tuple[Failure, ...] = ()
    calls: int = 1
    seconds: float = 0.0
    attempts: int = 0
    cached: bool = False


class Turn(Record):
    """One model turn and what followed. action: glance, ground, gaze, text, answer or none."""

    text: str
    action: Literal["glance", "ground", "gaze", "text", "answer", "none"]
    argument: str = ""
    selected: tuple[int, ...] = ()
    """Numbers of the candidates searched, in order; in an arm that searches the best one unseen, that one."""
    reasoning: str | None = None
    well_formed: bool = True
    error: str = ""
    seconds: float = 0.0
    observation: Observation | None = None


class Reward(Record):
    """Parts of the reward; accuracy None when the judge could not decide."""

    accuracy: float | None
    format: float
    total: float | None


class Trajectory(Record):
    """An episode's record. group: index of the group, sample: which of its members."""

    version: Literal[1] = 1
    id: str
    question_id: str
    question: str
    answers: tuple[str, ...]
    image: str
    gaze: Literal["select", "direct", "off"] = "select"
    """How expressions were searched in its arm."""
    kind: str = ""
    region: tuple[float, float, float, float] | None = None
    policy: str = ""
    step: int = 0
    sample: int = 0
    turns: tuple[Turn, ...]
    segments: tuple[Segment, ...] = ()
    stop: StopReason
    answer: str | None = None
    failures: tuple[Failure, ...] = ()
    judge_failure: Failure | None = Field(None, description="Why the judge gave no verdict; None when it did.")
    reward: Reward | None = None
    level: str = ""
    advantage: float | None = None
    excluded: str = Field(
        "", description="Why it counts neither in the loss nor in its group's statistics; empty: it counts."
    )
    seconds: float = 0.0

    @property
    def well_formed(self) -> bool:
        """Every turn well formed and the last one an answer."""
        return self.stop == "answer" and all(turn.well_formed for turn in self.turns)

    @property
    def tool_calls(self) -> int:
        return sum(turn.observation.calls for turn in self.turns if turn.observation and turn.observation.tool)

    def tokens(self) -> list[int]:
        return [token for segment in self.segments for token in segment.tokens]

    def mask(self) -> list[int]:
        """1 for each token that the model wrote, else 0; same length as tokens()."""
        return [int(segment.source == "model") for segment in self.segments for _ in segment.tokens]

    def model_logprobs(self) -> list[float]:
        """Log-prob of each token that the model wrote, in order."""
        return [value for segment in self.segments if segment.source == "model" for value in segment.logprobs]

    def images(self) -> list[str]:
        """Content hashes in the order of their image tokens."""
        return [image for segment in self.segments for image in segment.images]


def write(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Trajectories as JSON lines, all or nothing; returns how many."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("w", encoding="utf-8") as stream:
        for trajectory in trajectories:
            stream.write(trajectory.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    temporary.replace(path)
    return count


def read(path: Path) -> Iterator[Trajectory]:
    """Trajectories of a JSONL file. Raises UserError naming the line that is torn or of an unknown version."""
    try:
        stream = path.open(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read trajectories: {error.strerror}", where=str(path)) from None
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                yield Trajectory.model_validate_json(line)
            except ValidationError as error:
                raise UserError(explain(error), where=f"{path}:{number}", remedy="remove the line") from None


def explain(error: ValidationError) -> str:
    """What is wrong with a line, in a few words."""
    first: Any = error.errors()[0]
    return f"not a trajectory of version {VERSION}: {'.'.join(map(str, first['loc']))} {first['msg']}"
