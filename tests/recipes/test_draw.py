"""Drawing a token: what the noise decides, and what it never does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gog_recipes.rollout.draw import draw, inverse_cdf

ALMOST_ONE = math.nextafter(1.0, 0.0)


def logprobs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float32).log()


@pytest.mark.parametrize("noise", [0.0, 0.3, ALMOST_ONE, 1.0])
def test_a_token_of_probability_zero_is_never_drawn(noise: float) -> None:
    found = inverse_cdf(logprobs(0.0, 0.5, 0.0, 0.5, 0.0), torch.tensor([noise], dtype=torch.float64))
    assert found.item() in (1, 3)


def test_a_token_too_unlikely_to_change_the_sum_is_never_drawn() -> None:
    logits = torch.tensor([[10.0, 0.0, -30.0]])
    assert inverse_cdf(logits.log_softmax(-1), torch.tensor([1.0], dtype=torch.float64)).item() == 1


@given(st.lists(st.floats(-40, 40), min_size=2, max_size=50), st.floats(0, 1))
def test_the_drawn_token_is_where_the_cumulative_probability_passes_the_noise(
    logits: list[float], noise: float
) -> None:
    values = torch.tensor([logits]).log_softmax(-1)
    token = inverse_cdf(values, torch.tensor([noise], dtype=torch.float64)).item()
    sums = values.double().exp().cumsum(-1)[0]
    before = sums[token - 1].item() if token else 0.0
    assert before <= noise * sums[-1].item() or noise == 1.0
    assert sums[token].item() > before


def test_frequencies_follow_the_probabilities() -> None:
    even = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = inverse_cdf(logprobs(0.1, 0.2, 0.7).expand(1000, -1), even)
    assert drawn.bincount().tolist() == [100, 200, 700]


def test_conversations_have_their_own_suppressed_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0]] * 2)
    tokens, values = draw(logits, [(2,), ()], [0.9, 0.9], 1.0)
    assert tokens == [1, 2]
    assert values[0] == pytest.approx(math.log(0.5))
    assert logits[0, 2] == 9.0


def test_without_noise_the_most_probable_token_is_taken() -> None:
    assert draw(torch.tensor([[0.0, 3.0, 1.0]]), [()], None, 1.0)[0] == [1]


def test_the_temperature_counts_for_log_probs_too() -> None:
    _, values = draw(torch.tensor([[0.0, 2.0]]), [()], [0.99], 2.0)
    assert values == pytest.approx([math.log(math.e / (1 + math.e))])
