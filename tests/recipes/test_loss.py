"""The GRPO loss against plain sums, its gradient, and losses by name."""

from __future__ import annotations

import pytest
import torch

from gog.errors import UserError
from gog_recipes import losses
from gog_recipes.losses import grpo


def terms(logp, old_logp, reference, advantages, lengths, *, clip=0.2, kl_coef=0.0, trajectories=None, weights=None):
    return grpo.grpo(
        torch.tensor(logp, dtype=torch.float64, requires_grad=True),
        torch.tensor(old_logp, dtype=torch.float64),
        None if reference is None else torch.tensor(reference, dtype=torch.float64),
        torch.tensor(advantages, dtype=torch.float64),
        torch.tensor(lengths),
        clip=clip,
        kl_coef=kl_coef,
        trajectories=trajectories or len(lengths),
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )


def test_on_policy_the_loss_is_minus_the_mean_advantage():
    assert terms([-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0], None, [1.0, -0.5], [1, 2]).loss.item() == pytest.approx(-0.25)


def test_every_trajectory_weighs_the_same_however_long_it_is():
    short_good = terms([-1.0] * 11, [-1.0] * 11, None, [1.0, -1.0], [1, 10])
    assert short_good.loss.item() == pytest.approx(0.0)


def test_trajectories_without_an_advantage_still_count_in_the_mean():
    alone = terms([-1.0], [-1.0], None, [1.0], [1])
    among_four = terms([-1.0], [-1.0], None, [1.0], [1], trajectories=4)
    assert among_four.loss.item() == pytest.approx(alone.loss.item() / 4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"), [(1.5, 1.0, -1.2), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (1.5, -1.0, 1.5)]
)
def test_the_clip_binds_only_where_the_ratio_has_moved_in_the_rewarded_direction(ratio, advantage, expected):
    step = float(torch.log(torch.tensor(ratio, dtype=torch.float64)))
    assert terms([-1.0 + step], [-1.0], None, [advantage], [1]).loss.item() == pytest.approx(expected)


def test_the_divergence_is_zero_at_the_reference_and_positive_off_it():
    assert terms([-1.0, -2.0], [-1.0, -2.0], [-1.0, -2.0], [0.0], [2], kl_coef=1.0).kl == pytest.approx(0.0)
    assert terms([-1.0, -2.0], [-1.0, -2.0], [-2.0, -1.0], [0.0], [2], kl_coef=1.0).kl > 0


def test_the_gradient_raises_tokens_of_good_trajectories_and_lowers_those_of_bad_ones():
    logp = torch.tensor([-1.0, -1.0], requires_grad=True)
    grpo.grpo(
        logp,
        torch.tensor([-1.0, -1.0]),
        None,
        torch.tensor([1.0, -1.0]),
        torch.tensor([1, 1]),
        clip=0.2,
        kl_coef=0.0,
        trajectories=2,
    ).loss.backward()
    assert logp.grad is not None
    assert logp.grad[0] < 0 < logp.grad[1]


def test_a_weight_scales_the_policy_gradient_of_its_token_and_not_the_divergence():
    given = ([-1.0, -2.0], [-1.0, -2.0], [-2.0, -1.0], [1.0], [2])
    plain, weighted = terms(*given, kl_coef=0.5), terms(*given, kl_coef=0.5, weights=[2.0, 0.5])
    assert weighted.kl == plain.kl
    assert weighted.loss.item() - plain.loss.item() == pytest.approx(-(2.0 + 0.5) / 2 + 1.0)


def test_weights_of_one_change_nothing_in_the_last_bit():
    given = ([-1.0, -2.5, -0.3], [-1.1, -2.4, -0.3], [-2.0, -1.0, -0.1], [1.0, -0.7], [2, 1])
    assert torch.equal(terms(*given, kl_coef=0.1).loss, terms(*given, kl_coef=0.1, weights=[1.0] * 3).loss)


def test_a_loss_is_found_by_the_name_of_its_file():
    assert losses.load("grpo") is grpo.grpo


@pytest.mark.parametrize("name", ["ppo", "nowhere:loss", "gog_recipes.losses.grpo:nothing"])
def test_an_unknown_loss_is_refused_by_its_name(name):
    with pytest.raises(UserError, match=f"no loss '{name}'"):
        losses.load(name)
