"""Small random base models with the structure of the published ones, and the tokenizer of the published ones.

The tiny model hides what differs at full size: tags of several tokens, biases, head sizes, DeepStack, experts, a head of
its own. So a test asks `real_base` for a folder in Hugging Face form, as a hub serves it: sharded safetensors, settings,
tokenizer, chat template, image processor. Widths and depths are small; everything else is as published. Weights are
drawn so that no part is close to doing nothing: a lost bias, norm or attention position changes the output.

Qwen's tokenizer is read from the package `dashscope`, photographs from `scikit-image` (both in the extra `dev`). Tests
that ask for either are skipped, with the reason, where it is absent.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Model types that `real_base` builds."""
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg")
"""Photographs of different sizes, 451 x 300 to 1411 x 1411 pixels."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ADDED = (  # ids 151643 to 151664; those without bars are not "special" in the published files
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
)
_ADDED_3 = (*_ADDED, "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Of Qwen3-VL, to id 151668."""
_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
_CHAT = (
    "{% for message in messages %}"
    "DEFAULT_SYSTEM"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_DEFAULT_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
"""Qwen2.5-VL's template adds a system prompt, Qwen3-VL's does not."""


@dataclass(frozen=True)
class Structure:
    """What a test may choose of a base model; the rest is as published."""

    family: str
    """Model type."""
    hidden: int = 256
    """Hidden size of the language model."""
    layers: int = 4
    """Decoder layers; DeepStack reaches the first three."""
    head_size: int = 128
    """64 for vLLM on a CPU, whose attention takes 32, 64, 80, 96, 112 and 128."""
    kv_heads: int = 1
    """Key-value heads."""
    tied: bool = False
    """Whether embedding and language head are one weight."""
    experts: int = 4
    """Experts of a layer, of which two are chosen (qwen3_vl_moe)."""
    length: int = 128_000
    """max_position_embeddings."""
    dtype: str = "bfloat16"
    """Type of the stored weights."""
    seed: int = 0
    """Of the weights."""


def vllm(family: str) -> dict[str, int]:
    """Overrides of `real_base` for a base model that vLLM serves on a CPU within its memory."""
    return {"head_size": 64, "layers": 3 if family != "qwen2_5_vl" else 2, "length": 8192}


@pytest.fixture(scope="session")
def real_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """real_base(family, **overrides of Structure): a folder with such a base model; the same folder when asked again."""
    return bases(tmp_path_factory.mktemp("bases"))


def bases(root: Path) -> Callable[..., Path]:
    """What the fixture `real_base` gives, with its folders below `root`."""
    tokenizers: dict[bool, Path] = {}

    @functools.cache
    def built(structure: Structure) -> Path:
        third = structure.family != "qwen2_5_vl"
        if third not in tokenizers:  # noted once it is written, because that skips the test where the package is absent
            written = root / f"tokenizer{3 if third else 2}"
            write_tokenizer(written, third_generation=third)
            tokenizers[third] = written
        folder = root / f"base{built.cache_info().misses}-{structure.family}"
        folder.mkdir()
        for path in tokenizers[third].iterdir():
            (folder / path.name).hardlink_to(path)
        write_base(folder, structure)
        return folder

    return lambda family, **overrides: built(Structure(family, **overrides))


@pytest.fixture(scope="session")
def real_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizer, chat template and image processor of Qwen3-VL, without weights."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, third_generation=True)
    return folder


@pytest.fixture(scope="session")
def photographs() -> tuple[Path, ...]:
    """Files of real photographs, of different sizes."""
    return tuple(_package("skimage", "scikit-image") / "data" / name for name in PHOTOGRAPHS)


def _package(module: str, distribution: str) -> Path:
    """The folder of an installed package, which is not imported. Skips the test where it is absent."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"{distribution} is not installed (pip install -e '.[dev]')")
    return Path(spec.origin).parent


# ---------------------------------------------------------------- the tokenizer


def _ranks() -> dict[bytes, int]:
    """Qwen's vocabulary: rank by the bytes of a token."""
    path = _package("dashscope", "dashscope, which has Qwen's tokenizer,") / "resources" / "qwen.tiktoken"
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two parts of which each token is joined last, in the order of ranks, as in a merges.txt."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[at : at + 1] for at in range(len(token))]
        while len(parts) > 2:
            joined = [ranks.get(left + right, rank) for left, right in itertools.pairwise(parts)]
            best = min(joined)
            if best >= rank:
                break
            at = joined.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


@functools.cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in the letters that byte-level tokenizers write bytes with."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    ranks, letters = _ranks(), bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    return {text(token): rank for token, rank in ranks.items()}, [(text(a), text(b)) for a, b in _merges(ranks)]


def write_tokenizer(folder: Path, *, third_generation: bool) -> None:
    """Writes tokenizer, chat template and image processor of Qwen2.5-VL or Qwen3-VL into a folder."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(*_vocabulary()))
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_SPLIT), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    words = _ADDED_3 if third_generation else _ADDED
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=word.startswith("<|")) for word in words])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    (folder / "chat_template.jinja").write_text(
        _CHAT.replace("DEFAULT_SYSTEM", "" if third_generation else _DEFAULT_SYSTEM)
    )
    _write(folder / "preprocessor_config.json", _PREPROCESSOR_3 if third_generation else _PREPROCESSOR_2)


_TOKENIZER_CONFIG = {
    "tokenizer_class": "Qwen2Tokenizer",
    "add_prefix_space": False,
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "errors": "replace",
    "model_max_length": 131072,
    "clean_up_tokenization_spaces": False,
    "split_special_tokens": False,
}
_PREPROCESSOR = {"temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}
_PREPROCESSOR_2 = _PREPROCESSOR | {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PREPROCESSOR_3 = _PREPROCESSOR | {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


# ---------------------------------------------------------------- the model


def write_base(folder: Path, structure: Structure) -> None:
    """Writes settings and weights of a base model into a folder."""
    import torch
    import transformers

    config = _qwen2_5(structure) if structure.family == "qwen2_5_vl" else _qwen3(structure)
    _write(folder / "config.json", config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(structure.seed)
        model = getattr(transformers, config["architectures"][0])(transformers.AutoConfig.from_pretrained(folder))
        _draw(model)
    model.to(getattr(torch, structure.dtype)).save_pretrained(folder, max_shard_size="60MB")
    if structure.family == "qwen3_vl_moe":
        _publish_experts(folder)
    _write(
        folder / "config.json", config | {"torch_dtype": structure.dtype}
    )  # the published form, not transformers' own
    generation = {"bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643]}
    _write(folder / "generation_config.json", generation)


def _publish_experts(folder: Path) -> None:
    """Stores experts as [experts, input, output], as published; transformers reads both layouts and writes its own."""
    import safetensors.torch

    for path in folder.glob("*.safetensors"):
        weights = safetensors.torch.load_file(path)
        published = {n: w.transpose(1, 2).contiguous() if ".experts." in n else w for n, w in weights.items()}
        safetensors.torch.save_file(published, path, metadata={"format": "pt"})


def _draw(model: Any) -> None:
    """Draws every bias and norm too, which transformers initialises to zeros and ones."""
    import torch

    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
        elif parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
        elif "embed_tokens" in name:
            torch.nn.init.normal_(parameter, std=0.1 if model.config.tie_word_embeddings else 0.5)
        else:
            torch.nn.init.normal_(parameter, std=1.2 * parameter.shape[-1] ** -0.5)


def _text(structure: Structure) -> dict[str, Any]:
    return {
        "hidden_size": structure.hidden,
        "intermediate_size": 2 * structure.hidden,
        "num_hidden_layers": structure.layers,
        "num_key_value_heads": structure.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": structure.length,
    }


def _qwen2_5(structure: Structure) -> dict[str, Any]:
    """Flat, as published: the language model's fields at the root, and rope_scaling."""
    vision = {
        "depth": 4,
        "hidden_size": 160,
        "intermediate_size": 432,
        "num_heads": 2,
        "out_hidden_size": structure.hidden,
        "patch_size": 14,
        "spatial_patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_chans": 3,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
        "hidden_act": "silu",
    }
    own = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vision_config": vision,
        "num_attention_heads": structure.hidden // structure.head_size,
        "vocab_size": 151936 if structure.tied else 152064,
        "tie_word_embeddings": structure.tied,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": _sections(structure, (16, 24, 24))},
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": structure.layers,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    return _text(structure) | _IDS | own


def _qwen3(structure: Structure) -> dict[str, Any]:
    """Nested, as published. Heads are wider than the hidden size gives, as in Qwen3-VL-4B and 30B-A3B."""
    moe = structure.family == "qwen3_vl_moe"
    text = _text(structure) | {
        "model_type": f"{structure.family}_text",
        "head_dim": structure.head_size,
        "num_attention_heads": 2 * structure.hidden // structure.head_size,
        "vocab_size": 151936,
        "attention_bias": False,
        "rope_theta": 5000000,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": _sections(structure, (24, 20, 20)),
        },
        "tie_word_embeddings": structure.tied,
    }
    if moe:
        text |= {
            "num_experts": structure.experts,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 3 * structure.hidden // 4,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        }
    vision = {
        "model_type": structure.family,
        "depth": 4,
        "hidden_size": 144,
        "intermediate_size": 288,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
        "in_channels": 3,
        "deepstack_visual_indexes": [1, 2, 3],
        "out_hidden_size": structure.hidden,
        "hidden_act": "gelu_pytorch_tanh",
    }
    return _IDS | {
        "architectures": ["Qwen3VLMoeForConditionalGeneration" if moe else "Qwen3VLForConditionalGeneration"],
        "model_type": structure.family,
        "tie_word_embeddings": structure.tied,
        "text_config": text,
        "vision_config": vision,
    }


def _sections(structure: Structure, published: tuple[int, int, int]) -> list[int]:
    """Frequencies by axis (time, height, width), which are half a head of 128 in the published models."""
    return [part * structure.head_size // 128 for part in published]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1))
