"""Requests to vLLM: what is sent, what must come back, and which answers are refused. A real one is in tests/vllm."""

from __future__ import annotations

import asyncio
import itertools
import json

import numpy as np
import pytest

from gog import actions
from gog.engine import Limits
from gog.errors import NotFinite, QuestionSkipped
from gog.images import Image
from gog.spec import ModelSpec
from gog.trajectory import Segment
from gog_recipes.models import policy_model
from gog_recipes.models.vision import Vision
from gog_recipes.rollout import vllm_check
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_images import SentImages

PAD = 6
TOKENS = {"scene": 4, "crop": 1}


@pytest.fixture(scope="module")
def processor():
    return policy_model.load_processor(ModelSpec(base="tiny"))


def conversation():
    """A prompt with an image of four tokens, a turn, and an observation with two images, one of them adjacent to it."""
    prompt = requests.Prompt()
    prompt.append(Segment(source="prompt", tokens=(1, PAD, PAD, PAD, PAD, 9), images=("scene",)), PAD, TOKENS.get)
    prompt.append(Segment(source="model", tokens=(20, 21), logprobs=(-1.0, -1.0)), PAD, TOKENS.get)
    crops = Segment(source="observation", tokens=(9, PAD, PAD, PAD, PAD, PAD, 8), images=("crop", "scene"))
    prompt.append(crops, PAD, TOKENS.get)
    return prompt


def answer(prompt, *, ids=None, spans=None, tokens=(30, 31), logprobs=(-0.5, -0.25), named=None, reason="stop"):
    spans = prompt.spans if spans is None else spans
    content = [{"token_id": token, "logprob": value} for token, value in zip(named or tokens, logprobs)]
    choice = {"token_ids": list(tokens), "logprobs": {"content": content}, "finish_reason": reason}
    return json.dumps(
        {
            "choices": [choice],
            "usage": {"prompt_tokens_details": {"cached_tokens": 3}},
            "prompt_token_ids": prompt.expanded if ids is None else ids,
            "mm_placeholders": {"image": [{"offset": start, "length": count} for start, count in spans]},
        }
    ).encode()


def test_an_image_is_sent_as_one_pad_and_expected_back_as_all_of_them():
    prompt = conversation()
    assert prompt.sent == [1, PAD, 9, 20, 21, 9, PAD, PAD, 8]
    assert prompt.expanded == [1, PAD, PAD, PAD, PAD, 9, 20, 21, 9, PAD, PAD, PAD, PAD, PAD, 8]
    assert prompt.spans == [(1, 4), (9, 1), (10, 4)]


def test_the_beginning_of_a_turn_follows_the_prompt_and_leaves_it_as_it_is():
    prompt = conversation()
    longer = prompt.then([40, 41])
    assert longer.sent[-2:] == longer.expanded[-2:] == [40, 41]
    assert prompt.sent[-1] == 8 and prompt.then([]) is prompt


def test_an_answer_to_the_same_prompt_is_read():
    read = requests.read(answer(conversation()), conversation())
    assert (read.tokens, read.logprobs, read.cached) == ([30, 31], [-0.5, -0.25], 3)


@pytest.mark.parametrize(
    ("ids", "spans", "words"),
    [
        (None, [(1, 4), (9, 1)], "image 3 of a prompt is missing on the server"),
        (None, [(1, 4), (9, 1), (10, 9)], "image 3 of a prompt is 9 tokens at 10 on the server, 4 tokens at 10 here"),
        ([1, PAD, 9], None, "the server read a prompt of 3 tokens, of 15 here; they differ at token 2"),
        ([1, *[PAD] * 4, 9, 20, 22, 9, *[PAD] * 5, 8], None, "they differ at token 7"),
        ([], None, "they differ at token 0"),
    ],
)
def test_a_server_that_read_another_prompt_is_refused(ids, spans, words):
    with pytest.raises(requests.PromptDiffers, match=words):
        requests.read(answer(conversation(), ids=ids, spans=spans), conversation())


def test_pads_that_were_expanded_twice_are_noticed_although_the_spans_are_right():
    prompt = requests.Prompt([1, PAD, PAD, 9], [1, PAD, PAD, 9], [(1, 2)])
    with pytest.raises(requests.PromptDiffers, match="they differ at token 3"):
        requests.read(answer(prompt, ids=[1, PAD, PAD, PAD, 9]), prompt)


@pytest.mark.parametrize(
    "bad",
    [
        b"<html>",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [null]}',
        b"[" * 100_000,
        answer(conversation(), reason="abort"),
        answer(conversation(), named=[30, 32]),
        answer(conversation(), tokens=(), logprobs=()),
        answer(conversation(), logprobs=(-0.5,)),
        answer(conversation(), logprobs=(-0.5, None)),
    ],
)
def test_what_is_not_an_answer_is_malformed_so_that_the_turn_is_sampled_again(bad):
    with pytest.raises(ValueError):
        requests.read(bad, conversation())


@pytest.mark.parametrize("value", [-9999.0, float("nan"), float("inf"), float("-inf")])
def test_a_log_prob_that_is_not_finite_is_no_failure_that_passes(value):
    """vLLM reports minus infinity and NaN as -9999."""
    with pytest.raises(NotFinite, match="not finite"):
        requests.read(answer(conversation(), logprobs=(-0.5, value)), conversation())


def test_a_repeated_turn_has_the_same_noise_and_every_other_turn_its_own():
    places = itertools.product(range(9), range(5), range(6))
    seeds = {requests.noise((7, 1, question, sample), (turn, 0)) for question, sample, turn in places}
    assert len(seeds) == 9 * 5 * 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert requests.noise((7, 1, 2, 3), (4, 0)) == requests.noise((7, 1, 2, 3), (4, 0))
    assert requests.noise((7, 1, 2, 3), (4, 0)) != requests.noise((7, 1, 2, 3), (4, 5))


def test_tags_of_one_token_end_a_turn_by_token_and_suppressed_tokens_cannot_be_sampled(processor):
    found = requests.sampling(processor, Limits(192, 14, 0.7), [11], (1,), (0, 0), 14)
    assert set(found["stop_token_ids"]) == {processor.turn_end, *processor.forbidden(actions.CLOSING_TAGS)}
    assert "stop" not in found and not found["detokenize"]
    assert found["logit_bias"].keys() == {str(token) for token in (*processor.suppress_tokens, 11)}
    assert (found["temperature"], found["max_tokens"], found["ignore_eos"]) == (0.7, 14, True)


def test_a_turn_ends_at_its_first_closing_tag_whatever_follows(processor):
    turn = processor.encode("<think> a </think> <answer> a </answer> a </answer>", [])
    [closing] = processor.forbidden(["</answer>"])
    assert requests.turn_length(turn, processor) == turn.index(closing) + 1 < len(turn)
    assert requests.turn_length(turn[:1], processor) == 0


@pytest.mark.parametrize(("wide", "high"), [(112, 112), (28, 28), (300, 200), (61, 47), (17, 90)])
def test_an_image_at_its_own_size_has_the_same_patches_and_needs_no_resizing(processor, wide, high):
    image = Image(np.random.default_rng(0).integers(0, 255, (high, wide, 3), dtype=np.uint8))
    patches = processor.patches(image)
    resized = processor.resized(image, patches.grid)
    again = processor.patches(resized)
    assert again.grid == patches.grid and np.array_equal(again.rows, patches.rows)
    assert processor.resized(resized, patches.grid) is resized


TAKERS = {
    "by the in-process engine": lambda image, vision, processor: vision.add([image]),
    "by the vLLM engine": lambda image, vision, processor: asyncio.run(SentImages(processor, vision).get([image])),
    "as a demonstration": lambda image, vision, processor: vision.expect(image, lambda: image),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_an_image_that_fits_no_size_within_the_bounds_is_refused(processor, take):
    thin, vision = Image(np.zeros((28, 4200, 3), dtype=np.uint8)), Vision(None, processor)
    with pytest.raises(
        QuestionSkipped, match="4200 x 28 pixels has no size of 784 to 12,544 pixels that keeps its ratio"
    ):
        take(thin, vision, processor)
    assert thin.hash not in vision
    take(Image(np.zeros((28, 420, 3), dtype=np.uint8)), vision, processor)


def test_several_replicas_are_separated_by_commas():
    assert vllm_check.urls("http://a:8000/, http://b:8000") == ["http://a:8000", "http://b:8000"]
    assert vllm_check.urls("") == []
