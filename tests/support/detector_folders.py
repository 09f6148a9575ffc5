"""Small detectors of the real architectures with random weights, saved as transformers saves them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
import transformers

LETTERS = string.ascii_lowercase + string.digits
SEPARATORS = {100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
"""Ids of BERT's vocabulary that the code of Grounding DINO relies on."""


def word_pieces() -> dict[str, int]:
    """A vocabulary of single letters, with BERT's special tokens in their places."""
    tokens = ["[PAD]", *(f"[unused{number}]" for number in range(1, 1100))]
    for number, token in SEPARATORS.items():
        tokens[number] = token
    for place, letter in enumerate(LETTERS):
        tokens[200 + 2 * place : 202 + 2 * place] = [letter, f"##{letter}"]
    return {token: number for number, token in enumerate(tokens)}


def grounding_dino(folder: Path, *, side: int = 96, width: int = 64, queries: int = 20) -> Path:
    """A Grounding DINO.

    Args:
        folder: is created
        side: shorter side to which images are resized, in pixels
        width: of the transformer, at least 64
        queries: boxes before thresholds
    """
    torch.manual_seed(0)
    vocabulary = word_pieces()
    vision = transformers.SwinConfig(
        embed_dim=24,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = transformers.GroundingDinoConfig(
        backbone_config=vision,
        text_config=text,
        num_queries=queries,
        d_model=width,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=width,
        decoder_ffn_dim=width,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_text_len=64,
    )
    model = transformers.GroundingDinoForObjectDetection(config)
    spread(model, "bbox_embed", 0.5)
    sizes = {"shortest_edge": side, "longest_edge": 2 * side}
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(size=sizes), transformers.BertTokenizer(vocab=vocabulary)
    )
    return save(folder, model, processor)


def owlv2(folder: Path, *, side: int = 96) -> Path:
    """An OWLv2. folder: is created; side: of the square to which images are resized, in pixels."""
    torch.manual_seed(0)
    letters = [*LETTERS, " ", ".", "'"]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(["!", *pieces])}
    ids = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config={**small, "vocab_size": len(vocabulary), "max_position_embeddings": 16, "pad_token_id": 0, **ids},
        vision_config={**small, "image_size": side, "patch_size": 16},
        projection_dim=32,
    )
    model = transformers.Owlv2ForObjectDetection(config)
    spread(model, "box_head", 0.5)
    processor = transformers.Owlv2Processor(
        transformers.Owlv2ImageProcessor(size={"height": side, "width": side}),
        transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16),
    )
    return save(folder, model, processor)


def spread(model: torch.nn.Module, part: str, deviation: float) -> None:
    """Draws the weights of a part anew, so that its boxes differ: as initialised they are almost equal."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if part in name:
                weight.normal_(0, deviation)


def save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
