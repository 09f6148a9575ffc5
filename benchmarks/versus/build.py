"""Writes the folder of a comparison's work with gog's prompts, and the adapter that both sides train."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch
import weights
import workload
from workload import Workload

from gog import catalog, dataset, prompts
from gog.dataset import Question
from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import lora, policy_model, qwen_forward

ADAPTER = "adapter"
"""Folder of the adapter, whose weights are random so that no gradient is 0."""


def write(folder: Path, sizes: Workload) -> Workload:
    """Writes everything that the two sides read; returns the sizes with what follows from gog's prompts."""
    weights.write(folder, _complete(sizes), _texts())
    found = finish(folder, _complete(sizes))
    _write_adapter(folder, LoraSettings())
    return found


def write_without_weights(folder: Path, sizes: Workload, text: dict[str, Any], vision: dict[str, Any]) -> Any:
    """Writes everything but model and adapter, for a model that is made on its device; returns its configuration.

    Args:
        folder: created if it does not exist
        sizes: of the work
        text, vision: sizes of the language model and of the vision tower
    """
    shape = weights.write_parts(folder, _complete(sizes), _texts(), text, vision)
    finish(folder, _complete(sizes))
    return shape


def finish(folder: Path, sizes: Workload) -> Workload:
    """Writes the questions, and which tokens are never sampled."""
    (folder / "preprocessor_config.json").write_text(_with_processor(folder))
    processor = policy_model.folder_processor(folder, "full")
    found = dataclasses.replace(sizes, suppressed=tuple(sorted({*processor.suppress_tokens, processor.turn_end})))
    found.save(folder)
    questions = [
        Question(id=str(n), image=f"{n}.png", question=workload.question(n), answers=("one",))
        for n in range(sizes.groups * sizes.steps)
    ]
    dataset.write_lines(folder / "train.jsonl", questions)
    return found


def _complete(sizes: Workload) -> Workload:
    """The sizes with gog's system prompt and adapter."""
    settings = LoraSettings()
    return dataclasses.replace(
        sizes, instructions=_instructions(), lora_targets=qwen_forward.LORA_TARGETS, lora_rank=settings.rank,
        lora_alpha=settings.alpha,
    )  # fmt: skip


def _instructions() -> str:
    return prompts.instructions(catalog.SEARCH_TOOLS, "select")


def _texts() -> list[str]:
    """What the tokenizer learns from."""
    frame = "<information># box score</information>\nuser assistant system\n"
    texts = [_instructions(), workload.question(0), frame]
    return [re.sub("[0-9]", "", text) for text in texts]  # so that each digit is one token, in every number


def _with_processor(folder: Path) -> str:
    """The image processor's settings with the name of the processor, by which transformers finds it."""
    found = json.loads((folder / "preprocessor_config.json").read_text())
    return json.dumps(found | {"processor_class": "Qwen2_5_VLProcessor"}, indent=1)


def _write_adapter(folder: Path, settings: LoraSettings) -> None:
    torch.manual_seed(1)
    model = lora.add(policy_model.load_base(ModelSpec(base=str(folder)), torch.device("cpu")), settings)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder / ADAPTER)
