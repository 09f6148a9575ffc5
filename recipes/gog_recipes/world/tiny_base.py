"""Pre-trains the tiny base model from noise: about eight minutes on one core.

The base can see, point at numbered crops, and copy, in the frame that episodes have; it knows nothing of tools and
answers no question that needs one. So whatever a run shows of searching, it learnt in that run. Lessons are drawn
afresh for every step, so there is no epoch, and no checkpoint before the end: the folder is written once, file by
file and whole, when training is over.

    tune run gog_recipes/world/tiny_base.py --config recipes/gog_recipes/configs/tiny/tiny_base.yaml output_dir=…
"""

from __future__ import annotations

import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.nn import functional
from torchtune import config, training

from gog.errors import UserError
from gog_recipes.world import batches, entities, pretrain_tasks, tiny_model, vocabulary

LESSONS = {"caption": 1.0, "crops": 1.5, "copying": 2.0}
"""Rows of a step, as multiples of batch_size: captions hold sixteen image tokens, copying none."""
REHEARSAL = 24
"""Every so many steps begin with one round of all lessons, learnt or not."""
LEARNT = 0.03
"""A running loss below which a lesson is only rehearsed, until all are learnt."""
LAST_RATE = 0.05
"""Share of the learning rate that is left at the end."""


@dataclass
class Progress:
    """Running means of a lesson, over about ten of its steps; no loss before its first step."""

    loss: float = math.inf
    accuracy: float = 0.0

    def add(self, loss: float, accuracy: float) -> None:
        self.loss = loss if math.isinf(self.loss) else 0.9 * self.loss + 0.1 * loss
        self.accuracy = 0.9 * self.accuracy + 0.1 * accuracy


class TinyBaseRecipe:
    """A torchtune recipe: setup, train, save_checkpoint, cleanup."""

    def __init__(self, cfg: DictConfig) -> None:
        torch.set_num_threads(cfg.threads)  # a second thread gains little here and ruins whoever shares the machine
        self._cfg = cfg
        self._output_dir = Path(cfg.output_dir)
        self._steps: int = cfg.steps
        self.seed = training.set_seed(seed=cfg.seed)
        self.progress = {name: Progress() for name in LESSONS}
        self._seconds, self._tokens = 0.0, 0

    def setup(self) -> None:
        """Model, optimizers and lessons. Refuses at once a folder that could not be written at the end."""
        tiny_model.check_writable(self._output_dir)
        self._metrics = config.instantiate(self._cfg.metric_logger)
        self.model = tiny_model.build_model(self.seed)
        self._tokenizer = vocabulary.build_tokenizer()
        known = entities.build(self._cfg.world_seed)
        self._lessons = pretrain_tasks.Lessons(random.Random(self.seed), known, "train", pool=self._cfg.pool)
        self._unseen = pretrain_tasks.Lessons(random.Random(self.seed + 1), known, "test", pool=self._cfg.pool)
        self._optimizers = self._setup_optimizers()
        self._schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_at) for optimizer in self._optimizers
        ]

    def train(self) -> None:
        """All steps; a line of figures every log_every_n_steps."""
        self.model.train()
        started = time.monotonic()
        for step in range(self._steps):
            name = self.lesson_at(step)
            batch = self.draw(name)
            loss, accuracy = self.loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._cfg.clip_grad_norm)
            for optimizer, scheduler in zip(self._optimizers, self._schedulers, strict=True):
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
            self.progress[name].add(float(loss.detach()), accuracy)
            self._tokens += int((batch.ids != self._tokenizer.pad_token_id).sum())
            self._seconds = time.monotonic() - started
            if (step + 1) % self._cfg.log_every_n_steps == 0 or step + 1 == self._steps:
                self._metrics.log_dict(self._figures(), step + 1)

    def save_checkpoint(self) -> None:
        """The folder in Hugging Face form, with a card that tells how it was made and what was measured."""
        self.model.eval()
        tiny_model.save(self.model, self._output_dir, self._card(self.measure()))
        print(f"wrote {self._output_dir}", flush=True)

    def cleanup(self) -> None:
        self._metrics.close()

    def lesson_at(self, step: int) -> str:
        """Which lesson a step gives: what is not learnt yet in turn, and of all others a rehearsal now and then."""
        if step % REHEARSAL < 4:
            return ("caption", "caption", "crops", "copying")[step % REHEARSAL]
        due = [name for name in LESSONS if self.progress[name].loss > LEARNT] or list(LESSONS)
        return due[step % len(due)]

    def draw(self, name: str, source: pretrain_tasks.Lessons | None = None) -> batches.Batch:
        make = getattr(source or self._lessons, name)
        count = int(self._cfg.batch_size * LESSONS[name])
        return batches.collate([make() for _ in range(count)], self._tokenizer)

    def loss(self, batch: batches.Batch) -> tuple[torch.Tensor, float]:
        """Mean cross entropy of the words to be written, and the share of them that is most probable."""
        hidden = self.model.model(
            input_ids=batch.ids,
            pixel_values=batch.patches,
            image_grid_thw=batch.grids,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        learned = batch.learned[:, 1:]
        logits, words = self.model.lm_head(hidden[:, :-1][learned]), batch.ids[:, 1:][learned]
        return functional.cross_entropy(logits, words), float((logits.argmax(-1) == words).float().mean())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Accuracy on fresh lessons about entities that training never showed."""
        count = self._cfg.measured_batches
        return {
            name: sum(self.loss(self.draw(name, self._unseen))[1] for _ in range(count)) / count for name in LESSONS
        }

    def _setup_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the matrices inside the layers, one for embeddings, norms, biases and the patch convolution."""
        matrices = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.ndim == 2 and "embed_tokens" not in name
        }
        rest = [parameter for name, parameter in self.model.named_parameters() if name not in matrices]
        return [
            config.instantiate(self._cfg.matrix_optimizer, list(matrices.values())),
            config.instantiate(self._cfg.optimizer, rest),
        ]

    def _rate_at(self, step: int) -> float:
        """Linear warm-up times a cosine that ends at LAST_RATE; a share of the learning rate."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self._steps))
        return min(1.0, (step + 1) / self._cfg.warmup_steps) * (cosine * (1 - LAST_RATE) + LAST_RATE)

    def _figures(self) -> dict[str, float]:
        per_lesson = {
            f"{name}_{figure}": round(getattr(progress, figure), 4)
            for name, progress in self.progress.items()
            for figure in ("loss", "accuracy")
        }
        return per_lesson | {"seconds": round(self._seconds), "tokens_per_second": round(self._tokens / self._seconds)}

    def _card(self, unseen: dict[str, float]) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        rows = "\n".join(
            f"| {name} | {progress.accuracy:.3f} | {unseen[name]:.3f} |" for name, progress in self.progress.items()
        )
        return CARD.format(
            parameters=parameters,
            words=len(self._tokenizer),
            seed=self.seed,
            world_seed=self._cfg.world_seed,
            steps=self._steps,
            seconds=round(self._seconds),
            threads=self._cfg.threads,
            torch=torch.__version__,
            rows=rows,
        )


CARD = """\
# The tiny base model

The policy of the embedded world: a Qwen2.5-VL of {parameters:,} parameters and {words} words, in ordinary Hugging Face
form (`Qwen2_5_VLForConditionalGeneration`, `AutoTokenizer`, `AutoImageProcessor`). Made by this project from random
weights and generated images; no other model and no data of others went into it.

    tune run gog_recipes/world/tiny_base.py --config recipes/gog_recipes/configs/tiny/tiny_base.yaml seed={seed} steps={steps}

`make tiny-base` runs this command. World seed {world_seed}, {steps} steps, {seconds} s with {threads} thread(s),
torch {torch}.
Another machine gives other last digits, hence another model that is as good.

It was taught to see (captions), to tell numbered crops apart, and to copy and look up words. It was not taught to
search or to answer (tags it has met in what was given and as words to repeat), and it knows no fact: all that is left to the stages of a
run. 72 of the world's 216 entities it has never seen. Good for nothing but this world.

| lesson | words right, last steps of training | words right, fresh lessons on unseen entities |
|---|---|---|
{rows}
"""


@config.parse
def recipe_main(cfg: DictConfig) -> Any:
    """Entry point of `tune run`. Exit code 2: something the user can mend."""
    config.log_config(recipe_name="TinyBaseRecipe", cfg=cfg)
    recipe = TinyBaseRecipe(cfg)
    try:
        recipe.setup()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    recipe.train()
    recipe.save_checkpoint()
    recipe.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(recipe_main())
