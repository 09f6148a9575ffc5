"""Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

from gog_recipes.models.family import Family
from gog_recipes.models.qwen2_5_vl import model
from gog_recipes.models.qwen2_5_vl.processor import Processor


def _decoder(policy: Any, rows: int, length: int) -> Any:
    from gog_recipes.models.decoder import Decoder  # it reads the policy through the generic code above this folder

    return Decoder(policy, rows, length)


FAMILY = Family(
    load=model.load,
    processor=Processor,
    lora_targets=model.LORA_TARGETS,
    language_model=model.language_model,
    encode_images=model.encode_images,
    hidden_states=model.hidden_states,
    decoder=_decoder,
)
