"""A Qwen2.5-VL language model for sampling: fused weights, a key-value cache with a row per conversation.

transformers' generate() re-reads a conversation at every turn. Here a row's cache lives as long as its conversation:
a new observation is appended, nothing is read twice, and rows of different lengths advance together. The adapter is
folded into the weights on `refresh`, so sampling costs what the base model costs.

b rows at work, n new tokens per row, h hidden, H query heads, K key-value heads, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer

from gog_recipes.models import policy_model as models
from gog_recipes.runtime import parallel


@dataclass(frozen=True)
class Layer:
    norm1: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    out: torch.Tensor
    norm2: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Decoder:
    """Fused weights and the cache of `rows` conversations of at most `length` tokens each."""

    def __init__(self, model: torch.nn.Module, rows: int, length: int) -> None:
        config = models.core(model).config.get_text_config()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size, self.epsilon = config.hidden_size // config.num_attention_heads, config.rms_norm_eps
        self.rows, self.length = rows, length
        self.refresh(model)
        like = self.embedding
        # One position more than a conversation may have: padded tokens of a mixed batch are written there, and never read.
        shape = (rows, self.kv_heads, length + 1, self.head_size)
        self.keys = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in self.layers]
        self.values = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in self.layers]

    @torch.no_grad()
    def refresh(self, model: torch.nn.Module) -> None:
        """Takes over the model's current weights, the adapter folded in. All ranks at once where it is sharded."""
        inner = models.core(model)
        language = inner.model.language_model
        self.rotary = language.rotary_emb
        self.norm = language.norm.weight.detach()
        self.head = inner.lm_head.weight.detach()
        self.embedding = language.embed_tokens.weight.detach()
        self.layers = [_fuse(layer) for layer in language.layers]

    @torch.no_grad()
    def step(
        self,
        rows: torch.Tensor,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        starts: torch.Tensor,
        counts: torch.Tensor,
    ) -> torch.Tensor:
        """Appends tokens to conversations; logits [b, vocabulary] after each row's last one.

        rows [b]: cache rows; embedded [b, n, h]; positions [3, b, n]; starts [b]: tokens already cached; counts [b]: how
        many of the n are real, at least 1.
        """
        b, n, h = embedded.shape
        total = int((starts + counts).max())
        offsets = torch.arange(n, device=rows.device)
        at = starts[:, None] + offsets
        visible = (torch.arange(total, device=rows.device) <= at[..., None])[:, None]  # [b, 1, n, total]
        at = at.masked_fill(offsets >= counts[:, None], self.length)
        cos, sin = (part[:, :, None] for part in self.rotary(embedded, positions))
        x, contiguous = embedded, _contiguous(rows)
        for index, layer in enumerate(self.layers):
            normed = F.rms_norm(x, (h,), layer.norm1, self.epsilon)
            mixed = F.linear(normed, layer.qkv, layer.qkv_bias).view(
                b, n, self.heads + 2 * self.kv_heads, self.head_size
            )
            turned = mixed[:, :, : self.heads + self.kv_heads]
            turned = turned * cos + _rotate_half(turned) * sin
            keys, values = self.keys[index], self.values[index]
            keys[rows[:, None], :, at] = turned[:, :, self.heads :]
            values[rows[:, None], :, at] = mixed[:, :, self.heads + self.kv_heads :]
            own = contiguous if contiguous is not None else rows
            attended = self._attend(
                turned[:, :, : self.heads], keys[own][:, :, :total], values[own][:, :, :total], visible
            )
            x = x + F.linear(attended, layer.out)
            gate, up = F.linear(F.rms_norm(x, (h,), layer.norm2, self.epsilon), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        last = x[torch.arange(b, device=rows.device), counts - 1]
        return F.linear(F.rms_norm(last, (h,), self.norm, self.epsilon), self.head)

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """queries [b, n, H, d], keys and values [b, K, total, d], visible [b, 1, n, total] -> [b, n, H·d]."""
        b, n = queries.shape[:2]
        if n > 1:
            out = F.scaled_dot_product_attention(
                queries.transpose(1, 2), keys, values, attn_mask=visible, enable_gqa=True
            )
            return out.transpose(1, 2).reshape(b, n, -1)
        # One token a row: two batched products over the key-value heads beat the fused kernel on a CPU.
        grouped = queries[:, 0].reshape(b, self.kv_heads, self.heads // self.kv_heads, self.head_size)
        scores = torch.matmul(grouped, keys.transpose(-1, -2)) * self.head_size**-0.5
        weights = scores.masked_fill(~visible[:, :, 0][:, :, None], float("-inf")).softmax(-1)
        return torch.matmul(weights, values).reshape(b, 1, -1)

    def copy_row(self, source: int, targets: list[int], length: int) -> None:
        """Gives conversations the same beginning: `length` cached tokens of one row to others."""
        for cache in (*self.keys, *self.values):
            cache[targets, :, :length] = cache[source, :, :length]


def _contiguous(rows: torch.Tensor) -> slice | None:
    """The rows as a slice when they are one, which spares a copy of the cache."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows) and bool((rows[1:] > rows[:-1]).all()):
        return slice(first, last + 1)
    return None


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def _fuse(layer: Any) -> Layer:
    with parallel.whole(layer):
        return _fuse_whole(layer)


def _fuse_whole(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    query, key, value = (_merged(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    return Layer(
        norm1=layer.input_layernorm.weight.detach().clone(),  # of a sharded layer only copies last
        qkv=torch.cat((query[0], key[0], value[0])),
        qkv_bias=torch.cat((query[1], key[1], value[1])),
        out=_merged(attention.o_proj)[0],
        norm2=layer.post_attention_layernorm.weight.detach().clone(),
        gate_up=torch.cat((_merged(mlp.gate_proj)[0], _merged(mlp.up_proj)[0])),
        down=_merged(mlp.down_proj)[0],
    )


def _merged(linear: Any) -> tuple[torch.Tensor, Any]:
    """(weight with the active adapters added, bias) of a linear."""
    if not isinstance(linear, LoraLayer):
        return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    base = linear.get_base_layer()
    weight = base.weight.detach()
    if not linear.disable_adapters:
        for adapter in linear.active_adapters:
            weight = weight + linear.get_delta_weight(adapter).detach()
    return weight, None if base.bias is None else base.bias.detach()
