"""A Qwen2.5-VL language model for sampling: fused weights, a key-value cache with a row per conversation.

transformers' generate() reads a conversation again at every turn. Here a row's cache lives as long as its conversation:
a new observation is appended, nothing is read twice, and rows of different lengths advance together.

The adapter is folded into float32 weights, so sampling costs what the base model costs. Into weights of lower precision
it must not be folded: an update of RL is smaller than the gap between two bfloat16 numbers, and most of it would be
rounded away. There B stays beside the weights as further columns, and A's output is appended to the input. So base and
update are added up within one product, before its result is rounded.

Shapes: b rows of one step, n new tokens per row, t tokens cached at most, h hidden size, H query heads, K key-value
heads, d head size, v vocabulary, r rank of the adapters of a fused linear, all together.
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
class Linear:
    """One or more linears of the same input, side by side."""

    weight: torch.Tensor
    """[out, in], with the adapters folded in; or [out, in + r], with their scaled B as the last r columns, each in the
    rows of its own linear."""
    bias: torch.Tensor | None
    """[out]."""
    down: torch.Tensor | None = None
    """[r, in] float32: the adapters' A, where they are not folded in."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        if self.down is not None:
            x = torch.cat((x, F.linear(x.to(self.down.dtype), self.down).to(x.dtype)), -1)
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Layer:
    """The weights of a decoder layer."""

    norm1: torch.Tensor
    """[h] of the norm before attention."""
    qkv: Linear
    """h -> (H + 2K) · d: queries, keys, values."""
    out: Linear
    """H · d -> h."""
    norm2: torch.Tensor
    """[h] of the norm before the MLP."""
    gate_up: Linear
    """h -> 2 · intermediate size."""
    down: Linear
    """intermediate size -> h."""


class Decoder:
    """Fused weights and the cache of `rows` conversations of at most `length` tokens each."""

    def __init__(self, model: torch.nn.Module, rows: int, length: int) -> None:
        """
        Args:
            model: a Qwen2.5-VL model, with or without adapters applied.
            rows: conversations in the cache.
            length: t, tokens of each at most.
        """
        config = models.core(model).config.get_text_config()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size, self.epsilon = config.hidden_size // config.num_attention_heads, config.rms_norm_eps
        self.rows, self.length = rows, length
        self.refresh(model)
        self.free_cache()

    def free_cache(self) -> None:
        """Forgets all conversations; the next step allocates the cache again."""
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def _allocate_cache(self) -> None:
        like = self.embedding
        # One position more than a conversation may have: padded tokens of a mixed batch are written there, never read.
        shape = (self.rows, self.kv_heads, self.length + 1, self.head_size)
        self.keys = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in self.layers]
        self.values = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in self.layers]

    @torch.no_grad()
    def refresh(self, model: torch.nn.Module) -> None:
        """Takes over the model's current weights and adapters. All ranks at once where it is sharded."""
        inner = models.core(model)
        language = inner.model.language_model
        self.rotary = language.rotary_emb
        self.norm = language.norm.weight.detach()
        self.head = inner.lm_head.weight.detach()
        self.embedding = language.embed_tokens.weight.detach()
        self.layers = [_layer(layer) for layer in language.layers]

    @torch.no_grad()
    def step(
        self,
        rows: torch.Tensor,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        starts: torch.Tensor,
        counts: torch.Tensor,
    ) -> torch.Tensor:
        """Appends tokens to conversations.

        Args:
            rows: [b] cache rows.
            embedded: [b, n, h] new tokens, padded on the right.
            positions: [3, b, n] rotary positions.
            starts: [b] tokens already cached.
            counts: [b] how many of the n tokens are real, at least 1.

        Returns:
            Logits [b, v] after each row's last real token.
        """
        if not self.keys:
            self._allocate_cache()
        b, n, h = embedded.shape
        total = int((starts + counts).max())
        offsets = torch.arange(n, device=rows.device)
        at = starts[:, None] + offsets
        visible = (torch.arange(total, device=rows.device) <= at[..., None])[:, None]  # [b, 1, n, total]
        at = at.masked_fill(offsets >= counts[:, None], self.length)
        cos, sin = (part[:, :, None] for part in self.rotary(embedded, positions))  # [b, n, 1, d]
        x, contiguous = embedded, _contiguous(rows)
        for index, layer in enumerate(self.layers):
            normed = F.rms_norm(x, (h,), layer.norm1, self.epsilon)
            mixed = layer.qkv(normed).view(b, n, self.heads + 2 * self.kv_heads, self.head_size)
            rotated = mixed[:, :, : self.heads + self.kv_heads]
            rotated = rotated * cos + _rotate_half(rotated) * sin
            keys, values = self.keys[index], self.values[index]
            keys[rows[:, None], :, at] = rotated[:, :, self.heads :]
            values[rows[:, None], :, at] = mixed[:, :, self.heads + self.kv_heads :]
            own = contiguous if contiguous is not None else rows
            attended = self._attend(
                rotated[:, :, : self.heads], keys[own][:, :, :total], values[own][:, :, :total], visible
            )
            x = x + layer.out(attended)
            gate, up = layer.gate_up(F.rms_norm(x, (h,), layer.norm2, self.epsilon)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        last = x[torch.arange(b, device=rows.device), counts - 1]
        return F.linear(F.rms_norm(last, (h,), self.norm, self.epsilon), self.head)

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """Attention over the cache.

        Args:
            queries: [b, n, H, d].
            keys: [b, K, total, d].
            values: [b, K, total, d].
            visible: [b, 1, n, total] bool.

        Returns:
            [b, n, H · d].
        """
        b, n = queries.shape[:2]
        if n > 1:
            out = F.scaled_dot_product_attention(
                queries.transpose(1, 2), keys, values, attn_mask=visible, enable_gqa=True
            )
            return out.transpose(1, 2).reshape(b, n, -1)
        # One token per row: two batched products over the key-value heads are faster than the fused kernel on a CPU.
        grouped = queries[:, 0].reshape(b, self.kv_heads, self.heads // self.kv_heads, self.head_size)
        scores = torch.matmul(grouped, keys.transpose(-1, -2)) * self.head_size**-0.5
        weights = scores.masked_fill(~visible[:, :, 0][:, :, None], float("-inf")).softmax(-1)
        return torch.matmul(weights, values).reshape(b, 1, -1)

    def copy_row(self, source: int, targets: list[int], length: int) -> None:
        """Gives conversations the same beginning: the first `length` cached tokens of one row."""
        for cache in (*self.keys, *self.values):
            cache[targets, :, :length] = cache[source, :, :length]


def _contiguous(rows: torch.Tensor) -> slice | None:
    """Rows [b] as a slice where they are consecutive, which avoids a copy of the cache."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows) and bool((rows[1:] > rows[:-1]).all()):
        return slice(first, last + 1)
    return None


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    """[..., d] -> [..., d]: the second half negated, before the first."""
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def _layer(layer: Any) -> Layer:
    """The weights of a transformers decoder layer. Of a sharded one only copies last, and an adapter makes each a copy."""
    with parallel.whole(layer):
        attention, mlp = layer.self_attn, layer.mlp
        return Layer(
            norm1=layer.input_layernorm.weight.detach().clone(),
            qkv=fuse(attention.q_proj, attention.k_proj, attention.v_proj),
            out=fuse(attention.o_proj),
            norm2=layer.post_attention_layernorm.weight.detach().clone(),
            gate_up=fuse(mlp.gate_proj, mlp.up_proj),
            down=fuse(mlp.down_proj),
        )


def fuse(*linears: Any) -> Linear:
    """Linears of the same input, with or without LoRA adapters, as one.

    Args:
        linears: torch.nn.Linear, or peft's LoraLayer around one; all with a bias, or none.
    """
    weights, biases, downs, ups = [], [], [], []
    for linear in linears:
        base = linear.get_base_layer() if isinstance(linear, LoraLayer) else linear
        weight, adapters = base.weight.detach(), _active(linear)
        if weight.dtype.itemsize >= 4:
            weight = sum((linear.get_delta_weight(name).detach() for name in adapters), weight)
            adapters = ()
        weights.append(weight)
        biases.append(None if base.bias is None else base.bias.detach())
        downs.append([linear.lora_A[name].weight.detach().float() for name in adapters])
        ups.append([linear.lora_B[name].weight.detach().float() * linear.scaling[name] for name in adapters])
    bias = None if biases[0] is None else torch.cat(biases)
    whole = torch.cat(weights) if len(weights) > 1 else weights[0]
    if not any(downs):
        return Linear(whole, bias)
    # Each linear's own adapters beside each other, and those of different linears in different rows and columns.
    blocks = [torch.cat(own, 1) if own else weight.new_zeros((len(weight), 0)) for own, weight in zip(ups, weights)]
    up = torch.block_diag(*(block.float() for block in blocks)).to(weights[0].dtype)
    down = torch.cat([each for own in downs for each in own])
    return Linear(torch.cat((whole, up), 1), bias, down)


def _active(linear: Any) -> tuple[str, ...]:
    """Names of the adapters that take part in a linear's output."""
    if not isinstance(linear, LoraLayer) or linear.disable_adapters:
        return ()
    return tuple(name for name in linear.active_adapters if name in linear.lora_A)
