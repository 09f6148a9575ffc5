"""Qwen3-VL with experts: 30B-A3B, 235B-A22B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3VLMoeForConditionalGeneration

from gog_recipes.models import experts, loading, qwen_forward
from gog_recipes.models.family import Family
from gog_recipes.models.qwen_processor import Processor


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    return loading.load(Qwen3VLMoeForConditionalGeneration, folder, device, dtype)


FAMILY = Family(
    load=_load,
    processor=Processor,
    lora_targets=qwen_forward.LORA_TARGETS,
    language_model=qwen_forward.language_model,
    encode_images=qwen_forward.encode_images,
    hidden_states=qwen_forward.hidden_states,
    lora_parameters=experts.PARAMETERS,
)
