"""SFT: a step is the same for any split into passes, and names the demonstration in which a number is not finite."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from support import learning, plain

from gog.errors import UserError
from gog.spec import SFTConfig
from gog.spec.base import MAX_SEED
from gog_recipes import sft
from gog_recipes.models import packing, policy_model
from gog_recipes.sft import SFTRecipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Ready to train on the shipped demonstrations."""
    root = tmp_path_factory.mktemp("sft")
    values = {
        "model": {"base": "tiny"},
        "data": {"world": {}},
        "store": {"uri": f"file://{root}/store"},
        "workdir": str(root / "work"),
        "demonstrations": "sample",
        "batch_size": 12,
        "unverified": "keep",
        "eval_share": 0,
    }
    recipe = SFTRecipe(SFTConfig.model_validate(values))
    recipe.setup()
    return recipe


def gradients(recipe, budget):
    recipe.cfg = recipe.cfg.model_copy(update={"micro_batch_tokens": budget})
    loss, suspects = recipe.gradients(recipe.batch(0))
    found = learning.gradients_of(recipe.model)
    recipe.model.zero_grad(set_to_none=True)
    return loss, suspects, found


@pytest.mark.parametrize("budget", [16, 300, 700])
def test_loss_and_gradients_are_the_same_for_any_split_into_passes(recipe, budget):
    lengths = [packing.length(recipe.rows[index]) for index in recipe.batch(0)]
    assert len(packing.plan(lengths, budget)) > 1
    whole, _, expected = gradients(recipe, 10**6)
    loss, suspects, found = gradients(recipe, budget)
    assert loss == pytest.approx(whole, rel=1e-6) and not suspects
    assert learning.difference(found, expected) < 1e-6


def test_the_loss_is_the_mean_cross_entropy_of_the_learned_tokens(recipe):
    rows = [recipe.rows[index] for index in recipe.batch(0)]
    batch = policy_model.collate(rows, recipe.processor, recipe.vision, learning.CPU)
    logits, tokens = plain.forward(recipe.model, batch, recipe.processor, recipe.vision)
    names = [name for name, each in recipe.model.named_parameters() if each.requires_grad]
    trained = [each for each in recipe.model.parameters() if each.requires_grad]
    mean = F.cross_entropy(logits, tokens)
    expected = dict(zip(names, torch.autograd.grad(mean, trained), strict=True))
    loss, _, found = gradients(recipe, 300)
    assert loss == pytest.approx(float(mean.detach()), rel=1e-6)
    assert learning.difference(found, expected) < 1e-5


def test_a_demonstration_in_which_a_number_is_not_finite_is_named(recipe, monkeypatch):
    index = recipe.batch(0)[5]
    features, (image, *_) = policy_model.features, recipe.rows[index][0].images
    poison = lambda batch, vision: features(batch, vision) * (math.nan if image in batch.images else 1)  # noqa: E731
    monkeypatch.setattr(policy_model, "features", poison)
    recipe.cfg = recipe.cfg.model_copy(update={"micro_batch_tokens": 16})
    name = recipe.ids[index]
    with pytest.raises(UserError, match=rf"step 1: the loss is nan because of demonstration {name}.*nothing of it was"):
        recipe.train()
    recipe.model.zero_grad(set_to_none=True)


def test_every_rank_and_step_drops_inputs_of_its_own():
    places = list(itertools.product(range(3), range(4), range(5)))
    assert len({sft.noise_seed(seed, step, rank) for seed, step, rank in places}) == len(places)
    largest = sft.noise_seed(MAX_SEED, step=2**22 - 1, rank=2**10 - 1)
    assert torch.Generator().manual_seed(largest).initial_seed() == largest


def test_the_noise_of_a_step_is_that_of_its_rank(recipe, monkeypatch):
    drawn = []
    monkeypatch.setattr(recipe, "step", recipe.total - 1)
    monkeypatch.setattr(recipe, "ranks", dataclasses.replace(recipe.ranks, rank=1))
    monkeypatch.setattr(recipe, "_update", lambda chosen: drawn.append(torch.initial_seed()) or (0.0, 0.0))
    monkeypatch.setattr(recipe, "_log", lambda *line: None)
    monkeypatch.setattr(recipe, "save_checkpoint", lambda epoch: None)
    recipe._steps()
    assert drawn == [sft.noise_seed(recipe.cfg.seed, recipe.total - 1, rank=1)]
