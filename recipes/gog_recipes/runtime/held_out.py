"""Evaluation of SFT on held-out demonstrations: loss and token accuracy, and the best adapter so far.

Every checkpoint carries the best adapter so far besides its own. So it survives resumption and the deletion of older
checkpoints, and costs nothing while it does not change, because files are stored by content.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gog.errors import UserError
from gog.trajectory import Segment
from gog_recipes.models import packing, policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import checkpoint, parallel
from gog_recipes.runtime.ranks import Ranks
from gog_recipes.runtime.stage import Stage

BEST = "best_adapter.safetensors"
"""File of a checkpoint: the adapter with the lowest loss so far."""


def split(questions: Sequence[str], share: float, seed: int) -> set[str]:
    """The questions whose demonstrations are held out. Pure.

    Args:
        questions: of each demonstration, in any order; demonstrations of the same question stay together
        share: of the questions; above 0 at least one is held out if there are two or more
        seed: decides which
    """
    distinct = sorted(set(questions))
    count = max(1, round(share * len(distinct))) if share and len(distinct) > 1 else 0
    return set(random.Random(f"held-out:{seed}").sample(distinct, count))


@dataclass(frozen=True)
class Scores:
    """How well held-out demonstrations are predicted."""

    loss: float
    """Mean cross entropy of their learned tokens, in nats."""
    accuracy: float
    """Share of those tokens that are the most probable one."""


@dataclass
class Evaluator:
    """Scores held-out demonstrations. All ranks at once; each reads its share."""

    rows: Sequence[Sequence[Segment]]
    """The demonstrations, alike on all ranks."""
    ids: Sequence[str]
    """Of the demonstrations, for messages."""
    processor: Processor
    """Of the base model."""
    vision: Vision
    """Features of their images."""
    ranks: Ranks
    """That share the model."""
    budget: int
    """Tokens of a pass."""

    def scores(self, model: torch.nn.Module) -> Scores:
        """Loss and token accuracy of the present weights, without dropout; changes no random state.

        Raises:
            UserError: a log-probability is not finite; names the demonstrations.
        """
        device = policy_model.device_of(model)
        own = self.ranks.shard(range(len(self.rows)))
        passes = packing.passes([self.rows[index] for index in own], self.budget)
        loss, right, tokens, suspects = 0.0, 0, 0, list[str]()
        training = model.training
        model.eval()
        with torch.no_grad():
            for members in parallel.even(passes, self.ranks):
                chosen = [own[place] for place in members]
                rows = [self.rows[index] for index in chosen] or [packing.idle(self.processor.turn_end)]
                batch = policy_model.collate(rows, self.processor, self.vision, device)
                logp, top = policy_model.token_scores(model, batch, policy_model.features(batch, self.vision))
                if chosen:
                    parts = zip(chosen, logp.split([packing.learned(row) for row in rows]), strict=True)
                    suspects += [self.ids[index] for index, part in parts if not bool(part.isfinite().all())]
                    loss, right, tokens = loss - float(logp.sum()), right + int(top.sum()), tokens + len(logp)
        model.train(training)
        self._require_finite(suspects)
        read = self.ranks.all_reduce_sum(tokens)
        return Scores(self.ranks.all_reduce_sum(loss) / read, self.ranks.all_reduce_sum(right) / read)

    def _require_finite(self, suspects: Sequence[str]) -> None:
        found = [name for own in self.ranks.gather(list(suspects)) for name in own]
        if found:
            raise UserError(
                f"log-probabilities of held-out demonstration {', '.join(found[:3])} are not finite",
                where="evaluation",
                remedy="check its images, and lower learning_rate if training has diverged",
            )


class Best:
    """The best adapter so far.

    Args:
        stage: whose newest checkpoint may hold one

    Attributes:
        loss: its loss on held-out demonstrations; infinite without one
        step: after which it was evaluated; 0 without one
    """

    def __init__(self, stage: Stage) -> None:
        self.path = stage.workdir / BEST
        manifest = stage.ranks.broadcast(stage.store.latest(stage.key))
        self.loss, self.step = math.inf, 0
        if manifest is not None and BEST in manifest.files:
            self.loss, self.step = float(manifest.meta["best_eval_loss"]), int(manifest.meta["best_step"])
            self.path.write_bytes(stage.store.open(manifest, BEST).read_bytes())

    def offer(self, step: int, loss: float, model: torch.nn.Module) -> None:
        """Keeps the trained adapter of a model if it is better than all before it. All ranks at once."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            checkpoint.write_weights(checkpoint.whole_adapter(model), self.path)

    @property
    def files(self) -> dict[str, Path]:
        """Files for a checkpoint."""
        return {BEST: self.path} if self.step else {}

    @property
    def meta(self) -> dict[str, Any]:
        """Fields of a checkpoint's meta."""
        return {"best_step": self.step, "best_eval_loss": self.loss} if self.step else {}
