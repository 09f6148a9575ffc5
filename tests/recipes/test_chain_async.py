"""GRPO with asynchronous rollouts end to end at toy scale, with the real servers."""

from __future__ import annotations

import asyncio

import pytest
import torch
from support.chain_folders import copy_of, lines, weights

from gog import store
from gog.spec import GRPOConfig
from gog.spec.objective import AsyncSettings
from gog_recipes.grpo import GRPORecipe
from gog_recipes.runtime.interruption import Interrupted, Interruption

SETTINGS = {"levels": ["easy", "1", "2"], "questions_per_step": 3, "group_size": 3, "save_every": 1, "seed": 4}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(make, root, **settings):
    recipe = GRPORecipe(make(GRPOConfig, root, **SETTINGS | settings))
    recipe.setup()
    return recipe


def trained(recipe):
    asyncio.run(recipe.train())
    return recipe


def test_with_a_bound_of_0_the_asynchronous_loop_equals_the_synchronous_one_bit_for_bit(chain, make, tmp_path):
    straight, overlapping = copy_of(chain, tmp_path / "sync"), copy_of(chain, tmp_path / "async")
    # Compared over the step, every group has a signal, so there is something to divide.
    settings = {"steps": 2, "deterministic": True, "updates_per_rollout": 2, "advantages": "batch"}
    trained(made(make, straight, **settings))
    recipe = made(make, overlapping, **settings)
    none = AsyncSettings.model_construct(max_staleness=0)  # which a manifest may not say
    recipe.cfg = recipe.cfg.model_copy(update={"asynchronous": none})
    trained(recipe)
    without = ("canary_seconds", "attempts", "attempt_failure_ratio")  # times, and counts of the whole process
    one, other = (
        [{name: value for name, value in line.items() if name not in without} for line in lines(root, "grpo")]
        for root in (straight, overlapping)
    )
    assert one == other and any(line["updates"] == 2 for line in one)
    assert weights(straight, "grpo") == weights(overlapping, "grpo")


def test_steps_are_learned_from_older_weights_within_the_bound_and_resumed_without_a_gap(chain, make, tmp_path):
    root = copy_of(chain, tmp_path / "r")
    ahead = {
        "async": {"max_staleness": 2},
        "steps": 5,
        "save_every": 5,
        "updates_per_rollout": 2,
        "advantages": "batch",
    }
    recipe = made(make, root, **ahead)
    recipe.stage.interruption = Interruption()
    switch = recipe.engine.switch

    async def switch_and_end(model, version):
        await switch(model, version)
        if version == 2:
            recipe.stage.interruption.request()

    recipe.engine.switch = switch_and_end
    with pytest.raises(Interrupted):
        trained(recipe)
    assert store.Store(root / "store").latest("grpo").step == 2
    journalled = {each.key.split("/")[2] for each in store.Store(root / "store").objects("journal/grpo/")}
    assert "grpo-000000003" in journalled <= {"grpo-000000003", "grpo-000000004"}, "only plays in flight are kept"
    trained(made(make, root, **ahead))
    series = lines(root, "grpo")
    assert [line["step"] for line in series] == [1, 2, 3, 4, 5]
    assert max(line["staleness"] for line in series) == 2 and all(line["dropped_stale"] == 0 for line in series)
    assert all(0 <= line["staleness_mean"] <= line["staleness"] for line in series)
    assert any(line["learned"] and line["updates"] == 2 for line in series)
    assert store.Store(root / "store").objects("journal/grpo/") == []


def test_a_resumed_stage_learns_from_turns_that_other_weights_of_the_same_version_sampled(chain, make, tmp_path):
    """Where a verdict was lost, the next attempt's updates differ, and so do the weights under every later version."""
    root = copy_of(chain, tmp_path / "r")
    ahead = {"async": {"max_staleness": 2}, "steps": 4, "save_every": 4}
    killed = made(make, root, **ahead)
    update = killed._update

    async def update_to_others(rollout):
        if killed.step == 3:
            raise RuntimeError("killed")
        done = await update(rollout)
        with torch.no_grad():
            for name, each in killed.model.named_parameters():
                if each.requires_grad and ".lora_B." in name:
                    each.add_(0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(killed.step)))
        return done

    killed._update = update_to_others
    with pytest.raises(RuntimeError, match="killed"):
        trained(killed)
    trained(made(make, root, **ahead))
    series = lines(root, "grpo")
    assert [line["step"] for line in series] == [1, 2, 3, 4] and any(line["learned"] for line in series)
