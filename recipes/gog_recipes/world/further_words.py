"""Teaches the tiny base its further words, and changes nothing else in it: half a minute on one core.

    python -m gog_recipes.world.further_words [--folder FOLDER] [--steps N]

The vocabulary has grown at its end (`vocabulary.FURTHER`): Chinese words, and words of harder worlds' pages. Their embeddings
are appended. A word that has an English counterpart begins with its embedding, as the words of two languages lie close to
each other in a model that was trained on both; the others begin at random. Only these rows are trained, on the further
tasks (gog_recipes.world.further_tasks) and on the first ones, where they learn not to be what the model would write: the output
layer is tied to them. Every older weight keeps its bits, and further words are never sampled, so what the model does in the
standard world stays as it was.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional

from gog import languages
from gog.errors import UserError
from gog_recipes import world
from gog_recipes.world import batches, difficulty, entities, further_tasks, tiny_model, vocabulary

SCHEDULE = ("translated", "read", "numbered", "copying", "looked_up", "read", "crops", "reading")
"""Tasks in turn."""
COUNTERPARTS = {"的": "of", "是": "is", "什么": "what", "多少": "what", "图中": "the", "名字": "name", "颜色": "colour"}
"""English words of those that are no colour, form or attribute."""
STEPS, RATE, ROWS, POOL, SEED, WORLD_SEED = 200, 1e-2, 32, 600, 0, 7
"""Optimizer steps, learning rate at the beginning, examples of a step, scenes that crops are cut from, seeds."""
SECTION = "\n## Further words\n"


class FurtherWords:
    """The model with its further words.

    Args:
        folder: of a tiny base, with or without them.
        steps: optimizer steps.
    """

    def __init__(self, folder: Path, steps: int = STEPS) -> None:
        self.folder, self.steps = folder, steps
        self._ids = {word: number for number, word in enumerate(vocabulary.words())}
        self._first = min(self._ids[word] for word in vocabulary.FURTHER)
        self.model = self._grown()
        self._tokenizer = vocabulary.build_tokenizer()
        self._rows: torch.Tensor = self.model.get_input_embeddings().weight
        self._old = self._rows.detach()[: self._first].clone()
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter is self._rows)

    def _grown(self) -> Any:
        """The model of the folder with rows for further words. Raises UserError for another vocabulary."""
        model = tiny_model.build_model(SEED)
        weights = load_file(self.folder / "model.safetensors")
        (name,) = [name for name in weights if name.endswith("embed_tokens.weight")]
        if len(weights[name]) not in (self._first, len(self._ids)):
            raise UserError(
                f"{len(weights[name])} words, not {self._first}",
                where=str(self.folder),
                remedy="train the base again: make tiny-base",
            )
        fresh = model.get_input_embeddings().weight.detach()
        with torch.no_grad():
            fresh[: self._first] = weights[name][: self._first]
            for word, english in self._counterparts().items():
                fresh[self._ids[word]] = fresh[self._ids[english]]
        weights[name] = fresh.clone()
        torch.nn.Module.load_state_dict(model, _named_as(model, weights), strict=False)
        return model

    def _counterparts(self) -> dict[str, str]:
        spoken = [languages.load(code).world for code in difficulty.LEVELS["hard"].languages]
        found = {own: english for say in spoken for english, own in say.words.items()}
        return {word: english for word, english in (found | COUNTERPARTS).items() if word in vocabulary.FURTHER}

    def train(self) -> None:
        """Trains the further rows; the rate falls linearly."""
        tasks = further_tasks.FurtherTasks(random.Random(SEED), entities.build(WORLD_SEED), "train", pool=POOL)
        optimizer = torch.optim.Adam([self._rows], lr=RATE)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / self.steps)
            loss, _ = self.loss(tasks, SCHEDULE[step % len(SCHEDULE)])
            loss.backward()
            assert self._rows.grad is not None
            self._rows.grad[: self._first] = 0
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():  # Adam leaves rows without a gradient alone; this makes sure
            self._rows[: self._first] = self._old

    def loss(self, tasks: further_tasks.FurtherTasks, name: str) -> tuple[torch.Tensor, float]:
        """Mean cross entropy of a batch of a task (a scalar), and the share of targets that are the most probable words."""
        batch = batches.collate([getattr(tasks, name)() for _ in range(ROWS)], self._tokenizer)
        hidden = self.model.model(
            input_ids=batch.ids, pixel_values=batch.patches, image_grid_thw=batch.grids, position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state  # fmt: skip
        counted = batch.loss_mask[:, 1:]
        logits, targets = self.model.lm_head(hidden[:, :-1][counted]), batch.ids[:, 1:][counted]
        return functional.cross_entropy(logits, targets), float((logits.argmax(-1) == targets).float().mean())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Accuracy of each task on examples about entities that training never showed."""
        tasks = further_tasks.FurtherTasks(random.Random(SEED + 1), entities.build(WORLD_SEED), "test", pool=POOL)
        return {name: self.loss(tasks, name)[1] for name in further_tasks.TASKS}

    def save(self, target: Path) -> None:
        """Writes the model to a folder that exists."""
        card = (self.folder / "README.md").read_text(encoding="utf-8").partition(SECTION)[0]
        figures = ", ".join(f"{name} {value:.3f}" for name, value in self.measure().items())
        tiny_model.save(
            self.model.eval(),
            target,
            f"{card}{SECTION}\n{len(vocabulary.FURTHER)} words of Chinese questions and of harder worlds' pages were appended "
            f"afterwards (`python -m gog_recipes.world.further_words`, {self.steps} steps). Only their embeddings were "
            f"trained; they are read and never sampled. Accuracy on new examples with unseen entities: {figures}.\n",
        )


def _named_as(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a file under the names of the module, which are longer by a few levels."""
    found = {}
    for name in model.state_dict():
        tail = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        source = weights.get(name, weights.get(tail))
        if source is not None:
            found[name] = source
    missing = set(model.state_dict()) - set(found) - {"lm_head.weight"}
    if missing:
        raise UserError(f"the file lacks {sorted(missing)[0]}", where="model.safetensors", remedy="make tiny-base")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=world.TINY)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    taught = FurtherWords(given.folder, given.steps)
    taught.train()
    taught.save(given.folder)
    print(json.dumps({name: round(value, 4) for name, value in taught.measure().items()}))


if __name__ == "__main__":
    main()
