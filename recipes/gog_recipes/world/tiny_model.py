"""The tiny model: a small Qwen2.5-VL in ordinary Hugging Face form.

620,000 parameters: three language layers of width 96 and two vision layers of width 64. A 112-pixel image is 16 image
tokens, a 28-pixel crop is one. It differs from the real model in size only: the same classes load it, and the same code
trains and serves it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pil_processing

from gog.errors import UserError
from gog_recipes.world import drawing, vocabulary

HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS = 96, 3, 4, 2
VISION_HIDDEN, VISION_LAYERS, VISION_HEADS = 64, 2, 4
PATCH = 14
MERGE = 2


def build_config() -> transformers.Qwen2_5_VLConfig:
    """The model's configuration; token ids are those of the vocabulary."""
    ids = {word: number for number, word in enumerate(vocabulary.words())}
    return transformers.Qwen2_5_VLConfig(
        text_config=_text_config(len(ids), ids),
        vision_config=_vision_config(),
        image_token_id=ids[vocabulary.IMAGE_PAD],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        dtype="float32",
    )


def build_model(seed: int) -> transformers.Qwen2_5_VLForConditionalGeneration:
    """An untrained model, fp32 on the CPU. Seeds torch's global generator."""
    torch.manual_seed(seed)
    config = build_config()
    config._attn_implementation = "sdpa"
    model = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32)
    model.generation_config = build_generation_config()
    return model


def build_generation_config() -> transformers.GenerationConfig:
    """Generation stops at the end of a turn and never writes image tokens."""
    ids = {word: number for number, word in enumerate(vocabulary.words())}
    return transformers.GenerationConfig(
        eos_token_id=ids[vocabulary.TURN_END],
        pad_token_id=ids[vocabulary.PAD],
        suppress_tokens=sorted(ids[word] for word in vocabulary.SUPPRESSED),
    )


def build_image_processor() -> pil_processing.Qwen2VLImageProcessorPil:
    """Resizes an image to at most the pixels of a scene and at least those of a crop."""
    size = {"shortest_edge": drawing.CELL**2, "longest_edge": drawing.SIDE**2}
    return pil_processing.Qwen2VLImageProcessorPil(size=size)


def save(model: transformers.Qwen2_5_VLForConditionalGeneration, folder: Path, card: str) -> None:
    """Writes the model, its tokenizer and its image processor; each file appears whole or not at all.

    Args:
        model: what to write.
        folder: an existing folder; files of the same name are replaced.
        card: text of README.md.
    """
    with tempfile.TemporaryDirectory(prefix=".saving-", suffix=".tmp", dir=folder) as scratch:
        model.save_pretrained(scratch)
        vocabulary.build_tokenizer().save_pretrained(scratch)
        build_image_processor().save_pretrained(scratch)
        (Path(scratch) / "README.md").write_text(card, encoding="utf-8")
        for path in sorted(Path(scratch).iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)


def check_writable(folder: Path) -> None:
    """Creates a folder if it does not exist. Raises UserError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp"):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write the model: {error.strerror}", where=str(folder), remedy="name another folder: output_dir=…"
        ) from error


def _text_config(size: int, ids: dict[str, int]) -> dict[str, Any]:
    half_head = HIDDEN // HEADS // 2
    across = (half_head - half_head // 4) // 2
    return {
        "vocab_size": size,
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "max_position_embeddings": vocabulary.MAX_TOKENS,
        "bos_token_id": None,
        "eos_token_id": ids[vocabulary.TURN_END],
        "pad_token_id": ids[vocabulary.PAD],
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [half_head - 2 * across, across, across],  # time, height, width: half a head together
        },
    }


def _vision_config() -> dict[str, Any]:
    return {
        "depth": VISION_LAYERS,
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": 2 * VISION_HIDDEN,
        "num_heads": VISION_HEADS,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": HIDDEN,
        "window_size": drawing.SIDE,
        "fullatt_block_indexes": list(range(VISION_LAYERS)),
    }
