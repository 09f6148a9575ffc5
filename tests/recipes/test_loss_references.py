"""Every loss against a reference in numpy: its value, and its gradient by central differences of the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, parts

LENGTHS = (3, 1, 5, 2)
SPREAD = {"gspo": 0.003, "cispo": 1.5, "rloo": 1.5}
"""How far log-probabilities are from those before the update, so that some tokens are clipped and others are not."""
STEP = {"trajectories": 6, "tokens": 17}
"""Of the whole step, of which the four trajectories here are a part."""


def drawn(seed, *, spread=0.3):
    """Log-probabilities off policy, a reference, advantages and weights of four trajectories."""
    rng = np.random.default_rng(seed)
    k = sum(LENGTHS)
    old = rng.normal(-2, 1, k)
    return {
        "logp": old + rng.normal(0, spread, k),
        "old": old,
        "reference": old + rng.normal(0, 0.5, k),
        "advantages": rng.normal(0, 1, len(LENGTHS)),
        "weights": rng.uniform(0.5, 2, k),
    }


def reference(name, logp, given, config, *, at, weights=None):
    """The loss by the published formulas, trajectory by trajectory. Constants of a formula are taken `at` a point."""
    low, high = 1 - config.clip_low, 1 + config.clip_high
    weights = np.ones_like(logp) if weights is None else weights
    loss, start = 0.0, 0
    for length, advantage in zip(LENGTHS, given["advantages"], strict=True):
        own = slice(start, start + length)
        ratio, constant = np.exp(logp[own] - given["old"][own]), np.exp(at[own] - given["old"][own])
        if name == "gspo":
            ratio = np.full(length, np.exp(np.mean(logp[own] - given["old"][own])))
        if name in ("cispo", "rloo"):
            policy = -np.clip(constant, low, high) * advantage * logp[own]
        else:
            policy = -np.minimum(ratio * advantage, np.clip(ratio, low, high) * advantage)
        r = logp[own] - given["reference"][own]
        kl = {"k1": r**2 / 2, "k2": r**2 / 2, "k3": np.exp(-r) - 1 + r}[config.kl_estimator]
        terms = weights[own] * policy + config.kl_coef * kl
        loss += {
            "grpo": terms.mean() / STEP["trajectories"],
            "gspo": terms.mean() / STEP["trajectories"],
            "dr_grpo": terms.sum() / (STEP["trajectories"] * config.longest),
            "rloo": terms.sum() / STEP["trajectories"],
        }.get(name, terms.sum() / STEP["tokens"])
        start += length
    return loss


def differences(name, given, config, **more):
    """The gradient of the reference by central differences, [k]."""
    logp, size = given["logp"], 1e-6
    steps = np.eye(len(logp)) * size
    both = [[reference(name, logp + sign * each, given, config, at=logp, **more) for sign in (1, -1)] for each in steps]
    return np.array([(up - down) / (2 * size) for up, down in both])


def inputs(given, *, weights=None):
    logp = torch.tensor(given["logp"], requires_grad=True)
    tensors = {name: torch.tensor(given[name]) for name in ("old", "reference", "advantages")}
    return LossInputs(
        logp=logp, old_logp=tensors["old"], reference_logp=tensors["reference"], advantages=tensors["advantages"],
        lengths=torch.tensor(LENGTHS), weights=None if weights is None else torch.tensor(weights), **STEP,
    )  # fmt: skip


def settings(name, **changes):
    return dataclasses.replace(losses.load(name).preset, kl_coef=0.3, longest=40, **changes)


NAMES = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus")


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_and_its_gradient_are_those_of_the_published_formula(name, weighted, estimator):
    if name == "gspo" and weighted:
        pytest.skip("the formula has no weights of tokens; see the test of its weights")
    config, clipped = settings(name, kl_estimator=estimator), 0.0
    for seed in range(5):
        given = drawn(seed, spread=SPREAD.get(name, 0.3))
        weights = given["weights"] if weighted else None
        ours = inputs(given, weights=weights)
        found = losses.load(name)(ours, config)
        found.loss.backward()
        expected = reference(name, given["logp"], given, config, at=given["logp"], weights=weights)
        assert found.loss.item() == pytest.approx(expected, rel=1e-12)
        slope = differences(name, given, config, weights=weights)
        np.testing.assert_allclose(ours.logp.grad.numpy(), slope, atol=1e-7)
        clipped += found.clip_frac / 5
    assert 0 < clipped < 1


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_additive_over_passes(name):
    given, config = drawn(3), settings(name)
    whole = inputs(given)
    loss = losses.load(name)
    expected = torch.autograd.grad(loss(whole, config).loss, whole.logp)[0]
    total, gradients = 0.0, []
    for rows, tokens in ((slice(0, 2), slice(0, 4)), (slice(2, 4), slice(4, 11))):
        logp = torch.tensor(given["logp"][tokens], requires_grad=True)
        part = dataclasses.replace(
            whole, logp=logp, old_logp=whole.old_logp[tokens], reference_logp=whole.reference_logp[tokens],
            advantages=whole.advantages[rows], lengths=whole.lengths[rows],
        )  # fmt: skip
        found = loss(part, config).loss
        total += found.item()
        gradients.append(torch.autograd.grad(found, logp)[0])
    assert total == pytest.approx(loss(whole, config).loss.item(), rel=1e-12)
    torch.testing.assert_close(torch.cat(gradients), expected)


@pytest.mark.parametrize("name", NAMES)
def test_on_policy_the_gradient_is_that_of_reinforce_with_the_loss_s_own_weight_of_a_token(name):
    given = drawn(11)
    given["logp"] = given["old"].copy()
    config = dataclasses.replace(settings(name), kl_coef=0.0)
    ours = inputs(given)
    found = losses.load(name)(ours, config)
    found.loss.backward()
    lengths = np.repeat(LENGTHS, LENGTHS)
    weight = {
        "grpo": 1 / lengths / STEP["trajectories"],
        "gspo": 1 / lengths / STEP["trajectories"],
        "dr_grpo": 1 / (STEP["trajectories"] * 40),
        "rloo": 1 / STEP["trajectories"],
    }.get(name, 1 / STEP["tokens"])
    np.testing.assert_allclose(ours.logp.grad.numpy(), -np.repeat(given["advantages"], LENGTHS) * weight, rtol=1e-12)
    assert found.clip_frac == 0.0


def test_gspo_multiplies_the_gradient_of_each_token_by_its_own_weight():
    given = drawn(5, spread=1e-5)
    config = dataclasses.replace(settings("gspo"), kl_coef=0.0)
    plain, weighted = inputs(given), inputs(given, weights=given["weights"])
    for each in (plain, weighted):
        losses.load("gspo")(each, config).loss.backward()
    np.testing.assert_allclose(weighted.logp.grad.numpy(), plain.logp.grad.numpy() * given["weights"], rtol=1e-12)


def test_a_token_whose_ratio_cispo_clips_keeps_a_gradient_that_grpo_takes_from_it():
    given = drawn(1)
    given["logp"] = given["old"] + np.log(6.0)
    given["advantages"] = np.ones(len(LENGTHS))
    gradients = {}
    for name in ("grpo", "cispo"):
        ours = inputs(given)
        assert losses.load(name)(ours, dataclasses.replace(settings(name), kl_coef=0.0)).clip_frac == 1.0
        losses.load(name)(ours, dataclasses.replace(settings(name), kl_coef=0.0)).loss.backward()
        gradients[name] = ours.logp.grad
    assert not gradients["grpo"].any()
    torch.testing.assert_close(gradients["cispo"], torch.full((11,), -5.0 / STEP["tokens"], dtype=torch.float64))


# ---- estimators of the KL, over all tokens of a small vocabulary


def exact(estimator):
    """Expected value and gradient by the logits of an estimator, with the two divergences and their gradients."""
    logits = torch.tensor([0.3, -0.2, 0.9, -1.1], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([-0.4, 0.5, 0.1, -0.3], dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    given = LossInputs(
        logp=logp, old_logp=logp.detach(), reference_logp=other, advantages=torch.zeros(4), lengths=torch.ones(4).int(),
        trajectories=4, tokens=4,
    )  # fmt: skip
    estimates = parts.divergence(given, LossConfig(kl_estimator=estimator))
    expected = (logp.exp().detach() * estimates).sum()  # tokens are samples, so their probabilities have no gradient
    forward, backward = (logp.exp() * (logp - other)).sum(), (other.exp() * (other - logp)).sum()
    slopes = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (expected, forward, backward)]
    return expected.item(), forward.item(), slopes


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator):
    value, kl, _ = exact(estimator)
    assert value == pytest.approx(kl, rel=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2"])
def test_the_gradient_of_k1_and_k2_is_that_of_the_kl_on_average(estimator):
    _, _, (slope, forward, _) = exact(estimator)
    torch.testing.assert_close(slope, forward)


def test_the_gradient_of_k3_is_that_of_the_kl_in_the_other_direction_on_average():
    _, _, (slope, forward, backward) = exact("k3")
    torch.testing.assert_close(slope, backward)
    assert not torch.allclose(slope, forward)
