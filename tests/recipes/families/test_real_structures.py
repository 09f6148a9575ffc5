"""The bases that tests build: Qwen's own tokenizer, published file layout, weights that all matter."""

from __future__ import annotations

import base64
import importlib.util
import json
import random

import pytest
import tiktoken
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from support import real_structures

from gog import base_model


@pytest.fixture(scope="module")
def tokenizer(real_tokenizer):
    return transformers.AutoTokenizer.from_pretrained(real_tokenizer)


def test_known_texts_have_the_published_ids(tokenizer):
    assert tokenizer.encode("Hello, world!") == [9707, 11, 1879, 0]
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|image_pad|>", "</think>"]) == [151645, 151655, 151668]


def test_any_text_has_the_ids_that_tiktoken_gives(tokenizer):
    path = real_structures._package("dashscope", "dashscope") / "resources" / "qwen.tiktoken"
    lines = [line.split() for line in path.read_bytes().splitlines() if line]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    reference = tiktoken.Encoding("qwen", pat_str=real_structures._SPLIT, mergeable_ranks=ranks, special_tokens={})
    draw, alphabet = random.Random(0), "abz <>/#_.,;:!?'0189\n\t\r漢字éñß😀=(){}[]#\"-"
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(1, 60))) for _ in range(500)]
    assert [tokenizer.encode(text) for text in texts] == [reference.encode(text) for text in texts]


def test_without_the_package_of_the_tokenizer_every_test_that_asks_for_a_base_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(real_structures, "_vocabulary", real_structures._vocabulary.__wrapped__)  # not the cached one
    real_base = real_structures.bases(tmp_path)
    for _ in range(2):
        with pytest.raises(pytest.skip.Exception, match=r"dashscope, .* is not installed"):
            real_base("qwen3_vl")


@pytest.mark.parametrize("family", real_structures.FAMILIES)
def test_a_base_passes_the_check_of_its_folder_and_loads_whole(real_base, family):
    folder = real_base(family)
    if family in base_model.model_types():
        base_model.check(folder)
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert not [name for name, weight in model.named_parameters() if float(weight.detach().float().std()) < 0.01]


def test_experts_are_stored_in_the_published_layout(real_base):
    folder = real_base("qwen3_vl_moe")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    with safe_open(folder / index[name], "pt") as shard:
        assert shard.get_slice(name).get_shape() == [4, 256, 2 * 192]  # experts, input, output


def test_the_same_base_is_built_once(real_base):
    assert real_base("qwen2_5_vl", tied=True) == real_base("qwen2_5_vl", tied=True) != real_base("qwen2_5_vl")


def test_photographs_are_real_and_of_different_sizes(photographs):
    sizes = {Image.open(path).size for path in photographs}
    assert len(sizes) == len(photographs) and min(min(size) for size in sizes) >= 300
