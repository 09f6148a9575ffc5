"""Qwen3-VL, dense: 2B, 4B, 8B, 32B."""

from __future__ import annotations

from transformers import Qwen3VLForConditionalGeneration

from gog_recipes.models import qwen_forward

FAMILY = qwen_forward.family(Qwen3VLForConditionalGeneration)
