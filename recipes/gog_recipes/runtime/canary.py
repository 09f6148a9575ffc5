"""A canary of every step: does the policy that sampled see its adapter and its images?

A policy that has lost either still samples, is rewarded and learns, and nothing else of a run shows it. So before every
update a few tokens of a few trajectories are read again by the trainer, with everything and with one part missing, and
compared with what the engine recorded (canary_verdict). Before the first step the same is done for turns that are sampled
for this purpose.

It reads beginnings only: prompt, first turns, at most some dozens of learned tokens each. A step in which nothing is
suspect costs three passes over one beginning of each rank; only a suspicion is worth reading more of them, with the weights
before the last update, and without the adapter that is trained. The step's other tokens are compared with the engine by the
update itself (logprob_gap). All ranks take part, each with its own trajectories, because the layers may be sharded.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from gog.errors import UserError
from gog.trajectory import Segment
from gog_recipes.models import lora, packing, policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import canary_verdict, checkpoint, logprob_gap, parallel
from gog_recipes.runtime.canary_verdict import ADAPTER, IMAGES, TRAINED, UPDATE, Reading, Variant
from gog_recipes.runtime.ranks import Ranks

TRAJECTORIES = 4
"""Trajectories of a step that are read after a suspicion, over all ranks; at least one of each rank."""
TOKENS = 32
"""Learned tokens of each, at most."""


@dataclass(frozen=True)
class Conversation:
    """What an engine sampled."""

    id: str
    """For messages."""
    segments: Sequence[Segment]
    """Its tokens with the engine's log-probabilities."""

    @property
    def version(self) -> int:
        """Version of the weights that sampled its first turn; -1 without one, and where this attempt has no such weights."""
        first = next((each for each in self.segments if each.source == "model"), None)
        return -1 if first is None or first.weights else first.version


@dataclass(frozen=True)
class CanaryStats:
    """Figures of a check, over all ranks; nats per token."""

    canary_engine: float | None = None
    """Mean |engine - trainer|; None where nothing could be read."""
    canary_adapter: float | None = None
    """Mean difference that all adapters make."""
    canary_images: float | None = None
    """Mean difference that image features make; None where no trajectory shows an image."""
    canary_seconds: float = 0.0
    """Time of the check."""


class Canary:
    """Compares what the engine sampled with the trainer.

    Args:
        model: the policy with the adapter that is trained
        processor: of the base model
        vision: features of the images that trajectories show
        saved: adapters beneath the trained one, as PEFT saves them
        ranks: that share the model
        temperature: of sampling
        bound: `max_logprob_gap`; None takes the default of the model's type
        staleness: versions between the weights that sampled a turn and those that are about to be trained, at most. The
            trained adapters of so many versions are kept, because tokens are compared with the weights that sampled them
    """

    def __init__(
        self,
        model: PeftModel,
        processor: Processor,
        vision: Vision,
        saved: Sequence[Path],
        ranks: Ranks,
        *,
        temperature: float,
        bound: float | None,
        staleness: int = 0,
    ) -> None:
        self.model, self.processor, self.vision, self.ranks = model, processor, vision, ranks
        first = next(model.parameters())
        self.device, self.temperature = policy_model.device_of(model), temperature
        self.bound = bound or logprob_gap.BOUNDS[first.dtype]
        self.rounding = canary_verdict.ROUNDING[str(first.dtype).removeprefix("torch.")]
        self.removal = lora.Removal(model, saved)
        self.staleness = staleness
        self._earlier: dict[int, dict[str, torch.Tensor]] = {}

    def check(self, own: Sequence[Conversation], *, version: int, where: str) -> CanaryStats:
        """Checks some of this rank's conversations. All ranks at once, before the weights change.

        Args:
            own: of this rank
            version: of the trainer's weights
            where: for messages, such as `step 3`

        Raises:
            UserError: the policy does not see its adapter or its images, or the engine samples from another policy.
        """
        begun = time.monotonic()
        self._check_versions(own, version, where)
        usable = [each for each in own if each.version == version or each.version in self._earlier]
        sampled_by = self._version(usable, version)
        same = [each for each in usable if each.version == sampled_by]
        chosen = _beginnings(same, max(1, -(-TRAJECTORIES // self.ranks.size)), version)
        trained = checkpoint.trainable(self.model)
        with _swapped(trained, self._earlier[sampled_by]) if sampled_by != version else contextlib.nullcontext():
            readings = self._read(chosen[:1])
            if canary_verdict.is_suspect(readings, self.bound, self.rounding):
                readings = self._read(chosen, self._before(sampled_by), closely=True)
        self._earlier[version] = {name: each.detach().clone() for name, each in trained.items()}
        for each in [each for each in self._earlier if each <= version - max(1, self.staleness)]:
            del self._earlier[each]
        verdict = canary_verdict.decide(readings, self.bound, self.rounding)
        if verdict is not None:
            raise UserError(f"{where}: {verdict.what}", where="policy", remedy=verdict.remedy)
        if not readings:
            return CanaryStats(canary_seconds=time.monotonic() - begun)
        return CanaryStats(
            canary_verdict.engine_gap(readings),
            canary_verdict.effect(readings, ADAPTER),
            canary_verdict.effect(readings, IMAGES),
            time.monotonic() - begun,
        )

    def _check_versions(self, own: Sequence[Conversation], version: int, where: str) -> None:
        """Every token must have been sampled from the weights that are about to be trained, or from allowed earlier ones."""
        others = [
            (each.id, segment.version)
            for each in own
            for segment in each.segments
            if segment.source == "model" and not version - self.staleness <= segment.version <= version
        ]
        found = [pair for part in self.ranks.gather(others[:1]) for pair in part]
        if found:
            name, other = found[0]
            raise UserError(
                f"{where}: the engine sampled {name} from version {other} of the weights, the trainer has {version}",
                where="engine",
                remedy=canary_verdict.REMEDIES[UPDATE],
            )

    def _version(self, usable: Sequence[Conversation], version: int) -> int:
        """The version of the weights whose conversations are read: that of one rank's, another one in each step. All ranks
        at once, because layers may be sharded, so that all ranks must compute with the same weights."""
        own = usable[version % len(usable)].version if usable else None
        return next((each for each in self.ranks.gather(own) if each is not None), version)

    def _before(self, version: int) -> dict[str, torch.Tensor] | None:
        """The newest kept weights before those of a version, else the newest ones."""
        kept = [each for each in self._earlier if each < version] or list(self._earlier)
        return self._earlier[max(kept)] if kept else None

    def _read(
        self,
        own: Sequence[Conversation],
        before: Mapping[str, torch.Tensor] | None = None,
        *,
        closely: bool = False,
    ) -> list[Reading]:
        """Reads conversations with the policy and its variants. All ranks at once, in the same passes.

        Args:
            own: of this rank
            before: trained parameters before the update that made those that sampled; None not to read with them
            closely: whether to read without the adapter that is trained, too

        Returns:
            Of all ranks.
        """
        return [each for part in self.ranks.gather(self._read_own(own, before, closely)) for each in part]

    def _read_own(
        self, chosen: Sequence[Conversation], before: Mapping[str, torch.Tensor] | None, closely: bool
    ) -> list[Reading]:
        rows = [each.segments for each in chosen] or [packing.idle(self.processor.turn_end)]
        batch = policy_model.collate(rows, self.processor, self.vision, self.device)
        features = policy_model.features(batch, self.vision)
        lengths = [packing.learned(row) for row in rows]
        policy = self._logprobs(batch, features).split(lengths)
        variants = {IMAGES: self._logprobs(batch, None).split(lengths)}
        is_trained = self._is_trained()
        if is_trained or self.removal.changes:
            with self.removal.removed():
                variants[ADAPTER] = self._logprobs(batch, features).split(lengths)
        if closely and is_trained:
            with lora.reference(self.model):
                variants[TRAINED] = self._logprobs(batch, features).split(lengths)
        if before is not None:
            with _swapped(checkpoint.trainable(self.model), before):
                variants[UPDATE] = self._logprobs(batch, features).split(lengths)
        return [_reading(each, policy[n], {k: v[n] for k, v in variants.items()}) for n, each in enumerate(chosen)]

    @torch.no_grad()
    def _logprobs(self, batch: policy_model.Batch, features: torch.Tensor | None) -> torch.Tensor:
        suppressed, temperature = self.processor.suppress_tokens, self.temperature
        return policy_model.token_logprobs(
            self.model, batch, features, suppressed=suppressed, temperature=temperature
        ).cpu()

    def _is_trained(self) -> bool:
        """Whether the adapter that is trained changes anything; a fresh one does not. Alike on all ranks."""
        ups = [parallel.own(each) for name, each in checkpoint.trainable(self.model).items() if ".lora_B." in name]
        return any(self.ranks.gather(any(bool(each.any()) for each in ups)))


def _beginnings(own: Sequence[Conversation], count: int, turn: int) -> list[Conversation]:
    """The beginnings of some conversations, spread evenly; others with each turn."""
    usable = [each for each in own if any(segment.logprobs for segment in each.segments)]
    count = min(count, len(usable))
    places = [(place * len(usable) // count + turn) % len(usable) for place in range(count)]
    return [Conversation(usable[place].id, _beginning(usable[place].segments)) for place in places]


def _beginning(segments: Sequence[Segment]) -> list[Segment]:
    """Segments up to the last of the first TOKENS learned tokens, and to the last turn of the first one's version."""
    found, left = [], TOKENS
    version = Conversation("", segments).version
    for segment in segments:
        if left <= 0 or (segment.source == "model" and (segment.version != version or segment.weights)):
            break
        if segment.source == "model":
            if len(segment.tokens) > left:
                segment = segment.model_copy(
                    update={"tokens": segment.tokens[:left], "logprobs": segment.logprobs[:left], "overrun": False}
                )
            left -= len(segment.tokens)
        found.append(segment)
    while found and found[-1].source != "model":
        found.pop()
    return found


def _reading(conversation: Conversation, policy: torch.Tensor, variants: Mapping[str, torch.Tensor]) -> Reading:
    """The means of a conversation. policy and variants: [k] log-probabilities of its learned tokens."""
    recorded = torch.tensor(
        [
            value
            for segment in conversation.segments
            for value, learned in zip(segment.logprobs, segment.loss_mask(), strict=False)
            if learned
        ]
    )
    shows = any(segment.images for segment in conversation.segments)
    return Reading(
        conversation.id,
        len(recorded),
        float((recorded - policy).abs().mean()),
        {
            name: Variant(float((policy - each).abs().mean()), float((recorded - each).abs().mean()))
            for name, each in variants.items()
            if name != IMAGES or shows
        },
    )


@contextlib.contextmanager
def _swapped(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Other values for some parameters; the present ones are restored bit for bit."""
    present = {name: each.detach().clone() for name, each in parameters.items()}
    try:
        _copy(parameters, values)
        yield
    finally:
        _copy(parameters, present)


@torch.no_grad()
def _copy(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    for name, each in parameters.items():
        each.copy_(values[name])
