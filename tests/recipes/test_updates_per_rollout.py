"""Several optimizer steps per rollout: each learns from its own groups, against the policy before the first of them."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from support import learning, plain

from gog import exclusion
from gog.errors import UserError
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes import losses
from gog_recipes.models import lora, packing, policy_model
from gog_recipes.runtime import checkpoint
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import SINGLE

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
KL, CAP = 0.1, 2.0
HIGH = 0.3
"""A learning rate at which one step of SGD moves ratios out of their range."""


@pytest.fixture(scope="module")
def parts():
    """Policy, processor, vision, and two groups whose engine found their tokens about as probable as the policy does."""
    spec = ModelSpec(base="tiny")
    policy, processor = learning.adapted(spec), policy_model.load_processor(spec)
    vision = policy_model.vision_of(policy, processor)
    groups = [learning.group(processor, vision, (1, 3, 2), seed=seed, name=f"q{seed}") for seed in (5, 6)]
    return policy, processor, vision, groups


class Updated:
    """An update of a copy of the policy, with what each of its optimizer steps saw."""

    def __init__(self, parts, groups, *, loss="grpo", rate=HIGH, optimizer=torch.optim.SGD, **settings):
        policy, self.processor, self.vision, _ = parts
        self.policy = copy.deepcopy(policy)
        chosen = {"max_logprob_gap": 1e6, "clip_grad_norm": 1e9, "kl_coef": KL, "micro_batch_tokens": 70, "loss": loss}
        self.cfg = GRPOConfig.model_validate(NEEDED | chosen | {"tis_cap": CAP} | settings)
        trained = [each for each in self.policy.parameters() if each.requires_grad]
        made = optimizer(trained, lr=rate)
        self.gradients, self.weights = [], [self.trainable()]
        made.register_step_pre_hook(lambda *_: self.gradients.append(learning.gradients_of(self.policy)))
        made.register_step_post_hook(lambda *_: self.weights.append(self.trainable()))
        self.learner = Learner(self.cfg, losses.load(loss), self.policy, self.processor, self.vision, made, SINGLE)
        self.rollout = StepRollout(groups, groups, exclusion.count(groups), 0)

    def trainable(self):
        return {name: each.detach().clone() for name, each in self.policy.named_parameters() if each.requires_grad}

    def finish(self):
        self.stats = self.learner.update(self.rollout, step=7)
        return self


def logprobs(made, item):
    """[k] by the plain forward pass of a trajectory by itself, with the present weights."""
    batch = policy_model.collate([item.segments], made.processor, made.vision, learning.CPU)
    return plain.logprobs(*plain.forward(made.policy, batch, made.processor, made.vision), made.processor, 1.0)


def formula(made, group, weights):
    """GRPO's loss of a group as a mini-batch, by its formula, with ratios to the policy before the update."""
    made.policy.load_state_dict(made.weights[0], strict=False)
    before = [logprobs(made, item).detach() for item in group]
    made.policy.load_state_dict(weights, strict=False)
    total = torch.zeros(())
    for item, old in zip(group, before, strict=True):
        with lora.reference(made.policy):
            base = logprobs(made, item)
        logp, sampled = logprobs(made, item), torch.tensor(item.model_logprobs())
        ratio, weight = (logp - old).exp(), (old - sampled).exp().clamp(max=CAP)
        policy = -torch.minimum(ratio * item.advantage, ratio.clamp(0.8, 1.2) * item.advantage)
        kl = (base - logp).exp() - (base - logp) - 1
        total = total + (weight * policy + KL * kl).mean() / len(group)
    return total


def test_the_second_optimizer_step_has_the_loss_and_gradient_of_ratios_to_the_policy_before_the_first(parts):
    groups = parts[3]
    made = Updated(parts, groups, updates_per_rollout=2).finish()
    assert len(made.gradients) == made.stats.updates == 2
    values = []
    for number, group in enumerate(groups):
        loss = formula(made, group, made.weights[number])
        made.policy.zero_grad()
        loss.backward()
        assert learning.difference(made.gradients[number], learning.gradients_of(made.policy)) < 1e-4
        values.append(loss.item())
    assert made.stats.loss == pytest.approx(sum(values) / 2, rel=1e-4)


def test_clips_bind_from_the_second_optimizer_step_on_and_never_in_a_single_one(parts):
    several = Updated(parts, parts[3], updates_per_rollout=2).finish()
    assert 0.1 < several.stats.clip_frac < 0.5, "of the tokens of both, and none of the first step's is clipped"
    assert Updated(parts, parts[3]).finish().stats.clip_frac == 0.0


@pytest.mark.parametrize(("one", "other"), [("grpo", "gspo"), ("dapo", "cispo")])
def test_losses_that_are_alike_on_policy_differ_from_the_second_optimizer_step_on(parts, one, other):
    settings = {"kl_coef": 0.0, "updates_per_rollout": 2}
    found = [Updated(parts, parts[3], loss=loss, **settings).finish() for loss in (one, other)]
    first, second = zip(*(each.gradients for each in found), strict=True)
    assert learning.difference(*first) < 1e-6
    assert learning.difference(*second) > 0.01


def test_a_step_of_one_update_is_bit_for_bit_that_of_passes_one_after_the_other(parts):
    groups = [*parts[3], learning.group(*parts[1:3], (2, 1), seed=7, name="q7")]
    made = Updated(parts, groups, rate=1e-3, optimizer=torch.optim.AdamW).finish()
    again = Updated(parts, groups, rate=1e-3, optimizer=torch.optim.AdamW)
    items = [item for group in groups for item in group]
    rows, config = [item.segments for item in items], losses.load("grpo").config(again.cfg)
    for members in packing.passes(rows, 70, again.learner.together):
        batch = policy_model.collate([rows[each] for each in members], again.processor, again.vision, learning.CPU)
        settings = {"suppressed": again.processor.suppress_tokens}
        shown = policy_model.features(batch, again.vision)
        with lora.reference(again.policy):
            base = policy_model.token_logprobs(again.policy, batch, shown, **settings)
        logp = policy_model.token_logprobs(again.policy, batch, shown, **settings)
        sampled = [items[each].model_logprobs() for each in members]
        weights = (logp.detach() - torch.tensor([value for row in sampled for value in row])).exp().clamp(max=CAP)
        given = losses.LossInputs(
            logp, logp.detach(), base, torch.tensor([items[each].advantage for each in members]),
            torch.tensor(list(map(len, sampled))), len(items), sum(len(each.model_logprobs()) for each in items), weights,
        )  # fmt: skip
        losses.load("grpo")(given, config).loss.backward()
    torch.nn.utils.clip_grad_norm_(again.policy.parameters(), 1e9)
    again.learner.optimizer.step()
    assert made.stats.updates == 1
    assert all(torch.equal(each, again.weights[1][name]) for name, each in made.weights[1].items())


@pytest.mark.parametrize(("updates", "passes"), [(1, 2), (2, 3)])
def test_only_what_later_optimizer_steps_learn_is_read_once_more(parts, monkeypatch, updates, passes):
    calls, usual = [], policy_model.token_logprobs
    monkeypatch.setattr(
        policy_model,
        "token_logprobs",
        lambda *rest, **named: calls.append(torch.is_grad_enabled()) or usual(*rest, **named),
    )
    settings = {"kl_coef": 0.0, "updates_per_rollout": updates}
    made = Updated(parts, parts[3], **settings)
    made.learner.together = 1  # a group per pass
    made.learner.cfg = made.cfg.model_copy(update={"micro_batch_tokens": 10**6})
    made.finish()
    assert len(calls) == passes and sum(calls) == 2


def test_each_optimizer_step_takes_its_means_over_its_own_groups_silent_ones_included(parts):
    silent = [item.model_copy(update={"id": f"{item.id}-", "advantage": 0.0}) for item in parts[3][0]]
    one, other = parts[3]
    made = Updated(parts, [one, silent, other], rate=0.0, loss="dapo", updates_per_rollout=2).finish()
    first = Updated(parts, [one], rate=0.0, loss="dapo").finish()
    second = Updated(parts, [silent, other], rate=0.0, loss="dapo").finish()
    for found, expected in zip(made.gradients, (first, second), strict=True):
        assert learning.difference(found, expected.gradients[0]) < 1e-6
    assert made.stats.loss == pytest.approx((first.stats.loss + second.stats.loss) / 2, rel=1e-5)
    assert made.stats.grad_norm == pytest.approx((first.stats.grad_norm + second.stats.grad_norm) / 2, rel=1e-5)
    assert made.stats.learned == len(one) + len(other) and made.stats.clip_frac == 0.0


def test_fewer_groups_with_a_signal_make_fewer_optimizer_steps(parts):
    silent = [item.model_copy(update={"id": f"{item.id}-", "advantage": 0.0}) for item in parts[3][0]]
    made = Updated(parts, [silent, parts[3][1]], updates_per_rollout=2).finish()
    assert made.stats.updates == len(made.gradients) == 1
    assert Updated(parts, [silent, silent], updates_per_rollout=2).finish().stats.updates == 0


def test_an_engine_that_differs_about_the_last_groups_stops_the_update_before_anything_is_learned(parts):
    one, other = parts[3]
    engine = Updated(parts, [])
    recorded = [[learning.recorded(item, logprobs(engine, item).tolist()) for item in group] for group in (one, other)]
    settings = {"updates_per_rollout": 2, "max_logprob_gap": 0.01}
    assert Updated(parts, recorded, **settings).finish().stats.gap.logp_diff_max < 1e-4
    wrong = [learning.recorded(item, [value - 0.5 for value in item.model_logprobs()]) for item in recorded[1]]
    made = Updated(parts, [recorded[0], wrong], **settings)
    with pytest.raises(UserError, match=r"engine and trainer differ by .* trajectory q6/"):
        made.finish()
    assert not made.gradients


def test_in_parts_the_weights_change_after_each_announcement_only(parts):
    made = Updated(parts, parts[3], updates_per_rollout=2)
    states = [(False, checkpoint.fingerprint(made.policy))]
    updating = made.learner.updating(made.rollout, step=7)
    states += [(flag, checkpoint.fingerprint(made.policy)) for flag in updating]
    changed = [before[0] for before, after in itertools.pairwise(states) if before[1] != after[1]]
    assert changed == [True] and sum(flag for flag, _ in states) == 2
    assert checkpoint.fingerprint(made.policy) != states[-1][1]


def test_weights_that_a_first_optimizer_step_spoiled_are_blamed_on_the_learning_rate(parts):
    made = Updated(parts, parts[3], rate=1e30, updates_per_rollout=2)
    with pytest.raises(UserError) as caught:
        made.learner.update(made.rollout, step=1)
    assert "learning_rate" in caught.value.remedy
