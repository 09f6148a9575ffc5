"""An update in which the trajectories of a group share their prompt: the same as if each were read by itself."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from support import learning, plain

from gog import exclusion
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes import losses
from gog_recipes.models import checkpointing, lora, packing, policy_model
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import SINGLE

WHOLE = 10**6


def parts_of(dtype=torch.float32, quantization="none"):
    """Policy, processor, vision, and trajectories of two questions and of a lone one, one of each question in turn."""
    spec = ModelSpec(base="tiny")
    policy, processor = learning.adapted(spec, quantization).to(dtype), policy_model.load_processor(spec)
    vision = policy_model.vision_of(policy, processor)
    first = learning.group(processor, vision, (1, 3, 2, 4), seed=1, name="a")
    second = learning.group(processor, vision, (2, 1, 3), seed=2, name="b")
    alone = learning.trajectories(processor, vision, (2,), seed=3)
    return (
        policy,
        processor,
        vision,
        [first[0], second[0], first[1], alone[0], second[1], first[2], second[2], first[3]],
    )


def update(parts, *, kl_coef=0.1, budget=WHOLE):
    """Statistics and gradients of one update, which leaves the weights as they are."""
    policy, processor, vision, own = parts
    needed = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    settings = {"max_logprob_gap": 1e6, "clip_grad_norm": 1e9, "kl_coef": kl_coef, "micro_batch_tokens": budget}
    cfg = GRPOConfig.model_validate(needed | settings)
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.0)
    found = {}
    sgd.register_step_pre_hook(lambda *_: found.update(learning.gradients_of(policy)))
    rollout = StepRollout([own], [own], exclusion.count([own]), 0)
    stats = Learner(cfg, losses.load("grpo"), policy, processor, vision, sgd, SINGLE).update(rollout, step=1)
    policy.zero_grad(set_to_none=True)
    return stats, found


@pytest.fixture
def unshared(monkeypatch):
    """Makes every conversation have its prompt by itself, from the call on."""
    return lambda: monkeypatch.setattr(packing, "groups", lambda rows: [[index] for index in range(len(rows))])


@pytest.mark.parametrize("budget", [WHOLE, 90])
@pytest.mark.parametrize("kl_coef", [0.1, 0.0])
def test_gradients_and_figures_equal_those_of_trajectories_by_themselves(unshared, budget, kl_coef):
    parts = parts_of()
    stats, found = update(parts, kl_coef=kl_coef, budget=budget)
    unshared()
    whole, expected = update(parts, kl_coef=kl_coef)
    assert learning.difference(found, expected) < 1e-5
    for name in ("kl", "clip_frac", "grad_norm", "loss"):
        assert getattr(stats, name) == pytest.approx(getattr(whole, name), rel=1e-5, abs=1e-9), name
    for name, value in dataclasses.asdict(whole.gap).items():
        assert getattr(stats.gap, name) == pytest.approx(value, rel=1e-4), name
    assert stats.learned == whole.learned and stats.tokens < whole.tokens


def norm(module, hidden):
    """RMSNorm in the type of its input; transformers' own rounds hidden states and their gradients to float32."""
    return module.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)


@pytest.mark.parametrize("saving", ["off", "on"])
def test_in_float64_they_are_equal_to_its_rounding_with_and_without_checkpointing(unshared, saving):
    parts = parts_of(torch.float64)
    for each in parts[0].modules():
        if type(each).__name__.endswith("RMSNorm"):
            each.forward = functools.partial(norm, each)
    checkpointing.apply(parts[0], saving, 1)
    _, found = update(parts)
    unshared()
    assert learning.difference(found, update(parts)[1]) < 1e-10


@pytest.mark.parametrize(
    ("dtype", "quantization", "bound"), [(torch.float32, "nf4", 1e-5), (torch.bfloat16, "none", 0.05)]
)
def test_they_are_equal_for_other_weights_up_to_rounding(unshared, dtype, quantization, bound):
    parts = parts_of(dtype, quantization)
    _, found = update(parts)
    unshared()
    assert learning.difference(found, update(parts)[1]) < bound


def test_the_gradient_is_that_of_the_plain_forward_of_each_trajectory():
    parts = parts_of()
    policy, processor, vision, own = parts
    total = 0.0
    for item in own:
        batch = policy_model.collate([item.segments], processor, vision, learning.CPU)
        with lora.reference(policy):
            reference = plain.logprobs(*plain.forward(policy, batch, processor, vision), processor, 1.0)
        logp = plain.logprobs(*plain.forward(policy, batch, processor, vision), processor, 1.0)
        sampled = torch.tensor(item.model_logprobs())
        weights = (logp.detach() - sampled).exp().clamp(max=2.0)
        advantage, count = torch.tensor([item.advantage]), torch.tensor([len(sampled)])
        given = losses.LossInputs(logp, logp.detach(), reference, advantage, count, len(own), len(own), weights)
        total += losses.load("grpo")(given, losses.LossConfig(kl_coef=0.1)).loss
    names = [name for name, each in policy.named_parameters() if each.requires_grad]
    trained = [each for each in policy.parameters() if each.requires_grad]
    expected = dict(zip(names, torch.autograd.grad(total, trained), strict=True))
    assert learning.difference(update(parts)[1], expected) < 1e-5


def batch_of(parts, rows):
    return policy_model.collate(rows, parts[1], parts[2], learning.CPU)


def test_a_prompt_and_its_image_are_read_once_per_group():
    parts = parts_of()
    rows = [item.segments for item in parts[3]]
    batch = batch_of(parts, rows)
    prompts = {row[0].tokens for row in rows}
    assert batch.ids.shape[1] == sum(map(len, prompts)) + sum(packing.length(row[1:]) for row in rows)
    assert [len(tree.suffixes) for tree in batch.layout] == [4, 3, 1]
    shown = [image for row in rows for segment in row[1:] for image in segment.images]
    assert sorted(batch.images) == sorted({image for row in rows for image in row[0].images} | set(shown))
    assert batch.targets.tolist() == [t for row in rows for s in row if s.source == "model" for t in s.tokens]


def test_log_probs_come_in_the_order_of_the_trajectories_and_equal_those_of_each_by_itself():
    parts = parts_of()
    policy, _, vision, own = parts
    with torch.no_grad():
        one, *each = [
            policy_model.token_logprobs(policy, batch, policy_model.features(batch, vision))
            for batch in (batch_of(parts, [item.segments for item in chosen]) for chosen in (own, *([i] for i in own)))
        ]
    assert float((one - torch.cat(each)).abs().max()) < 1e-5


@pytest.mark.parametrize("change", ["token", "image"])
def test_a_prompt_that_differs_in_one_token_or_image_is_not_shared(change):
    parts = parts_of()
    one, other = (parts[3][index].segments for index in (0, 2))
    prompt = other[0]
    tokens = (*prompt.tokens[:-1], prompt.tokens[-1] + 1) if change == "token" else prompt.tokens
    images = prompt.images if change == "token" else parts[3][1].segments[0].images
    changed = prompt.model_copy(update={"tokens": tokens, "images": images})
    assert [tree.prefix for tree in batch_of(parts, [one, other]).layout] == [len(prompt.tokens)]
    assert [tree.prefix for tree in batch_of(parts, [one, (changed, *other[1:])]).layout] == [0, 0]


def test_a_conversation_does_not_see_its_siblings():
    parts = parts_of()
    policy, _, vision, own = parts
    rows = [own[index].segments for index in (0, 2)]
    turn = rows[0][1]
    swapped = turn.model_copy(update={"tokens": tuple(token + 1 for token in turn.tokens)})
    found = []
    for first in (rows[0], (rows[0][0], swapped, *rows[0][2:])):
        batch = batch_of(parts, [first, rows[1]])
        with torch.no_grad():
            found.append(policy_model.token_logprobs(policy, batch, policy_model.features(batch, vision)))
    count = len(own[0].model_logprobs())
    assert torch.equal(found[0][count:], found[1][count:]) and not torch.equal(found[0][:count], found[1][:count])
