"""The folder of a comparison: one model with random weights, its tokenizer, and an image for each question.

Everything follows from the seed and the sizes, and both sides load the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image as PILImage
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pil_processing
from workload import Workload

FRAME = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
VOCABULARY = 4096
"""Rows of the embedding; those without a token are never sampled."""
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32_768, "tie_word_embeddings": True,
}  # fmt: skip
VISION = {
    "depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2,
    "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [1, 3],
}  # fmt: skip
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'tool' -%}<|im_end|>
<|im_start|>user
<information>{%- else -%}<|im_start|>{{ message.role }}
{% endif -%}
{%- if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}
{%- endfor %}{% endif -%}
{%- for call in message.tool_calls or [] -%}{{ call.function.name }}{{ call.function.arguments | tojson }}{%- endfor -%}
{%- if message.role == 'tool' -%}</information>{%- endif -%}
{%- if message.role != 'assistant' -%}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
"""ChatML as gog writes it: what ends the model's turn belongs to the observation, so a longer conversation begins with
the shorter one, and nothing is added to what the model sampled."""


def write(folder: Path, workload: Workload, texts: list[str]) -> None:
    """Writes the small model with all that belongs to it.

    Args:
        folder: created if it does not exist
        workload: sizes and settings
        texts: from which the tokenizer learns its words
    """
    torch.manual_seed(0)
    shape = write_parts(folder, workload, texts)
    transformers.Qwen2_5_VLForConditionalGeneration._from_config(shape, dtype=torch.float32).save_pretrained(folder)


def write_parts(
    folder: Path, workload: Workload, texts: list[str], text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION
) -> Any:
    """Writes all but the model: configuration, tokenizer, image processor, images of the questions, the workload.

    Args:
        folder: created if it does not exist
        workload: sizes and settings
        texts: from which the tokenizer learns its words
        text, vision: sizes of the language model and of the vision tower

    Returns:
        The model's configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(texts)
    tokenizer.save_pretrained(folder)
    pixels = workload.side**2
    # Less than all pixels at least: scaling a smaller square up may round to more than these, which is refused.
    size = {"shortest_edge": pixels - workload.side, "longest_edge": pixels}
    pil_processing.Qwen2VLImageProcessorPil(size=size).save_pretrained(folder)
    noise = np.random.default_rng(0)
    for number in range(workload.groups * workload.steps):
        image = noise.integers(0, 255, (workload.side, workload.side, 3), dtype=np.uint8)
        PILImage.fromarray(image).save(folder / f"{number}.png")
    workload.save(folder)
    shape = config(tokenizer, text, vision)
    shape.save_pretrained(folder)
    return shape


def config(tokenizer: Any, text: dict[str, Any], vision: dict[str, Any]) -> Any:
    """Configuration of a Qwen2.5-VL of these sizes."""
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    across = (half - half // 4) // 2
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in FRAME}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [half - 2 * across, across, across]}
    special = {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    return transformers.Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, **special},
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=text["tie_word_embeddings"],
        dtype="float32",
    )


def _tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer of these texts and of random words, which fill its vocabulary."""
    noise = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = [" ".join("".join(noise.choice(letters, size)) for size in noise.integers(4, 9, 3_000))]
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 96, special_tokens=list(FRAME), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    bpe.train_from_iterator([*texts * 20, *words], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=FRAME[0], eos_token=FRAME[0], extra_special_tokens=list(FRAME[1:]),
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False, model_max_length=TEXT["max_position_embeddings"],
    )  # fmt: skip
