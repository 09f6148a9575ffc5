"""The update of GRPO: the same for any split into passes; what is not finite is stopped with the trajectory's name."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from support import learning, plain, real_structures

from gog import exclusion, failure_rules, trajectory
from gog.errors import UserError
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes import losses
from gog_recipes.models import checkpointing, lora, packing, policy_model
from gog_recipes.runtime import learner as learner_module
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.minibatches import Counted
from gog_recipes.runtime.ranks import SINGLE

TURNS = (1, 3, 2, 1, 4, 2)
WHOLE = 10**6


@pytest.fixture(scope="module")
def tiny():
    """Policy, processor, vision and trajectories with an advantage each."""
    spec = ModelSpec(base="tiny")
    policy, processor = learning.adapted(spec), policy_model.load_processor(spec)
    vision = policy_model.vision_of(policy, processor)
    return policy, processor, vision, learning.trajectories(processor, vision, TURNS)


def configuration(**settings):
    """Of a stage that accepts the log-probs of these trajectories, which no model recorded."""
    needed = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    return GRPOConfig.model_validate(needed | {"max_logprob_gap": 1e6} | settings)


def rollout(*groups):
    return StepRollout(list(groups), list(groups), exclusion.count(groups), 0)


def update(parts, groups, *, loss="grpo", **settings):
    """One update without an effect on the weights; its statistics and its gradients."""
    policy, processor, vision, _ = parts
    cfg = configuration(**({"clip_grad_norm": 1e9, "kl_coef": 0.1} | settings))
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.0)
    found = {}
    sgd.register_step_pre_hook(lambda *_: found.update(learning.gradients_of(policy)))
    learner = Learner(cfg, losses.load(loss), policy, processor, vision, sgd, SINGLE)
    try:
        return learner.update(rollout(*groups), step=7), found
    finally:
        policy.zero_grad(set_to_none=True)


@pytest.mark.parametrize("budget", [16, 70, 150])
def test_gradients_and_figures_are_the_same_for_any_split_into_passes(tiny, budget):
    own = tiny[3]
    passes = packing.plan([packing.length(item.segments) for item in own], budget)
    assert len(passes) > 1
    whole, expected = update(tiny, [own[:3], own[3:]], micro_batch_tokens=WHOLE)
    parts, gradients = update(tiny, [own[:3], own[3:]], micro_batch_tokens=budget)
    assert learning.difference(gradients, expected) < 1e-6
    for name in ("kl", "clip_frac", "grad_norm", "loss"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-5), name
    for name, value in dataclasses.asdict(whole.gap).items():
        assert getattr(parts.gap, name) == pytest.approx(value, rel=1e-4), name
    assert (parts.learned, parts.tokens) == (whole.learned, whole.tokens)


@pytest.mark.parametrize("loss", ["dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus"])
def test_every_loss_is_the_same_for_any_split_into_passes(tiny, loss):
    own = [tiny[3][0].model_copy(update={"advantage": 0.0}), *tiny[3][1:]]
    whole, expected = update(tiny, [own], loss=loss, micro_batch_tokens=WHOLE)
    parts, gradients = update(tiny, [own], loss=loss, micro_batch_tokens=70)
    assert learning.difference(gradients, expected) < 1e-6
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5, abs=1e-7)  # terms of about 1, which may cancel


def test_the_mean_over_tokens_counts_those_of_trajectories_without_a_signal_and_none_of_excluded_ones(tiny):
    seen = []

    def spy(inputs, config):
        seen.append((inputs.trajectories, inputs.tokens))
        return losses.load("dapo")(inputs, config)

    policy, processor, vision, own = tiny
    silent, excluded = (own[n].model_copy(update={"advantage": value}) for n, value in ((0, 0.0), (1, None)))
    cfg = configuration(micro_batch_tokens=16)
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.0)
    Learner(cfg, losses.Loss(spy), policy, processor, vision, sgd, SINGLE).update(
        rollout([silent, excluded, *own[2:]]), step=1
    )
    policy.zero_grad(set_to_none=True)
    tokens = sum(len(item.model_logprobs()) for item in (silent, *own[2:]))
    assert set(seen) == {(len(own) - 1, tokens)} and len(seen) == len(own) - 2


def test_the_means_of_a_step_are_over_the_trajectories_and_tokens_of_all_ranks(tiny):
    mine, others = tiny[3][:2], [trajectory.outline(item) for item in tiny[3][2:]]  # without their tokens
    ranks = SimpleNamespace(all_reduce_sum=lambda own: own + 1000)
    step = StepRollout([mine, others], [mine], exclusion.count([mine, others]), 0)
    tokens = sum(len(item.model_logprobs()) for item in mine)
    assert Learner._counted(SimpleNamespace(ranks=ranks), step) == Counted(len(TURNS), tokens + 1000)


@pytest.mark.parametrize(("loss", "turns"), [("grpo", 1), ("gspo", 1), ("reinforce_plus_plus", 2)])
def test_masked_turns_are_read_and_not_learned_by_any_loss(tiny, loss, turns):
    own = tiny[3]
    masked = [item.model_copy(update={"segments": tuple(failure_rules.masked(item.segments, turns))}) for item in own]
    plain = [  # the same tokens, as if a tool had written the masked ones
        item.model_copy(
            update={
                "segments": tuple(
                    segment.model_copy(update={"source": "observation", "logprobs": (), "masked": False})
                    if segment.masked
                    else segment
                    for segment in item.segments
                )
            }
        )
        for item in masked
    ]
    expected, gradients = update(tiny, [plain], loss=loss, micro_batch_tokens=150)
    found, ours = update(tiny, [masked], loss=loss, micro_batch_tokens=70)
    assert learning.difference(ours, gradients) < 1e-6
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_the_loss_equals_that_of_each_trajectory_by_itself_through_the_plain_forward(tiny):
    policy, processor, vision, own = tiny
    trained = [each for each in policy.parameters() if each.requires_grad]
    total = 0.0
    for item in own:
        batch = policy_model.collate([item.segments], processor, vision, learning.CPU)
        with lora.reference(policy):
            logits, tokens = plain.forward(policy, batch, processor, vision)
            reference = plain.logprobs(logits, tokens, processor, 0.8)
        logits, tokens = plain.forward(policy, batch, processor, vision)
        logp = plain.logprobs(logits, tokens, processor, 0.8)
        sampled = torch.tensor(item.model_logprobs())
        advantage, count = torch.tensor([item.advantage]), torch.tensor([len(sampled)])
        weights = (logp.detach() - sampled).exp().clamp(max=2.0)
        given = losses.LossInputs(logp, logp.detach(), reference, advantage, count, len(own), len(own), weights)
        total += losses.load("grpo")(given, losses.LossConfig(kl_coef=0.1)).loss
    names = [name for name, each in policy.named_parameters() if each.requires_grad]
    expected = dict(zip(names, torch.autograd.grad(total, trained), strict=True))
    _, gradients = update(tiny, [own], micro_batch_tokens=150, temperature=0.8)
    assert learning.difference(gradients, expected) < 1e-5


def test_a_pass_fetches_the_features_of_its_own_images_only(tiny, monkeypatch):
    asked = []
    features = policy_model.features
    monkeypatch.setattr(policy_model, "features", lambda batch, vision: asked.append(batch) or features(batch, vision))
    update(tiny, [tiny[3]], micro_batch_tokens=16)
    assert [len(batch.layout) for batch in asked] == [1] * len(TURNS)
    assert sorted(len(batch.images) for batch in asked) == sorted(len(item.images()) for item in tiny[3])


@pytest.mark.parametrize(("kl_coef", "forwards"), [(0.1, 2), (0.0, 1)])
def test_the_reference_is_read_only_where_its_kl_counts(tiny, monkeypatch, kl_coef, forwards):
    calls, usual = [], policy_model.token_logprobs
    monkeypatch.setattr(policy_model, "token_logprobs", lambda *rest, **named: calls.append(1) or usual(*rest, **named))
    update(tiny, [tiny[3]], micro_batch_tokens=WHOLE, kl_coef=kl_coef)
    assert len(calls) == forwards


def test_on_a_cpu_a_pass_holds_several_groups_only_up_to_what_its_caches_gain_from(tiny, monkeypatch):
    _, processor, vision, _ = tiny
    groups = [learning.group(processor, vision, (2, 2), seed=seed, name=str(seed)) for seed in (5, 6)]
    seen, usual = [], policy_model.collate
    monkeypatch.setattr(policy_model, "collate", lambda rows, *rest: seen.append(len(rows)) or usual(rows, *rest))
    _, whole = update(tiny, groups, micro_batch_tokens=WHOLE)
    monkeypatch.setattr(learner_module, "CPU_PASS_BYTES", 1)
    _, split = update(tiny, groups, micro_batch_tokens=WHOLE)
    assert seen == [4, 2, 2] and learning.difference(split, whole) < 1e-6


def spoil(item, logprob):
    segments = list(item.segments)
    segments[1] = segments[1].model_copy(update={"logprobs": (logprob, *segments[1].logprobs[1:])})
    return item.model_copy(update={"segments": tuple(segments)})


@pytest.mark.parametrize("budget", [16, WHOLE])
def test_a_log_probability_that_is_not_finite_stops_the_update_and_names_its_trajectory(tiny, budget):
    own = [*tiny[3][:2], spoil(tiny[3][2], math.nan), *tiny[3][3:]]
    with pytest.raises(UserError, match=r"step 7: the loss is nan because of trajectory q/2; nothing of it was saved"):
        update(tiny, [own], micro_batch_tokens=budget)


def test_a_gradient_that_is_not_finite_stops_the_update_and_names_the_trajectories_of_its_pass(tiny):
    own = tiny[3]

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    policy, processor, vision, _ = tiny
    usual = losses.load("grpo")

    def overflowing(inputs, config):
        chosen = float(inputs.advantages[0]) == pytest.approx(own[4].advantage)
        return usual(dataclasses.replace(inputs, logp=Overflow.apply(inputs.logp)) if chosen else inputs, config)

    cfg = configuration(micro_batch_tokens=16)
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.0)
    learner = Learner(cfg, losses.Loss(overflowing), policy, processor, vision, sgd, SINGLE)
    with pytest.raises(UserError, match=r"the gradient's norm is (nan|inf) because of trajectory q/4; nothing"):
        learner.update(rollout(own), step=7)
    policy.zero_grad(set_to_none=True)


def recorded_by(parts, own):
    """The same trajectories with the log-probs that the policy itself finds."""
    policy, processor, vision, _ = parts
    found = []
    for item in own:
        batch = policy_model.collate([item.segments], processor, vision, learning.CPU)
        logits, tokens = plain.forward(policy, batch, processor, vision)
        values = iter(plain.logprobs(logits, tokens, processor, 1.0).tolist())
        segments = [
            each.model_copy(update={"logprobs": tuple(next(values) for _ in each.tokens)})
            if each.source == "model"
            else each
            for each in item.segments
        ]
        found.append(item.model_copy(update={"segments": tuple(segments)}))
    return found


def test_with_the_engine_s_own_log_probs_the_update_is_plain_grpo(tiny):
    own = recorded_by(tiny, tiny[3])
    found, gradients = update(tiny, [own], max_logprob_gap=None)
    assert found.gap.logp_diff_max < 1e-4 and found.gap.tis_truncated_frac == 0.0 and found.clip_frac == 0.0
    assert found.gap.tis_weight_mean == pytest.approx(1.0, abs=1e-5)
    _, same = update(tiny, [own], tis_cap=1e6)
    assert learning.difference(gradients, same) < 1e-6


def test_an_engine_of_another_policy_stops_the_update_and_names_the_trajectory_that_differs_most(tiny):
    policy, own = tiny[0], recorded_by(tiny, tiny[3])
    before = {name: each.clone() for name, each in policy.named_parameters() if each.requires_grad}
    own[3] = spoil(own[3], own[3].segments[1].logprobs[0] - 3.0)
    own[1] = spoil(own[1], own[1].segments[1].logprobs[0] - 0.3)
    with pytest.raises(UserError) as caught:
        update(tiny, [own], max_logprob_gap=None)
    assert "step 7: engine and trainer differ by" in caught.value.what and "trajectory q/3" in caught.value.what
    assert "adapter" in caught.value.remedy and "images" in caught.value.remedy and "base" in caught.value.remedy
    assert all(torch.equal(each, before[name]) for name, each in policy.named_parameters() if name in before)


def published(real_base, family, dtype):
    """A policy of a published structure, with its processor, vision and trajectories."""
    spec = ModelSpec(base=str(real_base(family, layers=3)), dtype="float32")
    policy, processor = learning.adapted(spec).to(dtype), policy_model.load_processor(spec)
    if dtype == torch.float64:  # torch has no grouped product of experts in float64: one after the other
        policy_model.core(policy).set_experts_implementation("eager")
    vision = policy_model.vision_of(policy, processor)
    return policy, processor, vision, learning.trajectories(processor, vision, (1, 2, 2))


def whole_and_split(parts):
    """Gradients of one pass, and of passes of a trajectory each with checkpointing."""
    _, whole = update(parts, [parts[3]], micro_batch_tokens=WHOLE)
    checkpointing.apply(parts[0], "on", 16)
    return whole, update(parts, [parts[3]], micro_batch_tokens=16)[1]


@pytest.mark.parametrize("family", real_structures.FAMILIES)
def test_a_split_into_passes_changes_nothing_for_published_structures_with_checkpointing(real_base, family):
    # In float64, because float32 products of this size are rounded differently for another number of rows.
    whole, split = whole_and_split(published(real_base, family, torch.float64))
    assert learning.difference(split, whole) < 1e-12


def test_a_split_of_experts_in_float32_changes_less_than_the_rounding_of_float32(real_base):
    whole, split = whole_and_split(published(real_base, "qwen3_vl_moe", torch.float32))
    exact, _ = whole_and_split(published(real_base, "qwen3_vl_moe", torch.float64))
    rounding = learning.difference({name: each.double() for name, each in whole.items()}, exact)
    assert learning.difference(split, whole) < rounding < 1e-4
