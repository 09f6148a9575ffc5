"""Qwen2.5-VL: 3B, 7B, 32B, 72B."""

from __future__ import annotations

from transformers import Qwen2_5_VLForConditionalGeneration

from gog_recipes.models import qwen_forward

FAMILY = qwen_forward.family(Qwen2_5_VLForConditionalGeneration)
