"""Pre-trains the tiny base model from random weights: about ten minutes on one core.

The base captions images, tells numbered crops apart and copies, in the frame that episodes have. It is not trained on
tool calls or answers, so what a run shows of searching was learned in that run. Examples are drawn anew for every step:
there are no epochs. The folder is written once, after the last step, each file whole.

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

TASKS = {"caption": 1.0, "crops": 1.5, "copying": 2.0}
"""Pre-training tasks and their examples per step, relative to batch_size: captions have the most tokens."""
REHEARSAL_STEPS = 24
"""Each period of so many steps begins with one round of all tasks."""
LEARNED_LOSS = 0.03
"""Running loss below which a task is only rehearsed while others are above it."""
LAST_RATE = 0.05
"""Learning rate at the end, relative to its maximum."""


@dataclass
class Progress:
    """Running means of a task over about ten of its steps."""

    loss: float = math.inf
    """Mean cross entropy; infinite before the first step."""
    accuracy: float = 0.0
    """Share of target tokens that are the most probable."""

    def add(self, loss: float, accuracy: float) -> None:
        """Adds a step."""
        self.loss = loss if math.isinf(self.loss) else 0.9 * self.loss + 0.1 * loss
        self.accuracy = 0.9 * self.accuracy + 0.1 * accuracy


class TinyBaseRecipe:
    """A torchtune recipe: setup, train, save_checkpoint, cleanup."""

    def __init__(self, cfg: DictConfig) -> None:
        torch.set_num_threads(cfg.threads)  # a second thread gains little and slows down other processes
        self._cfg = cfg
        self._output_dir = Path(cfg.output_dir)
        self._steps: int = cfg.steps
        self.seed = training.set_seed(seed=cfg.seed)
        self.progress = {name: Progress() for name in TASKS}
        self._seconds, self._tokens = 0.0, 0

    def setup(self) -> None:
        """Builds model, optimizers and tasks. Raises UserError for a folder that cannot be written."""
        tiny_model.check_writable(self._output_dir)
        self._metrics = config.instantiate(self._cfg.metric_logger)
        self.model = tiny_model.build_model(self.seed)
        self._tokenizer = vocabulary.build_tokenizer()
        known = entities.build(self._cfg.world_seed)
        self._tasks = pretrain_tasks.PretrainTasks(random.Random(self.seed), known, "train", pool=self._cfg.pool)
        self._unseen = pretrain_tasks.PretrainTasks(random.Random(self.seed + 1), known, "test", pool=self._cfg.pool)
        self._optimizers = self._setup_optimizers()
        self._schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_at) for optimizer in self._optimizers
        ]

    def train(self) -> None:
        """Runs all steps; logs metrics every log_every_n_steps."""
        self.model.train()
        started = time.monotonic()
        for step in range(self._steps):
            name = self.task_at(step)
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
                self._metrics.log_dict(self._log_values(), step + 1)

    def save_checkpoint(self) -> None:
        """Writes the folder in Hugging Face form, with a card on how it was made and what was measured."""
        self.model.eval()
        tiny_model.save(self.model, self._output_dir, self._card(self.measure()))
        print(f"wrote {self._output_dir}", flush=True)

    def cleanup(self) -> None:
        """Closes the logger."""
        self._metrics.close()

    def task_at(self, step: int) -> str:
        """The task of a step: those above LEARNED_LOSS in turn, and the others in the rehearsal of each period."""
        if step % REHEARSAL_STEPS < 4:
            return ("caption", "caption", "crops", "copying")[step % REHEARSAL_STEPS]
        due = [name for name in TASKS if self.progress[name].loss > LEARNED_LOSS] or list(TASKS)
        return due[step % len(due)]

    def draw(self, name: str, source: pretrain_tasks.PretrainTasks | None = None) -> batches.Batch:
        """A batch of a task. source: None: entities of the train split."""
        make = getattr(source or self._tasks, name)
        count = int(self._cfg.batch_size * TASKS[name])
        return batches.collate([make() for _ in range(count)], self._tokenizer)

    def loss(self, batch: batches.Batch) -> tuple[torch.Tensor, float]:
        """Mean cross entropy of target tokens (a scalar), and the share of them that are the most probable."""
        hidden = self.model.model(
            input_ids=batch.ids,
            pixel_values=batch.patches,
            image_grid_thw=batch.grids,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        counted = batch.loss_mask[:, 1:]
        logits, targets = self.model.lm_head(hidden[:, :-1][counted]), batch.ids[:, 1:][counted]
        return functional.cross_entropy(logits, targets), float((logits.argmax(-1) == targets).float().mean())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Accuracy of each task on new examples about entities that training never showed."""
        count = self._cfg.measured_batches
        return {name: sum(self.loss(self.draw(name, self._unseen))[1] for _ in range(count)) / count for name in TASKS}

    def _setup_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for matrices inside layers, one for embeddings, norms, biases and the patch convolution."""
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
        """Learning rate of a step relative to its maximum: linear warm-up times a cosine that ends at LAST_RATE."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self._steps))
        return min(1.0, (step + 1) / self._cfg.warmup_steps) * (cosine * (1 - LAST_RATE) + LAST_RATE)

    def _log_values(self) -> dict[str, float]:
        per_task = {
            f"{name}_{value}": round(getattr(progress, value), 4)
            for name, progress in self.progress.items()
            for value in ("loss", "accuracy")
        }
        return per_task | {"seconds": round(self._seconds), "tokens_per_second": round(self._tokens / self._seconds)}

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
form (`Qwen2_5_VLForConditionalGeneration`, `AutoTokenizer`, `AutoImageProcessor`). This project trained it from random
weights on generated images, without other models or data.

    tune run gog_recipes/world/tiny_base.py --config recipes/gog_recipes/configs/tiny/tiny_base.yaml seed={seed} steps={steps}

`make tiny-base` runs this command. World seed {world_seed}, {steps} steps, {seconds} s with {threads} thread(s),
torch {torch}.
On another machine floating-point results differ, which gives another model of the same quality.

It was trained to caption images, to tell numbered crops apart, and to copy and look up words. It was not trained to
search or to answer: tags occurred in context and as words to repeat only. It knows no facts; searching and answering are
left to the stages of a run. It has never seen 72 of the world's 216 entities. It is of no use outside this world.

| task | accuracy on target tokens, end of training | accuracy on target tokens, new examples with unseen entities |
|---|---|---|
{rows}
"""


@config.parse
def recipe_main(cfg: DictConfig) -> Any:
    """Entry point of `tune run`. Returns the exit code; 2: an error that the user can correct."""
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
