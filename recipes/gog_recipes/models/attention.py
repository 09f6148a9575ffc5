"""Attention over several conversations packed into one row: causal within each, never from one to another.

Packing avoids padding, but a mask for it would have total x total entries. Here each conversation is one exact causal
SDPA call of its own, which needs no mask; on CUDA in half precision, where torch has a kernel for sequences of varying
length, all of them are one call. Conversations that share a prompt are computed by `shared_attention`. The function is
registered with transformers under a name of its own, so that the models' own layers call it; without a layout it is
transformers' SDPA.

The layout travels as a keyword argument of the language model's forward, which transformers hands on to every layer.
A layer would drop it silently under another attention implementation, so `arguments` selects this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import varlen
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from gog_recipes.models import packing, shared_attention

NAME = "gog_packed"
"""Of this attention in `config._attn_implementation`."""


def arguments(language: Any, layout: Sequence[packing.Tree] | None) -> dict[str, Any]:
    """Keyword arguments of a language model's forward for packed rows.

    Args:
        language: the stack of decoder layers (transformers), whose attention is set to this one
        layout: the conversations in the row; None for rows of one conversation each
    """
    if layout is None:
        return {}
    if language.config._attn_implementation not in (NAME, "sdpa"):
        raise ValueError(f"packing needs sdpa, not {language.config._attn_implementation}")
    language.config._attn_implementation = NAME
    return {"layout": tuple(layout)}


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Sequence[packing.Tree] | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the signature of transformers.

    Args:
        module: the attention layer
        query: [b, heads, n, d]
        key: [b, key-value heads, n, d]
        value: as key
        attention_mask: of unpacked rows only
        layout: the conversations in the row, whose tokens sum to n; b is 1 then. None for unpacked rows
        scaling: of the products; None for 1 / sqrt(d)
        kwargs: as transformers passes them

    Returns:
        [b, n, heads, d], and None for the attention weights.
    """
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    total = sum(tree.tokens for tree in layout)
    if len(query) != 1 or query.shape[2] != total or attention_mask is not None:
        raise ValueError(f"lengths sum to {total} in {len(query)} rows of {query.shape[2]} tokens")
    if any(tree.prefix for tree in layout):
        return shared_attention.attend(query, key, value, layout, scaling), None
    packed = _one_call if shared_attention.has_kernel(query) else _call_per_conversation
    return packed(query, key, value, [tree.tokens for tree in layout], scaling), None


def _call_per_conversation(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float | None
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    if query.device.type != "cuda":  # the CPU kernel would repeat them anyway, once per call
        key, value, groups = repeat_kv(key, groups), repeat_kv(value, groups), 1
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=groups > 1).transpose(1, 2)
        for q, k, v in zip(*(tensor.split(list(lengths), dim=2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _one_call(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float | None
) -> torch.Tensor:
    bounds = torch.tensor([0, *lengths], device=query.device).cumsum(0, dtype=torch.int32)
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # [n, heads, d]
    found = varlen.varlen_attn(
        *rows, bounds, bounds, max(lengths), max(lengths), scale=scaling, window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(found, torch.Tensor)
    return found[None]


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
