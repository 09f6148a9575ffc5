"""The processor with Qwen's own tokenizer: ends of turns, suppressed tokens, positions, image sizes, no drift."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gog import actions, prompts
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.spec import PixelBounds
from gog.trajectory import Segment
from gog_recipes.models.qwen_processor import MAX_PIXELS, Processor

ROWS = 151936
"""Rows of Qwen3-VL's embedding."""


@pytest.fixture(scope="module")
def folder(real_tokenizer):
    (real_tokenizer / "config.json").write_text(f'{{"text_config": {{"vocab_size": {ROWS}}}}}')
    return real_tokenizer


@pytest.fixture(scope="module")
def processor(folder):
    return Processor(folder, "full")


@pytest.fixture(scope="module")
def words(processor):
    """Text of each token that may be sampled, by its id."""
    suppressed = set(processor.suppress_tokens)
    return {i: processor.decode([i]) for i in range(ROWS) if i not in suppressed}


def photograph(width, height):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image(np.stack([x % 256, y % 256, (x * y) % 256], -1).astype(np.uint8))


# ---------------------------------------------------------------- ends of turns


@pytest.mark.parametrize("tag", actions.CLOSING_TAGS)
def test_a_turn_ends_in_every_token_that_completes_a_tag(processor, words, tag):
    name = tag[2:-1]
    head = processor.encode(f"<think>x</think><{name}>y</{name}", [])
    completing = [token for token, word in words.items() if word.startswith(">")]
    assert len(completing) == 266
    missed = [token for token in completing if not processor.ends_turn([*head, token])]
    assert not missed


def test_a_turn_does_not_end_in_any_other_token(processor, words):
    head = processor.encode("<think>x</think><answer>y</answer", [])
    early = [token for token, word in words.items() if word[:1] != ">" and processor.ends_turn([*head, token])]
    assert [processor.decode([token]) for token in early] == [prompts.TURN_END]


def test_a_tag_ends_a_turn_once_and_however_it_is_cut_into_tokens(processor):
    letters = [processor.encode(letter, [])[0] for letter in "</img_search>"]
    assert [processor.ends_turn(letters[: at + 1]) for at in range(len(letters))] == [False] * 12 + [True]
    assert not processor.ends_turn([*letters, *processor.encode(" ->", [])])


def test_text_behind_the_tag_in_its_last_token_is_neither_parsed_nor_learned(processor):
    head = processor.encode("<think>x</think><answer>blue</answer", [])
    token = processor.tokenizer.convert_tokens_to_ids(">.")
    assert processor.decode([token]) == ">."
    text, overrun = processor.turn_text([*head, token])
    assert (text, overrun) == ("<think>x</think><answer>blue</answer>", True)
    assert actions.parse_turn(text).well_formed
    turn = Segment(source="model", tokens=(*head, token), logprobs=(-1.0,) * (len(head) + 1), overrun=overrun)
    assert turn.loss_mask() == [True] * len(head) + [False]


def test_a_turn_without_a_closing_tag_is_whole(processor):
    ids = processor.encode("<think>so a > b, and", [])
    assert processor.turn_text(ids) == ("<think>so a > b, and", False)


def test_nothing_is_decoded_to_find_the_end_of_a_turn(processor, monkeypatch):
    """It is asked for every token of every conversation: of 160 that end in `>`, decoding takes milliseconds."""
    ids = processor.encode("<think>" + "a word > b </answer >" * 200, [])
    end = processor.encode("</answer>", [])
    monkeypatch.setattr(Processor, "decode", lambda self, part: pytest.fail("decoded"))
    assert not any(processor.ends_turn(ids[:length]) for length in range(1, len(ids)))
    assert processor.ends_turn([*ids, *end])


def test_the_end_of_a_turn_is_where_its_text_completes_a_tag_for_every_last_token(processor, words):
    """Held to the decoded text, over all tokens and all ways in which a tag may be cut before them."""
    for tag in actions.CLOSING_TAGS:
        for at in range(1, len(tag)):
            head = processor.encode("<think>x</think>", []) + [processor.encode(letter, [])[0] for letter in tag[:at]]
            wrong = [
                token for token, word in words.items() if ">" in word and word != prompts.TURN_END
                and processor.ends_turn([*head, token]) != any(each in tag[:at] + word for each in actions.CLOSING_TAGS)
            ]  # fmt: skip
            assert not wrong, (tag[:at], wrong)


# ---------------------------------------------------------------- suppressed tokens


def test_exactly_the_tokens_that_the_agent_has_no_use_for_are_suppressed(processor):
    sampled = [word for word in processor.tokenizer.get_added_vocab() if word not in set(suppressed_words(processor))]
    assert sorted(sampled) == ["</think>", "<think>", "<|im_end|>"]
    assert {"<tool_call>", "<|box_start|>", "<|quad_end|>", "<|fim_middle|>", "<|image_pad|>"} <= set(
        suppressed_words(processor)
    )


def suppressed_words(processor):
    return processor.tokenizer.convert_ids_to_tokens(
        [i for i in processor.suppress_tokens if i < len(processor.tokenizer)]
    )


def test_rows_of_the_embedding_without_a_token_are_suppressed(processor):
    assert len(processor.tokenizer) == 151669
    assert set(range(151669, ROWS)) <= set(processor.suppress_tokens)
    assert min(processor.suppress_tokens) >= 151643


# ---------------------------------------------------------------- images


def test_patches_are_those_of_the_folders_own_image_processor(processor, folder):
    own = Qwen2VLImageProcessorPil.from_pretrained(folder, size={"shortest_edge": 65536, "longest_edge": MAX_PIXELS})
    for width, height in ((640, 427), (97, 1301), (30, 20), (3, 300), (1801, 1203)):
        shown = photograph(width, height)
        out = own([shown.pixels], return_tensors="np", input_data_format="channels_last")
        patches = processor.patches(shown)
        assert patches.grid == tuple(out["image_grid_thw"][0])
        np.testing.assert_array_equal(patches.rows, out["pixel_values"])


def test_a_photograph_of_twelve_megapixels_has_at_most_as_many_tokens_as_one_megapixel(processor):
    assert processor.image_tokens(processor.grid(4000, 3000)) == 972
    assert processor.image_tokens(processor.grid(1000, 1000)) == 961


def test_bounds_of_the_specification_take_precedence_over_the_folders(folder):
    small = Processor(folder, "full", PixelBounds(max_pixels=100 * 1024))
    assert small.image_tokens(small.grid(4000, 3000)) <= 100
    assert small.image_tokens(small.grid(30, 20)) >= 64  # the folder's own minimum
    large = Processor(folder, "full", PixelBounds(min_pixels=500 * 1024, max_pixels=4000 * 1024))
    assert large.image_tokens(large.grid(30, 20)) >= 500
    assert 3500 < large.image_tokens(large.grid(4000, 3000)) <= 4000
    with pytest.raises(UserError, match="minPixels"):
        Processor(folder, "full", PixelBounds(min_pixels=2 * MAX_PIXELS))


def test_an_image_that_is_too_thin_is_refused_with_its_size(processor):
    with pytest.raises(QuestionSkipped, match="4200 x 20 pixels"):
        processor.resize(photograph(4200, 20))


# ---------------------------------------------------------------- no drift


def drift(processor, draw, words, shown):
    """Plays a random conversation and returns what is wrong with its record; empty if nothing."""
    tags = [f"<{tag}>{{}}</{tag}>" for tag in actions.TAGS]
    texts = ["漢字 ", "é́", "<b>", " > ", "\n\n", "#2", "‹x›", "0.25", "a", " naïve", "😀", "<|", "</answer", "&gt;"]
    ids, grids, wrong = [], [], []

    def append(text, images):
        own = [processor.grid(image.width, image.height) for image in images]
        added = processor.encode(text, [processor.image_tokens(grid) for grid in own])
        pads = added.count(processor.image_pad)
        patches = sum(len(processor.patches(image).rows) for image in images)
        if pads * processor.merge**2 != patches:
            wrong.append(f"{pads} pads for {patches} patches")
        if processor.decode([token for token in added if token != processor.image_pad]) != decoded(text):
            wrong.append(f"text changed: {text!r}")
        ids.extend(added)
        grids.extend(own)

    append(prompts.prompt(prompts.inert("".join(draw.choices(texts, k=5))), style="full"), [draw.choice(shown)])
    for _ in range(draw.randrange(1, 4)):
        sampled = draw.choices(list(words), k=draw.randrange(0, 12))
        sampled += processor.encode(draw.choice(tags).format(draw.choice(texts[:2])), [])[: draw.choice([None, -1])]
        if not processor.ends_turn(sampled):
            sampled += processor.encode(draw.choice([">", ">.", "></", ">\n\n"]), [])
        ids.extend(sampled)  # recorded as sampled, never encoded again
        if processor.decode(ids[-len(sampled) :]) != processor.decode(sampled):
            wrong.append("a turn decodes differently inside the conversation")
        images = draw.choices(shown, k=draw.randrange(0, 4))
        body = prompts.inert("".join(draw.choices(texts, k=8))) + prompts.IMAGE * len(images)
        append(prompts.observation(body), images)
    positions, after = processor.positions(ids, grids)
    spans = sum(max(grid[1], grid[2]) // processor.merge for grid in grids)
    tokens = sum(processor.image_tokens(grid) for grid in grids)
    if after != len(ids) - tokens + spans or positions[:, -1].max() != after - 1:
        wrong.append("positions")
    return wrong


def decoded(text):
    """What the tokenizer gives back for a text: composed letters, and no image placeholders."""
    return unicodedata.normalize("NFC", text).replace("<|image_pad|>", "")


@pytest.mark.parametrize("seed", range(4))
def test_no_token_and_no_image_drifts_in_random_conversations(processor, words, seed):
    check_drift(processor, words, seed, 60)


@pytest.mark.exhaustive
def test_no_token_and_no_image_drifts_in_ten_thousand_random_conversations(processor, words):
    check_drift(processor, words, 100, 10_000)


def check_drift(processor, words, seed, count):
    draw = random.Random(seed)
    shown = [photograph(*size) for size in ((320, 213), (97, 301), (333, 57), (28, 28), (250, 250), (700, 20))]
    for number in range(count):
        assert drift(processor, draw, words, shown) == [], f"conversation {number} of seed {seed}"


def test_positions_of_a_long_conversation_are_those_of_its_parts(processor):
    """100,000 tokens with 100 images, whole and segment by segment as an engine reads them."""
    grid = processor.grid(320, 213)
    part = processor.encode("word " * 900 + prompts.IMAGE, [processor.image_tokens(grid)])
    whole, end = processor.positions(part * 100, [grid] * 100)
    assert len(part) * 100 > 95_000
    at = 0
    for number in range(100):
        own, at = processor.positions(part, [grid], at)
        np.testing.assert_array_equal(own, whole[:, number * len(part) : (number + 1) * len(part)])
    assert at == end
    with pytest.raises(ValueError, match="image tokens"):
        processor.positions(part, [])
