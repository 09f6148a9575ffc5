"""Qwen2.5-VL: how it is loaded, where adapters sit, and its forward pass with image features made before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from gog_recipes.models import attention, loading

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Every linear of the language model and none of the vision tower [paper note: all blocks]."""


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The model of a folder, frozen, in evaluation mode. Raises UserError for one that is not a whole Qwen2.5-VL."""
    return loading.load(Qwen2_5_VLForConditionalGeneration, folder, device, dtype)


def language_model(model: Any) -> Any:
    """The stack of decoder layers."""
    return model.model.language_model


def encode_images(model: Any, rows: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Features [image tokens, h] of images, from patches [p, values] and their grids [images, 3]."""
    tower = model.model.visual
    device = next(tower.parameters()).device
    return tower(rows.to(device), grid_thw=grids.to(device)).pooler_output


def hidden_states(
    model: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    features: torch.Tensor | None,
    lengths: Sequence[int] | None = None,
) -> torch.Tensor:
    """Hidden states [b, n, h] of ids [b, n] at positions [3, b, n]; features [image tokens, h] replace image tokens.

    With `lengths`, b is 1 and the row packs conversations of these lengths, none of which sees another.
    """
    language = language_model(model)
    embedded = language.embed_tokens(ids)
    if features is not None:
        mask = (ids == model.config.image_token_id)[..., None]
        embedded = embedded.masked_scatter(mask, features.to(embedded.dtype))
    return language(
        inputs_embeds=embedded,
        position_ids=positions,
        attention_mask=None,
        use_cache=False,
        **attention.arguments(language, lengths),
    ).last_hidden_state
