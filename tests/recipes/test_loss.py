"""The GRPO loss against plain sums, its gradient, and losses by name."""

from __future__ import annotations

import pytest
import torch

from gog.errors import UserError
from gog.spec import GRPOConfig
from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, grpo


def inputs(logp, old_logp, reference, advantages, lengths, *, trajectories=None, tokens=None, weights=None):
    return LossInputs(
        logp=logp if isinstance(logp, torch.Tensor) else torch.tensor(logp, dtype=torch.float64, requires_grad=True),
        old_logp=torch.tensor(old_logp, dtype=torch.float64),
        reference_logp=None if reference is None else torch.tensor(reference, dtype=torch.float64),
        advantages=torch.tensor(advantages, dtype=torch.float64),
        lengths=torch.tensor(lengths),
        trajectories=trajectories or len(lengths),
        tokens=tokens or sum(lengths),
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )


def terms(*given, clip=0.2, kl_coef=0.0, **more):
    return grpo.grpo(inputs(*given, **more), LossConfig(clip_low=clip, clip_high=clip, kl_coef=kl_coef))


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
    grpo.grpo(inputs(logp, [-1.0, -1.0], None, [1.0, -1.0], [1, 1]), LossConfig()).loss.backward()
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


@pytest.mark.parametrize("name", ["trpo", "parts", "nowhere:loss", "gog_recipes.losses.grpo:nothing"])
def test_an_unknown_loss_is_refused_by_its_name(name):
    with pytest.raises(UserError, match=f"no loss '{name}'"):
        losses.load(name)


def configuration(**settings):
    needed = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    return GRPOConfig.model_validate(needed | settings)


@pytest.mark.parametrize(
    ("name", "clip_range", "estimator", "advantages"),
    [
        ("grpo", (0.2, 0.2), "k3", "group"),
        ("dr_grpo", (0.2, 0.2), "k3", "centred"),
        ("dapo", (0.2, 0.28), "k3", "group"),
        ("gspo", (3e-4, 4e-4), "k3", "group"),
        ("cispo", (1.0, 4.0), "k3", "group"),
        ("rloo", (1.0, 4.0), "k3", "leave_one_out"),
        ("reinforce_plus_plus", (0.2, 0.2), "k2", "batch"),
    ],
)
def test_a_loss_chooses_what_the_spec_leaves_out(name, clip_range, estimator, advantages):
    found = losses.load(name).config(configuration(loss=name))
    assert (found.clip_low, found.clip_high) == clip_range
    assert (found.kl_coef, found.kl_estimator, found.advantages) == (0.001, estimator, advantages)


def test_what_the_spec_sets_wins_over_the_loss_s_own_choice():
    given = {"clip": 0.1, "kl_coef": 0.0, "kl_estimator": "k1", "advantages": "centred"}
    found = losses.load("dapo").config(configuration(loss="dapo", **given))
    assert (found.clip_low, found.clip_high, found.kl_coef) == (0.1, 0.1, 0.0)
    assert (found.kl_estimator, found.advantages) == ("k1", "centred")
    wider = losses.load("grpo").config(configuration(clip=0.1, clip_high=0.5))
    assert (wider.clip_low, wider.clip_high) == (0.1, 0.5)


def test_the_longest_trajectory_is_what_the_caps_of_an_episode_allow_to_generate():
    caps = {"max_tokens": 1000, "max_turns": 3}
    assert losses.load("dr_grpo").config(configuration(**caps, max_turn_tokens=100)).longest == 300
    assert losses.load("dr_grpo").config(configuration(**caps, max_turn_tokens=400)).longest == 1000


def test_a_loss_that_needs_the_reference_is_refused_where_none_is_computed():
    @losses.preset(needs=("reference",))
    def distil(inputs, config):
        raise AssertionError("not called")

    assert distil.config(configuration(kl_coef=0.1)).kl_coef == 0.1
    with pytest.raises(UserError, match="needs the reference policy") as caught:
        distil.config(configuration(kl_coef=0.0, loss="mine:distil"))
    assert caught.value.where == "stages.grpo.klCoef" and "mine:distil" in caught.value.what


def test_a_loss_that_needs_what_no_step_has_is_refused_when_it_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "critic_loss.py").write_text(
        "from gog_recipes import losses\n@losses.preset(needs=('values',))\ndef critic(inputs, config): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="no loss 'critic_loss:critic': a loss may need reference, not values"):
        losses.load("critic_loss:critic")


def test_a_plain_function_is_a_loss_with_the_settings_of_grpo(tmp_path, monkeypatch):
    (tmp_path / "plain_loss.py").write_text("def plain(inputs, config):\n    return config\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    loss = losses.load("plain_loss:plain")
    settings = loss.config(configuration())
    assert settings == losses.load("grpo").config(configuration()) and loss(None, settings) is settings


def test_ppo_is_refused_because_it_needs_a_value_head():
    with pytest.raises(
        ValueError, match=r"(?s)loss.*ppo needs a value head, which gog does not train: reinforce_plus_plus"
    ):
        configuration(loss="ppo")
