"""Writes the folder of a comparison's work with gog's prompts, and the adapter that both sides train."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
    settings = LoraSettings()
    instructions = prompts.instructions(catalog.SEARCH_TOOLS, "select")
    spoken = [instructions, workload.question(0), "<information># box score</information>\nuser assistant system\n"]
    texts = [re.sub("[0-9]", "", text) for text in spoken]  # so that each digit is one token, in every number
    complete = _replace(sizes, instructions=instructions, lora_targets=qwen_forward.LORA_TARGETS,
                        lora_rank=settings.rank, lora_alpha=settings.alpha)  # fmt: skip
    weights.write(folder, complete, texts)
    (folder / "preprocessor_config.json").write_text(_with_processor(folder))
    processor = policy_model.load_processor(ModelSpec(base=str(folder)))
    complete = _replace(complete, suppressed=tuple(sorted({*processor.suppress_tokens, processor.turn_end})))
    complete.save(folder)
    questions = [
        Question(id=str(n), image=f"{n}.png", question=workload.question(n), answers=("one",))
        for n in range(sizes.groups * sizes.steps)
    ]
    dataset.write_lines(folder / "train.jsonl", questions)
    _write_adapter(folder, settings)
    return complete


def _replace(sizes: Workload, **changes: object) -> Workload:
    return Workload(**{**sizes.__dict__, **changes})


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
