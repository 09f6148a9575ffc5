"""Small model folders without torch: a configuration, a tokenizer, an image processor, weights of the right names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gog import base_model, tensors
from gog.base_model import architectures

TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEXT = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
VISION = {
    "depth": 1,
    "hidden_size": 4,
    "intermediate_size": 6,
    "out_hidden_size": 8,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
IDS = {"image_token_id": 7, "video_token_id": 8, "vision_start_token_id": 5, "vision_end_token_id": 6}


def config(**changes: Any) -> dict[str, Any]:
    """config.json of a Qwen2.5-VL in the flat form in which it is published."""
    return {"model_type": "qwen2_5_vl", **TEXT, "vision_config": dict(VISION), **IDS, **changes}


def tokenizer(**moved: int) -> dict[str, Any]:
    """tokenizer.json of two words and TOKENS from id 2 on. moved: ids by token."""
    added = [{"id": moved.get(token, number), "content": token} for number, token in enumerate(TOKENS, 2)]
    return {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": added}


def preprocessor(**changes: Any) -> dict[str, Any]:
    """preprocessor_config.json of the configuration."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **changes,
    }


def weights(given: dict[str, Any], *, dtype: str = "BF16", seed: int = 0) -> dict[str, tuple[str, np.ndarray]]:
    """Random weights of a configuration, by name."""
    rng = np.random.default_rng(seed)
    shapes = architectures.BY_MODEL_TYPE[given["model_type"]].weights(given)
    return {name: (dtype, rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}


def write(folder: Path, given: dict[str, Any] | None = None, *, shards: int = 1, seed: int = 0) -> Path:
    """A whole base model.

    Args:
        folder: where it goes
        given: its config.json; by default `config()`
        shards: number of files of its weights
        seed: of its weights
    """
    given = config() if given is None else given
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", given)
    write_json(folder / "tokenizer.json", tokenizer())
    write_json(folder / "preprocessor_config.json", preprocessor())
    write_weights(folder, weights(given, seed=seed), shards)
    return folder


def write_weights(folder: Path, made: dict[str, tuple[str, np.ndarray]], shards: int = 1) -> None:
    """Writes weights as one file, or as shards with an index."""
    if shards == 1:
        tensors.write(folder / base_model.WEIGHTS, made)
        return
    index = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(made.items())[number::shards])
        tensors.write(folder / name, part)
        index |= dict.fromkeys(part, name)
    write_json(folder / base_model.INDEX, {"weight_map": index})


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")


def change_json(path: Path, **changes: Any) -> None:
    """Changes fields of a JSON file; None removes a field."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {name: value for name, value in content.items() if value is not None})
