"""A step of GRPO over an engine without a model: what it plays, refills, rewards and learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage
from support.builders import answer, make_image, make_question, run, text_search
from support.scripted_engine import ScriptedEngine
from support.services import FakeServices

from gog.images import Image
from gog.spec import GRPOConfig
from gog.tool_types import FailureKind, Reply, ToolFailure
from gog_recipes import losses
from gog_recipes.grpo import GRPORecipe
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.rollout.step_questions import StepQuestions
from gog_recipes.runtime import timers
from gog_recipes.runtime.learner import StepRollout

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
SOLVED = {0, 1, 2, 3}
"""Questions that every sample answers; of the others only the first sample is right."""


class Features(set[str]):
    """Of images, by hash."""

    def add(self, images: Any) -> None:
        self.update(image.hash if isinstance(image, Image) else image for image in images)


def script(prompt: str, seed: Any) -> list[str]:
    number = int(prompt.rpartition("question ")[2].split()[0])
    return [answer("Ada" if number in SOLVED or seed[-1] == 0 else "Bob")]


def make_recipe(folder: Path, **settings: Any) -> GRPORecipe:
    """A recipe that is set up but for its model; questions 0 to 7, four of a step, two samples of each."""
    for number in range(8):
        PILImage.fromarray(make_image(number).pixels).save(folder / f"q{number}.png")
    asked = [make_question(f"q{n}", image=f"q{n}.png", question=f"question {n} ?") for n in range(8)]
    given = {"questions_per_step": 4, "group_size": 2, "max_tokens": 100_000}
    recipe = object.__new__(GRPORecipe)
    recipe.cfg = GRPOConfig.model_validate(NEEDED | given | settings)
    recipe.timer = timers.StepTimer()
    recipe.loss_config = losses.load(recipe.cfg.loss).config(recipe.cfg)
    recipe.pool = QuestionPool(folder, asked)
    recipe.order = StepQuestions(asked, dict.fromkeys((each.id for each in asked), "2"), recipe.cfg)
    recipe.model, recipe.vision, recipe.step = torch.nn.Linear(2, 2), Features(), 0  # type: ignore[assignment]
    scoring = RewardConfig.of(recipe.cfg, recipe.loss_config.overlong_share)
    recipe.rollouts = Rollouts(
        ScriptedEngine(script), FakeServices(), recipe.cfg, recipe.pool, "grpo", seed=0, scoring=scoring
    )
    return recipe


def numbers(groups: Any) -> set[int]:
    return {int(group[0].question_id[1:]) for group in groups}


def step(recipe: GRPORecipe) -> StepRollout:
    return run(recipe._play())


def test_by_default_groups_without_a_signal_are_kept_and_nothing_is_refilled(tmp_path):
    found = step(make_recipe(tmp_path))
    assert len(found.groups) == 4 and not found.replaced and found.exclusions.trajectories == 8
    assert all(any(item.advantage for item in group) != (numbers([group]) <= SOLVED) for group in found.groups)


def test_a_refilled_step_learns_from_as_many_groups_with_a_signal_as_it_wants(tmp_path):
    found = step(make_recipe(tmp_path, max_oversampling=2))
    assert numbers(found.groups) == {4, 5, 6, 7} and found.missing == 0
    assert numbers(found.replaced) <= SOLVED and len(found.own) == 4
    assert found.exclusions.trajectories == len(found.played) == 2 * (4 + len(found.replaced))
    assert all(item.advantage for item in found.trajectories)


def test_a_refill_stops_at_its_bound(tmp_path):
    recipe = make_recipe(tmp_path, max_oversampling=1.25)
    first = {int(each.id[1:]) for each in recipe.order.step(0)}
    found = step(recipe)
    assert len(found.groups) == 4 and len(found.played) == 2 * 5
    assert found.missing == 4 - len((numbers(found.groups) | numbers(found.replaced)) - SOLVED) > 0
    assert first < numbers(found.groups) | numbers(found.replaced)


def test_right_answers_of_different_length_are_replaced_and_hardly_learned(tmp_path):
    """Rewards of every group differ by its tokens."""

    def unlike(prompt: str, seed: Any) -> list[str]:
        return [f"{turn}{' ' * (20 * seed[-1])}" for turn in script(prompt, seed)]

    given = {"token_penalty": 0.5, "call_penalty": 0.1}
    recipe = make_recipe(tmp_path, max_oversampling=2, **given)
    recipe.rollouts.engine = ScriptedEngine(unlike)
    assert numbers(step(recipe).groups) == {4, 5, 6, 7}
    recipe = make_recipe(tmp_path, **given)
    recipe.rollouts.engine = ScriptedEngine(unlike)
    found = step(recipe)
    assert numbers(found.groups) & SOLVED
    for group in found.groups:
        size = max(abs(item.advantage) for item in group)
        assert 0 < size < 0.1 if numbers([group]) <= SOLVED else size == pytest.approx(1)


def test_images_of_every_round_are_kept_for_the_checkpoint_and_the_trainer(tmp_path):
    recipe = make_recipe(tmp_path, max_oversampling=2)
    found = step(recipe)
    wanted = {item.image for item in found.played}
    assert wanted <= recipe.rollouts.images.keys() and wanted <= recipe.vision


def test_a_step_is_played_again_with_the_same_questions(tmp_path):
    recipe = make_recipe(tmp_path, max_oversampling=2)
    first, again = step(recipe), step(recipe)
    assert [item.id for item in first.played] == [item.id for item in again.played]


@pytest.mark.parametrize(("loss", "expected"), [("grpo", {1.0}), ("dr_grpo", {0.45}), ("rloo", {0.9})])
def test_a_loss_chooses_the_advantages_of_the_step(tmp_path, loss, expected):
    found = step(make_recipe(tmp_path, loss=loss, max_oversampling=2))
    assert {round(abs(item.advantage), 9) for item in found.trajectories} == expected


def test_a_comparison_over_the_step_gives_groups_of_equal_rewards_a_signal(tmp_path):
    recipe = make_recipe(tmp_path, loss="reinforce_plus_plus")
    found = step(recipe)
    assert all(item.advantage for item in found.trajectories)
    assert sum(map(recipe.has_signal, found.groups)) < 4  # what frac_reward_zero_std counts


def test_a_long_episode_loses_reward_with_dapo_and_not_with_grpo(tmp_path):
    lost = {}
    for loss in ("grpo", "dapo"):
        (tmp_path / loss).mkdir()
        recipe = make_recipe(tmp_path / loss, loss=loss)
        length = len(step(recipe).groups[0][0].tokens())
        recipe.rollouts.settings = recipe.cfg.model_copy(update={"max_tokens": round(length / 0.9)})
        rewarded = step(recipe).groups[0][0].reward
        lost[loss] = rewarded.overlong
    assert lost == {"grpo": 0.0, "dapo": pytest.approx(0.5, abs=0.05)}


class DeadSearch(FakeServices):
    """Services whose text search fails."""

    async def search_text(self, query: str) -> Reply[Any]:
        return Reply(None, ToolFailure("textSearch", FailureKind.SERVER_ERROR, "on purpose"), attempts=1)


@pytest.mark.parametrize(
    ("rule", "excluded", "treated", "learned"),
    [
        ("exclude", 4, 0, 0),  # the others of their groups have nothing to be compared with
        ("mask", 0, 4, 4),
        ("drop", 8, 0, 0),
        ("keep", 0, 0, 8),
        ("zero", 0, 4, 8),
        ("fatal-clamp", 0, 4, 4),
    ],
)
def test_a_step_learns_from_trajectories_with_failures_what_the_rule_leaves(tmp_path, rule, excluded, treated, learned):
    """Of each group one sample answers at once and rightly; the other one's search fails, and it answers wrongly."""
    fatal = {"fatal_failures": 1} if rule == "fatal-clamp" else {}
    recipe = make_recipe(tmp_path, tool_failures=rule, **fatal)
    recipe.rollouts.toolbox = DeadSearch()
    recipe.rollouts.engine = ScriptedEngine(
        lambda prompt, seed: [text_search(), answer("Bob")] if seed[-1] else [answer("Ada")]
    )
    found = step(recipe)
    assert found.exclusions.excluded == sum(bool(item.excluded) for item in found.trajectories) == excluded
    assert sum(bool(item.treatment) for item in found.trajectories) == treated
    assert sum(bool(item.advantage) for item in found.trajectories) == learned
    assert sum(map(recipe.has_signal, found.groups)) == (4 if learned else 0)
    assert found.exclusions.by_calls.trajectories == {"0": 4, "1": 4}
