"""The processor with a tokenizer that has none of the agent's tags as tokens, like those of full-size models."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers

from gog import prompts
from gog.errors import QuestionSkipped
from gog.images import Image
from gog.spec import ModelSpec, PixelBounds
from gog_recipes import world
from gog_recipes.models import policy_model
from gog_recipes.models.qwen_processor import Processor

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
]


@pytest.fixture(scope="module")
def byte_processor(tmp_path_factory):
    """One token per byte: byte-level BPE without merges."""
    folder = tmp_path_factory.mktemp("bytes")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE({char: number for number, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"additional_special_tokens": SPECIAL})
    fast.save_pretrained(folder)
    shutil.copy(world.TINY / "preprocessor_config.json", folder)
    return Processor(folder, style="full")


def test_a_turn_ends_with_the_last_byte_of_its_closing_tag_and_no_earlier(byte_processor):
    ids = byte_processor.encode("<think>a ring</think><answer>n12</answer>", [])
    ends = [length for length in range(1, len(ids) + 1) if byte_processor.ends_turn(ids[:length])]
    assert ends == [len(ids)]


def test_text_is_unchanged_by_encoding_and_decoding(byte_processor):
    text = prompts.observation("Prix : 12 € <b>‹answer›</b>")
    assert byte_processor.decode(byte_processor.encode(text, [])) == text


def test_a_prompt_holds_one_pad_per_image_token(byte_processor):
    shown = Image(np.zeros((56, 84, 3), np.uint8))
    grid = byte_processor.patches(shown).grid
    tokens = grid[1] * grid[2] // 4
    ids = byte_processor.encode(prompts.prompt("what ?", style="full"), [tokens])
    assert ids.count(byte_processor.image_pad) == tokens == 6


@pytest.mark.parametrize("side", [112, 168, 224, 1008])
def test_every_square_has_the_one_size_that_equal_bounds_allow(side: int):
    processor = Processor(world.TINY, style="terse", pixels=PixelBounds(min_pixels=side**2, max_pixels=side**2))
    patches = side // processor.patch
    assert {processor.grid(own, own) for own in range(5, 2000)} == {(1, patches, patches)}


def test_a_size_that_another_processor_would_resize_again_is_never_chosen():
    processor = Processor(world.TINY, style="terse", pixels=PixelBounds(min_pixels=112**2, max_pixels=2 * 112**2))
    for width, height in itertools.product(range(20, 400, 7), repeat=2):
        grid = processor.grid(width, height)
        assert processor.grid(grid[2] * processor.patch, grid[1] * processor.patch) == grid


def test_an_image_without_a_size_within_equal_bounds_is_refused():
    processor = Processor(world.TINY, style="terse", pixels=PixelBounds(min_pixels=112**2, max_pixels=112**2))
    with pytest.raises(QuestionSkipped, match="300 x 200 pixels has no size of 12,544 to 12,544 pixels"):
        processor.grid(300, 200)


def test_pads_without_images_are_refused(byte_processor):
    with pytest.raises(ValueError, match="1 image pads in the text for 0 images"):
        byte_processor.encode(prompts.prompt("what ?", style="full"), [])


def test_a_tag_of_several_tokens_cannot_be_forbidden_by_token(byte_processor):
    assert byte_processor.forbidden(["<img_search>"]) == []
    assert len(policy_model.load_processor(ModelSpec(base="tiny")).forbidden(["<img_search>"])) == 1
