"""Qwen3-VL with experts: 30B-A3B, 235B-A22B."""

from __future__ import annotations

from transformers import Qwen3VLMoeForConditionalGeneration

from gog_recipes.models import experts, qwen_forward

FAMILY = qwen_forward.family(Qwen3VLMoeForConditionalGeneration, lora_parameters=experts.PARAMETERS)
