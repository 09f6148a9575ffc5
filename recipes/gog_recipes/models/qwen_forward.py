"""What Qwen-VL models have in common: where their parts are, and the forward pass with image features made before."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from gog_recipes.models import attention, loading, packing
from gog_recipes.models.family import Family
from gog_recipes.models.qwen_processor import Processor

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Every linear of the language model and none of the vision tower [paper note: all blocks]. A router of experts is no
linear and stays as it is."""


def family(architecture: Any, *, lora_parameters: Sequence[str] = ()) -> Family:
    """A family of Qwen-VL models.

    Args:
        architecture: class of transformers that a folder is loaded into
        lora_parameters: see Family
    """
    return Family(
        load=functools.partial(loading.load, architecture),
        processor=Processor,
        lora_targets=LORA_TARGETS,
        language_model=language_model,
        vision_tower=vision_tower,
        encode_images=encode_images,
        hidden_states=hidden_states,
        lora_parameters=tuple(lora_parameters),
    )


def language_model(model: Any) -> Any:
    """The stack of decoder layers."""
    return model.model.language_model


def vision_tower(model: Any) -> torch.nn.Module:
    """What encodes images."""
    tower: torch.nn.Module = model.model.visual
    return tower


def encode_images(model: Any, rows: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Features of images, from patches [p, values] and their grids [images, 3].

    Returns:
        [image tokens, h]; with DeepStack [image tokens, 1 + levels, h], of which the first replaces the embedding and
        the others are added after as many decoder layers, in order.
    """
    tower = vision_tower(model)
    device = next(tower.parameters()).device
    found = tower(rows.to(device), grid_thw=grids.to(device))
    levels = getattr(found, "deepstack_features", None)
    return torch.stack([found.pooler_output, *levels], 1) if levels else found.pooler_output


def hidden_states(
    model: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    features: torch.Tensor | None,
    layout: Sequence[packing.Tree] | None = None,
) -> torch.Tensor:
    """Hidden states [b, n, h]. See gog_recipes.models.family.HiddenStates; features as of `encode_images`."""
    language = language_model(model)
    embedded = language.embed_tokens(ids)
    more: dict[str, Any] = attention.arguments(language, layout)
    if features is not None:
        mask = ids == model.config.image_token_id
        features = features.to(embedded.device, embedded.dtype)
        first = features if features.ndim == 2 else features[:, 0]
        embedded = embedded.masked_scatter(mask[..., None], first)
        if features.ndim == 3:
            more |= {"visual_pos_masks": mask, "deepstack_visual_embeds": list(features[:, 1:].unbind(1))}
    return language(
        inputs_embeds=embedded, position_ids=positions, attention_mask=None, use_cache=False, **more
    ).last_hidden_state
