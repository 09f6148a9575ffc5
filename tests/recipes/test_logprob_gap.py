"""The gap between engine and trainer: measured, corrected, bounded."""

from __future__ import annotations

import math

import pytest
import torch

from gog.errors import UserError
from gog_recipes.runtime import logprob_gap

TRAINER = torch.tensor([-1.0, -2.0, -3.0, -0.5])
ENGINE = torch.tensor([-1.0, -2.5, -1.0, -0.5])


def measured(cap=1.5):
    return logprob_gap.measure(TRAINER, ENGINE, [3, 1], ["a", "b"], cap)


def test_tokens_that_the_engine_found_too_improbable_weigh_more_up_to_the_cap():
    weights = logprob_gap.importance_weights(TRAINER, ENGINE, 1.5)
    assert weights.tolist() == pytest.approx([1.0, 1.5, math.exp(-2.0), 1.0])


def test_where_engine_and_trainer_agree_every_weight_is_exactly_one():
    assert torch.equal(logprob_gap.importance_weights(TRAINER, TRAINER.clone(), 2.0), torch.ones(4))


def test_the_gap_of_a_step_is_taken_over_all_its_tokens():
    found = logprob_gap.total(measured())
    assert found.logp_diff_mean == pytest.approx(2.5 / 4) and found.logp_diff_max == pytest.approx(2.0)
    assert found.engine_kl == pytest.approx((math.exp(0.5) - 1.5 + math.exp(-2.0) + 1.0) / 4)
    assert found.engine_kl_sequence == pytest.approx(1.5 / 2)
    assert found.tis_truncated_frac == 0.25 and found.tis_weight_mean == pytest.approx((3.5 + math.exp(-2.0)) / 4)


def test_a_gap_up_to_the_bound_is_accepted_and_a_larger_one_names_the_worst_trajectory():
    logprob_gap.check(measured(), 2.5 / 4, step=3)
    with pytest.raises(UserError, match=r"step 3: engine and trainer differ by 0\.625 .* trajectory a differs most"):
        logprob_gap.check(measured(), 0.6, step=3)


def test_what_is_not_finite_is_left_to_the_update_which_names_its_cause():
    gaps = logprob_gap.measure(torch.tensor([math.nan]), torch.tensor([0.0]), [1], ["a"], 2.0)
    logprob_gap.check(gaps, 1e-3, step=1)


def sampled(*fresh, older=500):
    """One trajectory: differences of the tokens that the present weights sampled, and how many others older ones did."""
    trainer = torch.tensor([0.5] * older + list(fresh))
    which = [[False] * older + [True] * len(fresh)]
    return logprob_gap.measure(trainer, torch.zeros(len(trainer)), [len(trainer)], ["a"], 2.0, fresh=which)


def test_one_of_a_few_fresh_tokens_does_not_stop_a_step_that_older_weights_sampled_too():
    for gaps in (sampled(0.9), sampled(0.02, 0.9, 0.01)):
        assert logprob_gap.total(gaps).logp_diff_mean > 0.1
        logprob_gap.check(gaps, 0.1, step=3)


@pytest.mark.parametrize(
    "gaps", [sampled(0.3, 0.9, 0.2), sampled(*[0.01] * 63, 9.0), sampled(0.02, 0.9, 0.01, older=0)]
)
def test_several_fresh_tokens_or_many_or_a_step_of_nothing_else_are_held_against_the_bound(gaps):
    with pytest.raises(UserError, match="step 3: engine and trainer differ by"):
        logprob_gap.check(gaps, 0.1, step=3)
