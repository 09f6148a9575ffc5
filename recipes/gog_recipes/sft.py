"""LoRA SFT on demonstrations: teach the model the turn grammar and when to use which tool.

    tune run recipes/gog_recipes/sft.py --config recipes/gog_recipes/configs/tiny/sft.yaml max_steps=5

Features
    - LoRA on every linear of the language model, vision tower frozen: images are encoded once, not once per epoch
    - loss on the model's own tokens only; prompts, tool text and images are masked
    - logits are computed for learned tokens only
    - only verified demonstrations are learned from (`unverified: keep` for others, too); one that is unverified, too long
      or has an unusable image is skipped, by name
    - demonstrations of some questions are held out and evaluated now and then; every checkpoint carries the adapter with
      the lowest loss on them, and `select` decides which one later stages start from, the last or the best
    - resumes bit-exactly from its newest checkpoint: order and noise follow from seed and step
    - on SIGTERM the last step is saved
    - one process, or several under torchrun: the rows of a batch are divided among ranks, layers are sharded (FSDP2),
      and a step is the same step for any number of ranks
    - demonstrations are packed, not padded, into passes of a bounded number of tokens; gradients add up over passes

Raises UserError for a missing archive, for too few demonstrations that can be used, and at the first loss, gradient or
weight that is not finite.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import progress, reviews, wording
from gog.errors import UserError
from gog.spec import SFTConfig
from gog.trajectory_zip import Archive
from gog_recipes.data import demonstrations
from gog_recipes.models import checkpointing, lora, packing, policy_model
from gog_recipes.runtime import (
    checkpoint,
    config,
    flops,
    held_out,
    memory,
    optimizer,
    parallel,
    profiler,
    ranks,
    timers,
)
from gog_recipes.runtime.interruption import Interrupted
from gog_recipes.runtime.stage import Stage


def noise_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a rank's dropout in one step: ranks, which learn from different demonstrations, drop different inputs.

    Args:
        seed: of the stage
        step: up to 2^22
        rank: up to 2^10
    """
    return (seed << 32) + (rank << 22) + step


class SFTRecipe(FTRecipeInterface):
    """Trains an adapter of the base model on the demonstrations of the curate stage."""

    def __init__(self, cfg: SFTConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)  # the same on all ranks, because each initialises the whole adapter
        self.timer = timers.StepTimer()
        self.ranks = ranks.init(self.device, self.timer.waiting)
        self.stage = Stage(cfg, self.ranks)
        self.profiler = profiler.Profiler(cfg.profile, self.stage, self.timer)

    def setup(self) -> None:
        """Loads model and demonstrations, and resumes from the newest checkpoint. Raises UserError."""
        self._setup_model()
        self._setup_data()
        self._setup_optimizer()

    def _setup_model(self) -> None:
        base = self.stage.model
        self.processor = policy_model.load_processor(base)
        self.model = lora.add(policy_model.load_base(base, self.device, self.cfg.base_quantization), self.cfg.lora)
        checkpointing.apply(self.model, self.cfg.activation_checkpointing, self.cfg.micro_batch_tokens)
        shards = parallel.shard(self.model, self.ranks, self.cfg.offload)
        self.vision = policy_model.vision_of(self.model, self.processor, self.cfg.feature_cache_bytes, shards)
        self.utilisation = flops.utilisation(self.model, self.device, self.ranks.size)

    def _setup_data(self) -> None:
        self.ranks.require(self.cfg.batch_size, "batch_size")
        archive = self._demonstrations()
        found = demonstrations.read(
            archive, self.processor, self.vision, limit=self.cfg.max_tokens,
            keep_unverified=self.cfg.unverified == "keep", decisions=self._decisions(),
        )  # fmt: skip
        self.stage.require_dataset("demonstrations", demonstrations.digest(found))
        held = held_out.split(found.questions, self.cfg.eval_share, self.cfg.seed)
        learned = [place for place, question in enumerate(found.questions) if question not in held]
        self.rows, self.ids = [found.rows[place] for place in learned], [found.ids[place] for place in learned]
        self.skipped = found.skipped
        held_back = [place for place, question in enumerate(found.questions) if question in held]
        kept_back = [found.rows[place] for place in held_back]
        self.evaluator = held_out.Evaluator(
            kept_back,
            [found.ids[place] for place in held_back],
            self.processor,
            self.vision,
            self.ranks,
            self.cfg.micro_batch_tokens,
        )
        for name, reason in self.skipped.items():
            self.stage.skip(f"demonstration {name}", reason)
        if len(self.rows) < self.cfg.batch_size:
            raise UserError(
                f"{wording.plural(len(self.rows), 'demonstration')} for batches of {self.cfg.batch_size}, "
                f"{wording.plural(len(self.skipped), 'was', 'were')} skipped and {len(kept_back)} held out",
                where=str(archive.path),
                remedy="see the log for the reasons, or lower batch_size",
            )
        self.steps_per_epoch = len(self.rows) // self.cfg.batch_size
        total = self.steps_per_epoch * self.cfg.epochs
        self.total = min(total, self.cfg.max_steps or total)

    def _decisions(self) -> reviews.Decisions:
        """The reviewers' decisions about the demonstrations. Raises UserError for a file that cannot be read whole."""
        found = reviews.read(Path(self.cfg.reviews)) if self.cfg.reviews is not None else {}
        return reviews.Decisions(found.values())

    def _demonstrations(self) -> Archive:
        """The curate stage's archive; without one, the archive that the configuration names."""
        given = self.cfg.demonstrations
        self.parents = [self.stage.input("curate")] if self.stage.has_input("curate") or given is None else []
        if self.parents:
            return self.stage.archive(self.parents[0])
        path = resources.files("gog_recipes.world") / "sample.zip" if given == "sample" else Path(str(given))
        self.stage.log(f"the store holds no demonstrations; using {path}")
        return Archive(Path(str(path)))

    def _setup_optimizer(self) -> None:
        self.optimizer = optimizer.build(
            self.cfg.optimizer, self.model.parameters(), self.cfg.learning_rate, self.cfg.offload
        )
        self.step = checkpoint.resume(self.stage, self.model, self.optimizer, self.cfg.offload, self.parents)
        self.best = held_out.Best(self.stage)

    def batch(self, step: int) -> list[int]:
        """This rank's demonstrations of a step's batch; each epoch is a permutation that follows from the seed."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = random.Random(f"{self.cfg.seed}:{epoch}").sample(range(len(self.rows)), len(self.rows))
        return self.ranks.shard(order[place * self.cfg.batch_size : (place + 1) * self.cfg.batch_size])

    def gradients(self, chosen: Sequence[int]) -> tuple[float, list[str]]:
        """Adds up the gradients of a batch over passes and ranks: of the mean cross entropy of its learned tokens.

        Args:
            chosen: this rank's demonstrations

        Returns:
            This rank's part of the loss, and its demonstrations at fault where a number is not finite.
        """
        learned = self.ranks.all_reduce_sum(sum(packing.learned(self.rows[index]) for index in chosen))
        passes = packing.passes([self.rows[index] for index in chosen], self.cfg.micro_batch_tokens)
        total, suspects = 0.0, list[str]()
        for members in parallel.even(passes, self.ranks):
            own = [chosen[place] for place in members]
            rows = [self.rows[index] for index in own] or [packing.idle(self.processor.turn_end)]
            batch = policy_model.collate(rows, self.processor, self.vision, self.device)
            logp = policy_model.token_logprobs(self.model, batch, policy_model.features(batch, self.vision))
            loss = -logp.sum() / learned * bool(own)  # without members, the rank only takes part in a pass of others
            loss.backward()
            total += loss.item()
            if own and not suspects:
                names = [f"demonstration {self.ids[index]}" for index in own]
                suspects = optimizer.at_fault(self.model, logp, [packing.learned(row) for row in rows], names)
        return total, suspects

    def train(self) -> None:
        """Optimizer steps up to the last one, with checkpoints.

        Raises:
            UserError: a loss, gradient or weight is not finite.
            Interrupted: a rank was asked to end; the last step is saved.
        """
        with self.stage.interruptible(), self.timer.part("other"):
            self._steps()

    def _steps(self) -> None:
        self.model.train()
        self.timer.take()  # a step begins where the one before ended, so that no time is lost between them
        while self.step < self.total:
            total = self.total if self.cfg.schedule == "cosine" else 0
            rate = optimizer.set_rate(
                self.optimizer, self.cfg.learning_rate, self.step, warmup=self.cfg.warmup_steps, total=total
            )
            torch.manual_seed(noise_seed(self.cfg.seed, self.step, self.ranks.rank))
            chosen = self.batch(self.step)
            self.step += 1
            self.profiler.begin(self.step)
            with self.timer.part("train"), self.profiler.window("update"):
                loss, norm = self._update(chosen)
            with self.timer.part("evaluation"):
                scores = self._evaluate()
            work = flops.Work.total(self.ranks.gather(flops.work([self.rows[index] for index in chosen])))
            self._log(loss, rate, norm, work, self.timer.take(), scores)
            self.profiler.end()
            interrupted = self.step < self.total and self.stage.is_interrupted()
            if self.step % self.cfg.save_every == 0 or self.step == self.total or interrupted:
                with self.timer.part("checkpoint"):
                    self.save_checkpoint(epoch=(self.step - 1) // self.steps_per_epoch)
            if interrupted:
                raise Interrupted

    def _update(self, chosen: Sequence[int]) -> tuple[float, float]:
        """One optimizer step; returns the loss over all ranks and the norm of the gradient before clipping.

        Args:
            chosen: this rank's demonstrations
        """
        part, found = self.gradients(chosen)
        norm = optimizer.clip_gradients(self.model, self.cfg.clip_grad_norm)
        loss, suspects = self.ranks.all_reduce_sum(part), [name for own in self.ranks.gather(found) for name in own]
        optimizer.apply_step(
            self.optimizer, self.model, self.ranks, step=self.step, loss=loss, grad_norm=norm, suspects=suspects
        )
        return loss, norm

    def _evaluate(self) -> held_out.Scores | None:
        """Scores on the held-out demonstrations after every `eval_every` steps and the last one; None after others."""
        if not self.evaluator.rows or (self.step % self.cfg.eval_every and self.step < self.total):
            return None
        scores = self.evaluator.scores(self.model)
        self.best.offer(self.step, scores.loss, self.model)
        self.stage.log(
            f"step {self.step}/{self.total} held out: loss {scores.loss:.3f}, accuracy {scores.accuracy:.3f}"
        )
        return scores

    def _log(
        self,
        loss: float,
        rate: float,
        norm: float,
        work: flops.Work,
        times: timers.StepTimes,
        scores: held_out.Scores | None,
    ) -> None:
        figures = timers.figures(self.ranks.gather(times))
        self.stage.record_step(
            step=self.step, total=self.total, loss=loss, learning_rate=rate, grad_norm=norm, tokens=work.tokens,
            tokens_per_second=work.tokens / max(timers.updated(figures), 1e-9),
            **self.utilisation.figures(work, figures["seconds_train"]), **figures,
            **memory.figures(self.ranks.gather(memory.take_peak(self.device))),
            eval_loss=scores.loss if scores else None, eval_token_accuracy=scores.accuracy if scores else None,
        )  # fmt: skip
        losses = [line["loss"] for line in self.stage.metric_log.lines]
        self.stage.report(self.step, self.total, loss=losses[-1], losses=progress.downsample(losses))
        if self.step % 20 == 0 or self.step == self.total:
            self.stage.log(f"step {self.step}/{self.total} loss {loss:.3f}")

    def save_checkpoint(self, *, epoch: int) -> None:
        """Commits a checkpoint; epoch: the one that the last step belonged to, from 0."""
        lines = self.stage.metric_log.lines
        meta = {"loss_first": lines[0]["loss"], "loss": lines[-1]["loss"], "total": self.total, "epoch": epoch}
        meta |= checkpoint.skipped(self.skipped) | self.best.meta | {"held_out": len(self.evaluator.rows)}
        best = self.cfg.select == "best" and self.step >= self.total and self.best.step not in (0, self.step)
        meta["selected_step"] = self.best.step if best else self.step
        checkpoint.save(
            self.stage, self.step, self.model, self.optimizer, meta=meta, parents=self.parents,
            extra=self.best.files, published=self.best.path if best else None,
        )  # fmt: skip

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


@tune_config.parse
def recipe_main(cfg: DictConfig) -> None:
    def run() -> None:
        recipe = SFTRecipe(config.typed(SFTConfig, cfg))
        recipe.setup()
        recipe.train()
        recipe.cleanup()

    config.exit_with(run)


if __name__ == "__main__":
    sys.exit(recipe_main())
