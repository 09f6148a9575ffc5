"""The record of an episode.

One object owns everything: token ids, which of them the model wrote, their log-probabilities, the images they stand for
and the version of the weights that sampled them. Text is a view of it. So the trainer never tokenizes again, ids and
pixels cannot diverge, and tokens from tools cannot be trained on by accident.

A trajectory is one line of versioned JSONL; its images are beside it, one file per content hash. Example, two turns,
`p` prompt, `m` model, `o` observation:

    segments   p p p p  m m m m m  o o o o o o  m m m m
    mask       0 0 0 0  1 1 1 1 1  0 0 0 0 0 0  1 1 1 1
    log-probs  . . . .  x x x x x  . . . . . .  x x x x
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gog import actions, finite_json, validation
from gog.errors import UserError

VERSION = 1

if TYPE_CHECKING:
    ActionName = str
else:
    ActionName = Literal[(*actions.NAMES, "call", "none")]

StopReason = Literal["answer", "format", "max_turns", "max_calls", "max_tokens", "max_turn_tokens"]
"""Why an episode ended: it answered, a turn held no action, or it reached the cap of that name."""


class Record(BaseModel):
    """Part of a trajectory: immutable, without unknown fields, with finite numbers only, which JSON can hold."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
        use_attribute_docstrings=True,
    )


class Segment(Record):
    """Consecutive tokens from one source."""

    source: Literal["prompt", "model", "observation"]
    """Who wrote them."""
    tokens: tuple[int, ...]
    """Token ids."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each token under the distribution that it was sampled from; empty unless the model wrote them."""
    images: tuple[str, ...] = ()
    """Content hashes of the images among the tokens, in order."""
    version: int = 0
    """Version of the weights that sampled the tokens."""
    weights: str = ""
    """Digest of these weights, in the journal of a play that may meet several versions. In a trajectory: only where an earlier
    attempt sampled the tokens and this one did not have the same weights under their version; else empty."""
    overrun: bool = False
    """Whether the last token completes the closing tag and holds more text behind it; such a token is not learned."""
    masked: bool = False
    """Whether nothing of it is learned, although the model wrote it, because of a tool failure (gog.failure_rules)."""

    def loss_mask(self) -> list[bool]:
        """Whether each token is learned: what the model wrote, unless it is masked, and except a last token that runs past
        the closing tag."""
        learned = self.source == "model" and not self.masked
        return [learned] * (len(self.tokens) - self.overrun) + [False] * self.overrun


class Failure(Record):
    """A tool call that failed: the infrastructure's fault, not the model's."""

    tool: str
    """Name of the tool."""
    kind: str
    """Kind of failure, a `gog.tool_types.FailureKind` or `too_long`."""
    message: str = ""
    """The cause, as the tool or the network reported it."""


class Candidate(Record):
    """A part of an image that grounding proposed and the model may select."""

    number: int
    """By which the model selects it: best score first, after the numbers of images that were shown before."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the image that it is a part of, ends exclusive."""
    image: str = ""
    """Content hash of that image, where it is one that a search returned; empty: the question's image."""
    within: int = 0
    """Number of the candidate or returned image inside which it was found; 0: the whole of the question's image."""
    score: float
    """The detector's confidence."""
    label: str = ""
    """The detector's name for it."""
    crop: str = ""
    """Content hash of its pixels."""


class Result(Record):
    """One search result."""

    title: str
    """Title of the page or image, at most 200 characters."""
    url: str = ""
    """Its address, at most 500 characters."""
    text: str = ""
    """Text of the page, at most 2,000 characters; empty for an image."""
    thumbnail: str = ""
    """Content hash of its thumbnail, where the model was shown it; empty elsewhere."""


class Observation(Record):
    """What came back after an action."""

    text: str
    """The body as the model read it."""
    note: str = ""
    """What the episode added after the body: a truncation, a cap that is close."""
    truncated: bool = False
    """Whether a part of the result was left out because the conversation had no room for it."""
    tool: str = ""
    """Name of the tool that was called last; empty if none was."""
    images: tuple[str, ...] = ()
    """Content hashes of the images shown, in order."""
    candidates: tuple[Candidate, ...] = ()
    """The candidates offered."""
    results: tuple[Result, ...] = ()
    """The search results, all searches of the action together."""
    failures: tuple[Failure, ...] = ()
    """The calls that failed after all retries."""
    calls: int = 1
    """Tool calls made; counts only if `tool` is set."""
    seconds: float = 0.0
    """Time that the calls took."""
    attempts: int = 0
    """Requests sent, retries included."""
    cached: bool = False
    """Whether every call was answered from the cache."""
    decisions: tuple[str, ...] = ()
    """What the call path decided during the calls, each a `gog.tool_types.Decision`."""
    waited: float = 0.0
    """Seconds for which rate limits held the calls; part of `seconds`."""
    usd: float = 0.0
    """Cost of the calls in US dollars, as their back ends reported it."""
    pages_read: int = 0
    """Pages that a text search has read, where its back end reads them and reports it."""
    pages_failed: int = 0
    """Pages that it could not read."""


class Turn(Record):
    """One model turn and what followed it."""

    text: str
    """What the model wrote."""
    action: ActionName
    """The action it holds; none if it holds none that can be carried out, call if it calls a tool of another project."""
    argument: str = ""
    """The expression, query or answer."""
    within: int = 0
    """Number of the shown image in which an expression was looked for; 0: the question's image."""
    selected: tuple[int, ...] = ()
    """Numbers of the candidates selected, in order; in an arm that searches the best one unseen, its number."""
    reasoning: str | None = None
    """The reasoning without its tags; None if there is none."""
    well_formed: bool = True
    """Whether it counts for the format reward."""
    error: str = ""
    """Why it is not well formed."""
    seconds: float = 0.0
    """Time that generation took, waiting for the engine included."""
    observation: Observation | None = None
    """What came back; None after the last turn."""


class Reward(Record):
    """The reward of a trajectory and its parts."""

    accuracy: float | None
    """The judge's verdict, 0 or 1; None without a verdict."""
    format: float
    """1 if every turn is well formed and the last one is an answer, else 0."""
    cost: float = 0.0
    """What the total lost because of searches, calls and generated tokens."""
    overlong: float = 0.0
    """What the total lost because the trajectory is nearly as long as it may be."""
    total: float | None
    """(1 - λ) · accuracy + λ · format, with what costs and length take from it; None without a verdict."""

    @property
    def earned(self) -> float | None:
        """The total before costs and length, to 9 digits; None without a verdict."""
        return None if self.total is None else self.total + self.cost + self.overlong


class Trajectory(Record):
    """The record of one episode."""

    version: Literal[1] = 1
    """Version of this format."""
    id: str
    """Unique within a run: policy, step, question and sample."""
    question_id: str
    """Id of the question in the dataset."""
    question: str
    """The question."""
    answers: tuple[str, ...]
    """The gold answer first, then accepted alternatives."""
    image: str
    """Content hash of the question's image."""
    gaze: Literal["select", "direct", "off"] = "select"
    """How expressions were searched in its arm."""
    kind: str = ""
    """The question's type in the dataset."""
    region: tuple[float, float, float, float] | None = None
    """Box x0, y0, x1, y1 of what the question is about, in pixels of the image, if the dataset marks it."""
    policy: str = ""
    """Name of the policy that played it."""
    step: int = 0
    """Training step in which it was played."""
    sample: int = 0
    """Its number among the samples of the question, from 0."""
    turns: tuple[Turn, ...]
    """The turns, in order; at least one."""
    segments: tuple[Segment, ...] = ()
    """The tokens, in order; empty for a demonstration, which is text until it is tokenized for training."""
    stop: StopReason
    """Why it ended."""
    answer: str | None = None
    """The final answer; None if it ended without one."""
    failures: tuple[Failure, ...] = ()
    """All failures of its observations, in order."""
    judge_failure: Failure | None = None
    """Why the judge gave no verdict; None if it did."""
    judge_decisions: tuple[str, ...] = ()
    """What the call path decided while it called the judge, each a `gog.tool_types.Decision`."""
    judge_usd: float = 0.0
    """Cost of the verdict in US dollars, as the judge's server reported it."""
    reward: Reward | None = None
    """The reward; None before it is judged."""
    level: str = ""
    """Difficulty of the question, if it is known: easy, 1 or 2."""
    advantage: float | None = None
    """Advantage within its group, times `weight`; None if it is excluded or was not trained on."""
    weight: float = 1.0
    """For how many trajectories it counts: more than 1 where it stands for excluded ones (gog.survivors)."""
    excluded: str = ""
    """Why it counts neither in the loss nor in its group's statistics; empty if it counts."""
    treatment: str = ""
    """What its tool failures changed of how it is learned, although it counts; empty if nothing."""
    seconds: float = 0.0
    """Wall-clock time of the episode."""
    generated: int = 0
    """Tokens that the model wrote, learned or not; 0 for a demonstration."""

    @property
    def well_formed(self) -> bool:
        """Whether every turn is well formed and the last one is an answer."""
        return self.stop == "answer" and all(turn.well_formed for turn in self.turns)

    @property
    def tool_calls(self) -> int:
        """Tool calls made, all turns together."""
        return sum(turn.observation.calls for turn in self.turns if turn.observation and turn.observation.tool)

    @property
    def usd(self) -> float:
        """Cost of its calls and of its verdict in US dollars."""
        return self.judge_usd + sum(turn.observation.usd for turn in self.turns if turn.observation)

    def tokens(self) -> list[int]:
        """All token ids, in order."""
        return [token for segment in self.segments for token in segment.tokens]

    def mask(self) -> list[int]:
        """1 for each token that is learned, else 0; as long as `tokens()`."""
        return [int(learned) for segment in self.segments for learned in segment.loss_mask()]

    def model_logprobs(self) -> list[float]:
        """Log-probability of each token that is learned, in order."""
        return [
            value
            for segment in self.segments
            for value, learned in zip(segment.logprobs, segment.loss_mask(), strict=False)
            if learned
        ]

    def sampled_by(self, version: int) -> list[bool]:
        """Of each token that is learned, in order: whether this version of the weights sampled it, as this attempt had it."""
        return [
            segment.version == version and not segment.weights
            for segment in self.segments
            for learned in segment.loss_mask()
            if learned
        ]

    def attributed(self, weights: Mapping[int, str]) -> Trajectory:
        """The trajectory without the digests of turns that weights of this attempt sampled.

        Args:
            weights: digest of this attempt's weights, by version.
        """
        if not any(segment.weights for segment in self.segments):
            return self
        own = (
            segment.model_copy(update={"weights": ""}) if segment.weights == weights.get(segment.version) else segment
            for segment in self.segments
        )
        return self.model_copy(update={"segments": tuple(own)})

    def images(self) -> list[str]:
        """Content hashes in the order of their image tokens."""
        return [image for segment in self.segments for image in segment.images]


def outline(trajectory: Trajectory) -> Trajectory:
    """A trajectory without its tokens and texts: what its figures need, in some hundred bytes a turn.

    Rewards, failures, actions and candidates remain, so rewards, exclusions, statistics and tables are the same as those
    of the whole trajectory.
    """
    turns = tuple(
        turn.model_copy(update={"text": "", "reasoning": None, "argument": "", "observation": _bare(turn.observation)})
        for turn in trajectory.turns
    )
    return trajectory.model_copy(update={"turns": turns, "segments": ()})


def _bare(observation: Observation | None) -> Observation | None:
    """An observation without what was shown."""
    if observation is None:
        return None
    candidates = tuple(each.model_copy(update={"label": "", "crop": ""}) for each in observation.candidates)
    return observation.model_copy(
        update={"text": "", "note": "", "images": (), "candidates": candidates, "results": ()}
    )


def write(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Writes trajectories as JSON lines; the file appears whole or not at all. Returns how many were written."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("w", encoding="utf-8") as stream:
        for trajectory in trajectories:
            stream.write(finite_json.dumps_model(trajectory, exclude_defaults=True) + "\n")
            count += 1
    temporary.replace(path)
    return count


def read(path: Path) -> Iterator[Trajectory]:
    """The trajectories of a JSONL file, in order.

    Raises:
        UserError: the file cannot be read, or a line is damaged or of another version; names file and line.
    """
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
    """Why a line is not a trajectory, in a few words."""
    return f"not a trajectory of version {VERSION}: {validation.first_sentence(error)}"
