"""The language model of any family for sampling: the trainer's weights, and a key-value cache with blocks per conversation.

transformers' generate() reads a conversation again at every turn. Here what was read of a conversation stays cached for
as long as it is open: a new observation is appended, nothing is read twice, and conversations of different lengths
advance together.

It serves the decoder layers of Qwen2.5-VL and Qwen3-VL: grouped-query attention with M-RoPE, with or without biases and
norms of queries and keys, gated MLPs or experts, and image features that are added after the first layers (DeepStack).

Shapes: b conversations of one step, n new tokens each, h hidden size, H query heads, K key-value heads, d head size,
v vocabulary, k image tokens of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from gog_recipes.models import decoder_attention, decoder_weights, kv_cache, policy_model
from gog_recipes.models.decoder_attention import Attention
from gog_recipes.models.decoder_weights import Layer
from gog_recipes.models.kv_cache import Row
from gog_recipes.runtime import parallel


@dataclass(frozen=True)
class StepInputs:
    """What a step reads."""

    rows: Sequence[Row]
    """Where each of the b conversations is cached; blocks are reserved for the new tokens too."""
    starts: Sequence[int]
    """Tokens of each that are cached, those of a shared prompt included."""
    counts: Sequence[int]
    """New tokens of each, at least 1."""
    ids: torch.Tensor
    """[b, n] the new tokens, padded on the right."""
    positions: torch.Tensor
    """[3, b, n] their rotary positions."""
    images: torch.Tensor | None
    """[b, n] bool: which of them are image tokens; None for none."""
    features: torch.Tensor | None
    """[k, h] of the image tokens, row by row; or [k, 1 + levels, h], where the others are added after the first layers."""


class Decoder:
    """The weights and the cache.

    Args:
        model: a loaded model, with or without adapters applied

    Attributes:
        layout: what the cache holds of a token
        cache: created by `make_cache`
    """

    cache: kv_cache.KVCache

    def __init__(self, model: torch.nn.Module) -> None:
        config = policy_model.core(model).config.get_text_config()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.epsilon, self.vocabulary = config.rms_norm_eps, config.vocab_size
        self.refresh(model)
        self.layout = kv_cache.Layout(
            len(self.layers), self.kv_heads, self.head_size, self.embedding.dtype, self.embedding.device
        )

    def make_cache(self, longest: int, limit_bytes: int) -> None:
        """Makes an empty cache for conversations of at most `longest` tokens."""
        self.cache = kv_cache.KVCache(self.layout, longest=longest, limit_bytes=limit_bytes)
        self._planner = decoder_attention.Planner()

    @torch.no_grad()
    def refresh(self, model: torch.nn.Module) -> None:
        """Samples from the model's current weights and adapters from now on. All ranks at once where it is sharded."""
        self._forget()
        inner, language = policy_model.core(model), policy_model.language_model(model)
        self.sharded = any(map(parallel.is_sharded, language.layers))
        size = sum(each.numel() * each.element_size() for each in language.layers.parameters())
        fused = size <= decoder_weights.FUSED_BYTES
        self.layers: list[Layer] = [decoder_weights.layer(each, fused=fused) for each in language.layers]
        device = self.layers[0].norm1.device  # shards may be offloaded to another
        self.rotary = language.rotary_emb
        self.norm = parallel.full(language.norm.weight.detach()).to(device)
        self.head = parallel.full(inner.lm_head.weight.detach()).to(device)
        if fused and self.head.nbytes <= decoder_weights.FUSED_BYTES:
            self.head = decoder_weights.by_input(self.head)
        self.embedding = parallel.full(language.embed_tokens.weight.detach()).to(device)

    def rest(self) -> None:
        """Frees the cache, and the copies of a sharded model's weights, which `refresh` makes again."""
        self.cache.free()
        if self.sharded:
            self._forget()

    def _forget(self) -> None:
        """Frees copies of weights, so that none exists twice while others are made."""
        self.layers = []
        self.head = self.embedding = torch.empty(0)

    @torch.no_grad()
    def step(self, inputs: StepInputs) -> torch.Tensor:
        """Appends tokens to conversations.

        Returns:
            Logits [b, v] after each conversation's last new token.
        """
        assert self.layers, "a sharded model was at rest and its weights were not switched"
        x = F.embedding(inputs.ids, self.embedding)
        deep: list[torch.Tensor] = []
        if inputs.features is not None and inputs.images is not None:
            levels = (inputs.features[:, None] if inputs.features.dim() == 2 else inputs.features).to(x)
            x[inputs.images] = levels[:, 0]
            deep = list(levels[:, 1:].unbind(1))
        cos, sin = (part[:, :, None] for part in self.rotary(x, inputs.positions))  # [b, n, 1, d]
        sin = torch.cat((-sin[..., : self.head_size // 2], sin[..., self.head_size // 2 :]), -1)
        attend = self._planner.plan(self.cache, inputs.rows, inputs.starts, inputs.counts)
        ends = torch.arange(len(x), device=x.device), torch.tensor(inputs.counts, device=x.device) - 1
        for index, layer in enumerate(self.layers):
            # What the last layer computes of a token is read of the last one only; of the others it needs keys and values.
            only = ends if index == len(self.layers) - 1 and index >= len(deep) and x.shape[1] > 1 else None
            normed = F.rms_norm(x, x.shape[-1:], layer.norm1, self.epsilon)
            x = x if only is None else x[only][:, None]
            x = x + layer.out(self._attention(layer, index, attend, normed, cos, sin, only))
            x = x + layer.mlp(F.rms_norm(x, x.shape[-1:], layer.norm2, self.epsilon))
            if index < len(deep):
                x[inputs.images] += deep[index]
        last = x[ends] if x.shape[1] > 1 else x[:, 0]
        return F.linear(F.rms_norm(last, last.shape[-1:], self.norm, self.epsilon), self.head)

    def _attention(
        self,
        layer: Layer,
        index: int,
        attend: Attention,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        only: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Attention of one layer, [b, n, h] -> [b, n, H · d]; cos and sin are [b, n, 1, d], the first half of sin negated.

        `only` names one token of each conversation, [b] rows and [b] places; then that of others is not computed: [b, 1, H · d].
        """
        mixed: Any = layer.qkv(x).unflatten(-1, (self.heads + 2 * self.kv_heads, self.head_size))
        rotated, values = mixed[:, :, : self.heads + self.kv_heads], mixed[:, :, self.heads + self.kv_heads :]
        if layer.qk_norm is not None:
            rotated = F.rms_norm(rotated, (self.head_size,), None, self.epsilon) * layer.qk_norm
        rotated = rotated * cos + rotated.roll(self.head_size // 2, -1) * sin
        queries, keys = rotated[:, :, : self.heads], rotated[:, :, self.heads :]
        if only is not None:
            queries = queries[only][:, None]
        return attend(self.cache.keys[index], self.cache.values[index], queries, keys, values)
