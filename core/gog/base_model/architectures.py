"""What the folder of each architecture must hold: the names and shapes of its weights, its tokens, its image processor.

Derived from config.json alone, so that processes without torch compare a folder of any size in milliseconds; a test
holds every row to the model that transformers builds. Fields that a config.json leaves out have transformers' defaults.
Weights are named as transformers names them today; `current` translates the names of older files.

A model family adds a row. Without one, the weights are compared when a stage loads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Config = Mapping[str, Any]

TEXT, VISION, HEAD = "model.language_model.", "model.visual.", "lm_head.weight"


@dataclass(frozen=True)
class Architecture:
    """One value of `model_type`."""

    weights: Callable[[Config], dict[str, Shape]]
    """Shape of every weight by its name, from config.json. HEAD is left out where it is tied to the embedding."""
    patch: int
    """Side of an image patch in pixels where vision_config does not give it."""
    tokens: Mapping[str, tuple[str, int]]
    """Token of each field of config.json that holds a token's id, and the id where the field is missing."""
    image_processors: frozenset[str]
    """Values of `image_processor_type` that it can be read with."""


def text_of(config: Config) -> Config:
    """The language model's part of config.json, which older files have at the root."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def vision_of(config: Config) -> Config:
    """The vision tower's part of config.json."""
    nested = config.get("vision_config")
    return nested if isinstance(nested, Mapping) else {}


def current(name: str) -> str:
    """The present name of a weight: `visual.…` and `model.layers.…` of older Qwen-VL files were moved."""
    name = re.sub(r"^visual\.", VISION, name)
    return re.sub(r"^model\.(?!language_model\.|visual\.)", TEXT, name)


def fits(name: str, found: Shape, expected: Shape) -> bool:
    """Whether a weight has the expected shape. Experts' matrices may be transposed: transformers reads either form."""
    return found == expected or (".experts." in name and found == (*expected[:1], *expected[:0:-1]))


def _linear(name: str, out: int, wide: int, *, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, wide)
    if bias:
        yield f"{name}.bias", (out,)


def _norm(name: str, wide: int, *, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (wide,)
    if bias:
        yield f"{name}.bias", (wide,)


def _qwen(
    defaults: tuple[Config, Config], tower: Callable[[Config], Iterator[tuple[str, Shape]]], *, normed: bool
) -> Callable[[Config], dict[str, Shape]]:
    """The weights of a Qwen-VL.

    Args:
        defaults: of the language model and of the vision tower
        tower: the vision tower's weights
        normed: whether queries and keys are normed (Qwen3) instead of having a bias (Qwen2.5)
    """

    def weights(config: Config) -> dict[str, Shape]:
        text, vision = {**defaults[0], **text_of(config)}, {**defaults[1], **vision_of(config)}
        found = dict(tower(vision))
        embedding = (int(text["vocab_size"]), int(text["hidden_size"]))
        found[f"{TEXT}embed_tokens.weight"] = embedding
        found |= _norm(f"{TEXT}norm", embedding[1], bias=False)
        for layer in range(int(text["num_hidden_layers"])):
            found |= _attention(f"{TEXT}layers.{layer}.", text, normed)
            found |= _mlp(f"{TEXT}layers.{layer}.mlp.", text, layer)
        if not config.get("tie_word_embeddings"):
            found[HEAD] = embedding
        return found

    return weights


def _attention(layer: str, text: Config, normed: bool) -> Iterator[tuple[str, Shape]]:
    hidden, heads, groups = (int(text[k]) for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    size = int((normed and text.get("head_dim")) or hidden // heads)
    bias = bool(text.get("attention_bias")) if normed else True
    for name, count in (("q_proj", heads), ("k_proj", groups), ("v_proj", groups)):
        yield from _linear(f"{layer}self_attn.{name}", count * size, hidden, bias=bias)
    yield from _linear(f"{layer}self_attn.o_proj", hidden, heads * size, bias=bias and normed)
    for name in ("q_norm", "k_norm") if normed else ():
        yield from _norm(f"{layer}self_attn.{name}", size, bias=False)
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield from _norm(f"{layer}{name}", hidden, bias=False)


def _mlp(mlp: str, text: Config, layer: int) -> Iterator[tuple[str, Shape]]:
    hidden, experts = int(text["hidden_size"]), int(text.get("num_experts", text.get("num_local_experts", 0)))
    if experts and layer not in text["mlp_only_layers"] and (layer + 1) % int(text["decoder_sparse_step"]) == 0:
        wide = int(text["moe_intermediate_size"])
        yield f"{mlp}experts.gate_up_proj", (experts, 2 * wide, hidden)
        yield f"{mlp}experts.down_proj", (experts, hidden, wide)
        yield from _linear(f"{mlp}gate", experts, hidden, bias=False)
        return
    wide = int(text["intermediate_size"])
    for name, (high, deep) in {
        "gate_proj": (wide, hidden),
        "up_proj": (wide, hidden),
        "down_proj": (hidden, wide),
    }.items():
        yield from _linear(mlp + name, high, deep, bias=False)


def _embedded_patch(vision: Config) -> Shape:
    channels = int(vision.get("in_channels", vision.get("in_chans", 3)))
    side = int(vision["patch_size"])
    return int(vision["hidden_size"]), channels, int(vision["temporal_patch_size"]), side, side


def _qwen2_5_tower(vision: Config) -> Iterator[tuple[str, Shape]]:
    wide, deep = int(vision["hidden_size"]), int(vision["intermediate_size"])
    yield f"{VISION}patch_embed.proj.weight", _embedded_patch(vision)
    for number in range(int(vision["depth"])):
        block = f"{VISION}blocks.{number}."
        yield from _norm(f"{block}norm1", wide, bias=False)
        yield from _norm(f"{block}norm2", wide, bias=False)
        yield from _linear(f"{block}attn.qkv", 3 * wide, wide, bias=True)
        yield from _linear(f"{block}attn.proj", wide, wide, bias=True)
        yield from _linear(f"{block}mlp.gate_proj", deep, wide, bias=True)
        yield from _linear(f"{block}mlp.up_proj", deep, wide, bias=True)
        yield from _linear(f"{block}mlp.down_proj", wide, deep, bias=True)
    merged = wide * int(vision["spatial_merge_size"]) ** 2
    yield from _norm(f"{VISION}merger.ln_q", wide, bias=False)
    yield from _linear(f"{VISION}merger.mlp.0", merged, merged, bias=True)
    yield from _linear(f"{VISION}merger.mlp.2", int(vision["out_hidden_size"]), merged, bias=True)


def _qwen3_tower(vision: Config) -> Iterator[tuple[str, Shape]]:
    wide, deep, out = (int(vision[name]) for name in ("hidden_size", "intermediate_size", "out_hidden_size"))
    yield f"{VISION}patch_embed.proj.weight", _embedded_patch(vision)
    yield f"{VISION}patch_embed.proj.bias", (wide,)
    yield f"{VISION}pos_embed.weight", (int(vision["num_position_embeddings"]), wide)
    for number in range(int(vision["depth"])):
        block = f"{VISION}blocks.{number}."
        yield from _norm(f"{block}norm1", wide, bias=True)
        yield from _norm(f"{block}norm2", wide, bias=True)
        yield from _linear(f"{block}attn.qkv", 3 * wide, wide, bias=True)
        yield from _linear(f"{block}attn.proj", wide, wide, bias=True)
        yield from _linear(f"{block}mlp.linear_fc1", deep, wide, bias=True)
        yield from _linear(f"{block}mlp.linear_fc2", wide, deep, bias=True)
    merged = wide * int(vision["spatial_merge_size"]) ** 2
    levels = range(len(vision["deepstack_visual_indexes"]))
    for merger in ("merger.", *(f"deepstack_merger_list.{level}." for level in levels)):
        yield from _norm(f"{VISION}{merger}norm", wide if merger == "merger." else merged, bias=True)
        yield from _linear(f"{VISION}{merger}linear_fc1", merged, merged, bias=True)
        yield from _linear(f"{VISION}{merger}linear_fc2", out, merged, bias=True)


_TOKENS = {
    "image_token_id": ("<|image_pad|>", 151655),
    "video_token_id": ("<|video_pad|>", 151656),
    "vision_start_token_id": ("<|vision_start|>", 151652),
    "vision_end_token_id": ("<|vision_end|>", 151653),
}
_READERS = frozenset(
    f"{name}{kind}"
    for name in ("Qwen2VLImageProcessor", "Qwen2_5_VLImageProcessor", "Qwen3VLImageProcessor")
    for kind in ("", "Fast", "Pil")
)
_VISION2_5 = {
    "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "out_hidden_size": 3584, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
_VISION3 = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 3584, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip
_TEXT2_5 = {
    "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip
_TEXT3 = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
}  # fmt: skip
_TEXT3_MOE = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_local_experts": 60,
    "moe_intermediate_size": 1408, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip

BY_MODEL_TYPE = {
    "qwen2_5_vl": Architecture(_qwen((_TEXT2_5, _VISION2_5), _qwen2_5_tower, normed=False), 14, _TOKENS, _READERS),
    "qwen3_vl": Architecture(_qwen((_TEXT3, _VISION3), _qwen3_tower, normed=True), 16, _TOKENS, _READERS),
    "qwen3_vl_moe": Architecture(_qwen((_TEXT3_MOE, _VISION3), _qwen3_tower, normed=True), 16, _TOKENS, _READERS),
}
"""Architectures by `model_type` of config.json."""
