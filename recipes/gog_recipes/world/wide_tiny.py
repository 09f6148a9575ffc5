"""The tiny model with attention heads of 32 instead of 24, for engines that take only some head sizes.

    python -m gog_recipes.world.wide_tiny FOLDER

vLLM's attention on a CPU takes heads of 32, 64, 80, 96, 112, 128, …. A head's size follows from the hidden size, so both
are padded with zeros; what depends on a width is compensated in the weights and the configuration:

    softmax      d^-0.5 becomes smaller        queries are multiplied by (32 / 24)^0.5
    RMS norm     the mean is over 128          weights are multiplied by (96 / 128)^0.5, epsilon by 96 / 128
    rotation     frequency θ^(-2i / d)         θ becomes θ^(32 / 24), and each half of a head is padded by itself

So both models compute the same function, up to rounding. An adapter trained on one does not fit the other.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gog_recipes import world

HEAD = 32
"""Size of a head."""
COPIED = ("chat_template.jinja", "generation_config.json", "preprocessor_config.json", "tokenizer.json")
"""Files that are alike in both models."""


def write(folder: Path, source: Path = world.TINY) -> Path:
    """Writes the padded model.

    Args:
        folder: of the new model; created if it does not exist.
        source: the tiny model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    weights = load_file(source / "model.safetensors")
    padded = {name: _padded(name, weight, config["text_config"]) for name, weight in weights.items()}
    save_file(padded, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_widened(config), indent=2) + "\n")
    for name in (*COPIED, "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    return folder


def _sizes(text: dict[str, Any]) -> tuple[int, int, int]:
    """Hidden size before and after, and size of a head before."""
    heads = text["num_attention_heads"]
    return text["hidden_size"], heads * HEAD, text["hidden_size"] // heads


def _widened(config: dict[str, Any]) -> dict[str, Any]:
    hidden, wide, head = _sizes(config["text_config"])
    rope = config["text_config"]["rope_parameters"]
    *first, last = rope["mrope_section"]
    text = config["text_config"] | {
        "hidden_size": wide,
        "rms_norm_eps": config["text_config"]["rms_norm_eps"] * hidden / wide,
        "rope_parameters": rope
        | {"rope_theta": rope["rope_theta"] ** (HEAD / head), "mrope_section": [*first, last + (HEAD - head) // 2]},
    }
    return config | {"text_config": text, "vision_config": config["vision_config"] | {"out_hidden_size": wide}}


def _padded(name: str, weight: torch.Tensor, text: dict[str, Any]) -> torch.Tensor:
    """A weight in the size that it has in the padded model; those of the vision tower keep theirs."""
    hidden, wide, head = _sizes(text)
    if name.startswith("visual.merger.mlp.2."):
        return _grow(weight, 0, wide)
    if name.startswith("visual."):
        return weight
    if "norm" in name:
        return _grow(weight * (hidden / wide) ** 0.5, 0, wide)
    if ".self_attn.o_proj." in name:
        return _grow(_grow_heads(weight.T.contiguous(), head).T.contiguous(), 0, wide)
    if ".self_attn." in name:
        scale = (HEAD / head) ** 0.5 if ".q_proj." in name else 1.0
        grown = _grow_heads(weight * scale, head)
        return grown if name.endswith("bias") else _grow(grown, 1, wide)
    return _grow(weight, 0 if name.endswith("down_proj.weight") else 1, wide)


def _grow(weight: torch.Tensor, dimension: int, size: int) -> torch.Tensor:
    """A weight with zeros appended along a dimension."""
    shape = list(weight.shape)
    shape[dimension] = size - shape[dimension]
    return torch.cat((weight, weight.new_zeros(shape)), dimension)


def _grow_heads(weight: torch.Tensor, head: int) -> torch.Tensor:
    """Rows of heads [heads · head, …] -> [heads · HEAD, …]; a rotated pair is element i of one half and of the other."""
    halves = weight.reshape(-1, 2, head // 2, *weight.shape[1:])
    return _grow(halves, 2, HEAD // 2).reshape(-1, *weight.shape[1:])


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
