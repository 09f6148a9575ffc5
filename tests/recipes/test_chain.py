"""Every recipe end to end at toy scale, with the real servers; stopped and resumed, they repeat the same steps exactly."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from support.builders import make_trajectory
from support.chain_folders import copy_of, lines, weights

from gog import exclusion, store
from gog.errors import ServiceDown, UserError
from gog.spec import EvaluateConfig, GRPOConfig, SFTConfig, StratifyConfig
from gog.trajectory import Failure, Reward
from gog_recipes import grpo as grpo_module
from gog_recipes import stratify as stratify_module
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.grpo import GRPORecipe
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.runtime.interruption import Interrupted, Interruption
from gog_recipes.sft import SFTRecipe
from gog_recipes.stratify import StratifyRecipe, grade


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_demonstrations_of_an_accurate_teacher_are_correct_and_well_formed(chain):
    manifest = store.Store(chain / "store").latest("curate")
    assert manifest.meta["trajectories"] == 64
    assert manifest.meta["accuracy"] >= 0.9
    assert sum(manifest.meta["behaviour"].values()) == pytest.approx(1.0)


def test_sft_lowers_the_loss(chain):
    series = [line["loss"] for line in lines(chain, "sft")]
    assert series[-1] < 0.3 * series[0]


def test_sft_resumed_from_a_checkpoint_repeats_the_uninterrupted_run_bit_for_bit(chain, make, tmp_path):
    whole, halves = copy_of(chain, tmp_path / "whole"), copy_of(chain, tmp_path / "halves")
    runs = [(whole, 6), (halves, 3), (halves, 6)]
    for root, steps in runs:
        recipe = SFTRecipe(make(SFTConfig, root, stage="again", epochs=3, max_steps=steps, save_every=3))
        recipe.setup()
        recipe.train()
    assert [line["loss"] for line in lines(halves, "again")] == [line["loss"] for line in lines(whole, "again")]
    assert weights(halves, "again") == weights(whole, "again")


def test_training_stops_at_the_first_number_that_is_not_finite_and_commits_nothing(chain, make, tmp_path):
    root = copy_of(chain, tmp_path)
    recipe = SFTRecipe(make(SFTConfig, root, stage="hot", epochs=3, learning_rate=1e30, save_every=1000))
    recipe.setup()
    with pytest.raises(UserError, match=r"step \d+: .*learning_rate, .*, is probably too high"):
        recipe.train()
    assert store.Store(root / "store").latest("hot") is None


def test_stratify_grades_every_question_once(chain):
    opened = store.Store(chain / "store")
    manifest = opened.latest("stratify")
    graded = [json.loads(line) for line in opened.open(manifest, "levels.jsonl").read_text().splitlines()]
    assert len({line["question_id"] for line in graded}) == len(graded) == 24
    assert sum(manifest.meta["levels"].values()) + manifest.meta["unknown"] == 24


def play_grpo(make, root, steps, **settings):
    everything = {"levels": ["easy", "1", "2"], "questions_per_step": 4, "group_size": 3, "save_every": 2, **settings}
    recipe = GRPORecipe(make(GRPOConfig, root, steps=steps, **everything))
    recipe.setup()
    asyncio.run(recipe.train())
    return recipe


def test_grpo_resumed_from_a_checkpoint_repeats_the_uninterrupted_run(chain, make, tmp_path):
    whole, halves = copy_of(chain, tmp_path / "whole"), copy_of(chain, tmp_path / "halves")
    play_grpo(make, whole, 4)
    play_grpo(make, halves, 2)
    play_grpo(make, halves, 4)
    names = ("step", "reward_mean", "accuracy_mean", "format_mean", "generated_tokens", "behaviour", "learned")
    straight, resumed = (
        [{name: line[name] for name in names} for line in lines(root, "grpo")] for root in (whole, halves)
    )
    assert [line["step"] for line in resumed] == [1, 2, 3, 4]
    assert resumed == straight


def test_grpo_prefills_no_token_twice_and_agrees_with_its_engine(chain, make, tmp_path):
    root = copy_of(chain, tmp_path / "r")
    recipe = play_grpo(make, root, 3)
    series = lines(root, "grpo")
    assert max(line["logp_diff_max"] for line in series if line["learned"]) < 1e-4
    assert max(line["canary_engine"] for line in series) < 1e-5
    assert (
        min(line["canary_adapter"] for line in series) > 1e-2 and min(line["canary_images"] for line in series) > 1e-2
    )
    assert max(line["prefill_ratio"] for line in series) <= 1.05
    assert any(line["learned"] for line in series)
    assert recipe.vision.encoded == len(recipe.vision)


def test_grpo_that_is_asked_to_end_before_its_first_step_compares_and_plays_nothing(chain, make, tmp_path):
    root = copy_of(chain, tmp_path / "r")
    recipe = GRPORecipe(make(GRPOConfig, root, levels=["easy", "1", "2"], questions_per_step=4, group_size=3, steps=1))
    recipe.setup()
    recipe.stage.interruption = Interruption()
    recipe.stage.interruption.request()
    recipe.canary = None
    with pytest.raises(Interrupted):
        asyncio.run(recipe.train())
    assert store.Store(root / "store").latest("grpo") is None


def test_before_its_first_step_the_policy_is_its_own_reference(chain, make, tmp_path):
    play_grpo(make, copy_of(chain, tmp_path / "r"), 1)
    (line,) = lines(tmp_path / "r", "grpo")
    assert line["kl"] == pytest.approx(0.0, abs=1e-7)


def test_steps_with_a_refill_another_loss_and_costs_are_resumed_as_they_would_have_gone_on(chain, make, tmp_path):
    settings = {"loss": "dapo", "max_oversampling": 2, "call_penalty": 0.05, "clip_high": 0.3, "kl_estimator": "k2"}
    whole, halves = copy_of(chain, tmp_path / "whole"), copy_of(chain, tmp_path / "halves")
    play_grpo(make, whole, 2, save_every=1, **settings)
    play_grpo(make, halves, 1, save_every=1, **settings)
    play_grpo(make, halves, 2, save_every=1, **settings)
    names = ("step", "reward_mean", "trajectories", "refilled", "frac_reward_zero_std", "learned")
    straight, resumed = (
        [{name: line[name] for name in names} for line in lines(root, "grpo")] for root in (whole, halves)
    )
    assert straight == resumed and sum(line["refilled"] for line in straight) > 0
    for line in straight:
        assert 3 * (4 + line["refilled"]) <= line["trajectories"] <= 3 * 8 and line["learned"] > 0


def test_a_loss_of_another_package_trains_a_step(chain, make, tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(
        "from dataclasses import replace\n"
        "from gog_recipes.losses import grpo\n"
        "def reinforce(inputs, config):\n"
        "    return grpo.grpo(inputs, replace(config, clip_low=1e9, clip_high=1e9))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = play_grpo(make, copy_of(chain, tmp_path / "r"), 1, loss="my_losses:reinforce", questions_per_step=8)
    (line,) = lines(tmp_path / "r", "grpo")
    assert recipe.loss.terms.__name__ == "reinforce" and line["learned"] and line["grad_norm"] > 0


DEAD = "http://127.0.0.1:9"
"""An address at which nothing answers."""


def impatient(endpoints, *dead):
    """Settings in which those tools are down and no outage is waited out."""
    tools = {"crop_side": 28, "attempts": 1, "outage": {"patience_seconds": 0}, "judge": {"attempts": 1}}
    return {"endpoints": endpoints | dict.fromkeys(dead, DEAD), "tools": tools}


@pytest.mark.parametrize("dead", [("grounding", "imageSearch", "textSearch"), ("judge",)])
def test_grpo_whose_tools_or_judge_are_down_fails_and_commits_nothing(chain, make, endpoints, tmp_path, dead):
    root = copy_of(chain, tmp_path)
    settings = {"levels": ["easy", "1", "2"], "questions_per_step": 8, "group_size": 3, **impatient(endpoints, *dead)}
    recipe = GRPORecipe(make(GRPOConfig, root, steps=3, **settings))
    recipe.setup()
    before = {name: p.clone() for name, p in recipe.model.named_parameters() if p.requires_grad}
    with pytest.raises(ServiceDown, match=f"^({'|'.join(dead)}): down for "):
        asyncio.run(recipe.train())
    assert store.Store(root / "store").latest("grpo") is None and recipe.stage.metric_log.lines == []
    assert all(torch.equal(p, before[name]) for name, p in recipe.model.named_parameters() if name in before)


def test_stratify_whose_tools_are_down_fails_and_commits_no_levels(chain, make, endpoints, tmp_path):
    root = copy_of(chain, tmp_path)
    settings = impatient(endpoints, "grounding", "imageSearch", "textSearch")
    recipe = StratifyRecipe(make(StratifyConfig, root, stage="again", questions=12, rollouts=2, **settings))
    recipe.setup()
    with pytest.raises(ServiceDown, match="down for "):
        asyncio.run(recipe.train())
    assert store.Store(root / "store").latest("again") is None


def test_evaluation_whose_judge_is_down_fails_and_commits_no_accuracy(chain, make, endpoints, tmp_path):
    root = copy_of(chain, tmp_path)
    recipe = EvaluateRecipe(make(EvaluateConfig, root, policies=["sft"], **impatient(endpoints, "judge")))
    recipe.setup()
    with pytest.raises(ServiceDown, match=r"^judge: "):
        asyncio.run(recipe.train())
    assert store.Store(root / "store").latest("evaluate") is None


TIMEOUT = Failure(tool="imageSearch", kind="timeout")


class FlakyOnce(Rollouts):
    """Rollouts in whose first play all questions but the first met a failure of a tool."""

    plays = 0

    async def play(self, questions, samples, **options):
        self.plays += 1
        played = await super().play(questions, samples, **options)
        if self.plays > 1:
            return played
        spoiled = [
            [item.model_copy(update={"failures": (TIMEOUT,), "excluded": "tool failure"}) for item in group]
            for group in played.groups[1:]
        ]
        return dataclasses.replace(played, groups=[played.groups[0], *spoiled])


async def no_sleep(seconds):
    """Takes the place of asyncio.sleep."""


def flaky(monkeypatch, module, recipe):
    """Makes the first play of a recipe a flaky one, and its pause short."""
    monkeypatch.setattr(module, "Rollouts", FlakyOnce)
    reports = []
    replay = exclusion.Replay(600, reports.append, sleep=no_sleep)
    monkeypatch.setattr(recipe.stage, "replay", lambda: replay if not replay.plays else exclusion.Replay(600))
    return reports


def test_a_grpo_step_that_lost_most_of_its_trajectories_is_played_again_and_counts_once(
    chain, make, tmp_path, monkeypatch
):
    straight, spoiled = copy_of(chain, tmp_path / "straight"), copy_of(chain, tmp_path / "spoiled")
    play_grpo(make, straight, 2)
    settings = {"levels": ["easy", "1", "2"], "questions_per_step": 4, "group_size": 3, "save_every": 2, "steps": 2}
    recipe = GRPORecipe(make(GRPOConfig, spoiled, **settings))
    recipe.setup()
    reports = flaky(monkeypatch, grpo_module, recipe)
    asyncio.run(recipe.train())
    assert [report and report.service for report in reports] == ["imageSearch", None]
    assert "9 of 12 trajectories of step 1 are excluded (max_excluded_share is 0.5)" in reports[0].reason
    series = lines(spoiled, "grpo")
    assert [(line["step"], line["discarded_plays"]) for line in series] == [(1, 1), (2, 0)]
    names = ("reward_mean", "learned", "excluded", "excluded_by_turns")
    assert [[line[n] for n in names] for line in series] == [
        [line[n] for n in names] for line in lines(straight, "grpo")
    ]


def test_questions_that_failures_left_without_a_level_are_graded_again(chain, make, tmp_path, monkeypatch):
    root = copy_of(chain, tmp_path)
    recipe = StratifyRecipe(make(StratifyConfig, root, stage="again", questions=12, rollouts=2))
    recipe.setup()
    reports = flaky(monkeypatch, stratify_module, recipe)
    recipe.save_checkpoint(asyncio.run(recipe.train()), 1.0)
    assert "11 of 12 questions have no level (max_unknown_share is 0.5)" in reports[0].reason
    assert recipe.rollouts.plays == 2 and len(recipe.wanted) == 11
    opened = store.Store(root / "store")
    graded = [json.loads(line) for line in opened.open(opened.latest("again"), "levels.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in graded] == [question.id for question in recipe.pool.questions]
    assert "unknown" not in {line["level"] for line in graded}


class AlikeRollouts(Rollouts):
    """Rollouts in which every trajectory has the same reward."""

    async def play(self, questions, samples, **options):
        played = await super().play(questions, samples, **options)
        reward = Reward(accuracy=0.0, format=1.0, total=0.1)
        alike = [[item.model_copy(update={"reward": reward}) for item in group] for group in played.groups]
        return dataclasses.replace(played, groups=alike)


def test_grpo_without_a_signal_says_so_after_the_configured_steps_and_stops_if_it_is_to(
    chain, make, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(grpo_module, "Rollouts", AlikeRollouts)
    settings = {"levels": ["easy", "1", "2"], "questions_per_step": 2, "group_size": 2}
    warning = copy_of(chain, tmp_path / "warning")
    recipe = GRPORecipe(make(GRPOConfig, warning, steps=2, max_no_signal_steps=2, **settings))
    recipe.setup()
    asyncio.run(recipe.train())
    assert "grpo: warning: stages.grpo.maxNoSignalSteps: all groups had zero reward" in capsys.readouterr().out
    assert [line["no_signal_in_a_row"] for line in lines(warning, "grpo")] == [1, 2]
    stopping = copy_of(chain, tmp_path / "stopping")
    recipe = GRPORecipe(make(GRPOConfig, stopping, steps=2, max_no_signal_steps=1, no_signal="stop", **settings))
    recipe.setup()
    with pytest.raises(UserError, match="in the last step, so nothing was learned"):
        asyncio.run(recipe.train())


def test_stratify_reports_every_question_and_warns_of_those_from_which_grpo_cannot_learn(
    chain, make, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(stratify_module, "Rollouts", AlikeRollouts)
    recipe = StratifyRecipe(make(StratifyConfig, copy_of(chain, tmp_path), stage="again", questions=2, rollouts=2))
    recipe.setup()
    reported = []
    monkeypatch.setattr(recipe.stage, "report", lambda step, total, **figures: reported.append((step, total)))
    groups = asyncio.run(recipe.train())
    assert reported == [(1, 2), (2, 2)], "every finished question is progress"
    recipe.save_checkpoint(groups, 1.0)
    assert "again: warning: no sample of any question was right (2 questions of level 2)" in capsys.readouterr().out


def test_a_question_without_enough_valid_samples_has_no_level():
    def sample(excluded=""):
        reward = Reward(accuracy=1.0, format=1.0, total=1.0)
        return make_trajectory(question_id="q", reward=reward, excluded=excluded)

    assert grade([sample(), sample(), sample("tool failure")], (0.5, 0.6)).level == "easy"
    assert grade([sample(), sample("judge"), sample("tool failure")], (0.5, 0.6)).level == "unknown"


def test_grpo_without_enough_questions_of_the_level_names_the_remedy(chain, make, tmp_path):
    recipe = GRPORecipe(make(GRPOConfig, copy_of(chain, tmp_path / "r"), steps=1, levels=["1"], questions_per_step=64))
    with pytest.raises(UserError, match=r"for steps of 64.*add a level"):
        recipe.setup()


def test_evaluation_counts_every_question_and_pairs_the_policies(chain, make, tmp_path):
    root = copy_of(chain, tmp_path / "r")
    play_grpo(make, root, 2)
    recipe = EvaluateRecipe(make(EvaluateConfig, root, policies=["direct", "whole-image", "sft", "grpo"]))
    recipe.setup()
    recipe.save_checkpoint(asyncio.run(recipe.train()))
    opened = store.Store(root / "store")
    results = json.loads(opened.open(opened.latest("evaluate"), "results.json").read_text())
    rows = {row["policy"]: row for row in results["rows"]}
    assert [row["n"] for row in rows.values()] == [24] * 4
    assert rows["direct"]["tool_calls_mean"] == 0
    assert rows["direct"]["behaviour"]["none"] == 1
    assert all(row["ci95"][0] <= row["accuracy"] <= row["ci95"][1] for row in rows.values())
    assert {(pair["a"], pair["b"]) for pair in results["comparisons"]} >= {("grpo", "sft"), ("sft", "direct")}
    assert 24 <= recipe.vision.encoded == len(recipe.vision), "each image once, not once per policy"


def test_several_benchmarks_have_rows_of_their_own_and_equal_ids_do_not_clash(chain, make, world, tmp_path):
    root, data = copy_of(chain, tmp_path / "r"), Path(shutil.copytree(world, tmp_path / "data"))
    (data / "hard.jsonl").write_text("".join((data / "test.jsonl").read_text().splitlines(keepends=True)[:6]))
    compared = [{"split": "test", "name": "easy"}, {"split": "hard", "size": 6}]
    given = {"data": {"path": str(data)}, "benchmarks": compared, "questions": 8}
    recipe = EvaluateRecipe(make(EvaluateConfig, root, policies=["full-search", "sft"], **given))
    recipe.setup()
    recipe.save_checkpoint(asyncio.run(recipe.train()))
    opened = store.Store(root / "store")
    results = json.loads(opened.open(opened.latest("evaluate"), "results.json").read_text())
    sizes = {(row["policy"], row["benchmark"]): row["n"] for row in results["rows"]}
    assert sizes == {(policy, name): n for policy in ("full-search", "sft") for name, n in (("easy", 8), ("hard", 6))}
    searched = [row for row in results["rows"] if row["policy"] == "full-search"]
    assert [row["tool_calls_mean"] for row in searched] == [2.0, 2.0], "one image search, one text search, no more"
    assert [mean["policy"] for mean in results["means"]] == ["full-search", "sft"]
    assert {(pair["benchmark"], pair["n"]) for pair in results["comparisons"]} == {("easy", 8), ("hard", 6)}


class OwnBases(EvaluateRecipe):
    """Loads a base model for each policy, in place of switching adapters of one."""

    def own(self, _, chain):
        folders = [self.saved[kind] for kind in chain]
        self.model = lora.with_saved(policy_model.load_base(self.stage.model, self.device), folders)


def test_policies_that_share_a_base_answer_as_with_bases_of_their_own(chain, make, tmp_path, monkeypatch):
    root = copy_of(chain, tmp_path / "r")
    play_grpo(make, root, 1)
    settings = {"policies": ["direct", "prompted", "grpo", "sft"], "questions": 6, "deterministic": True}

    def written(recipe):
        recipe.setup()
        played = asyncio.run(recipe.train())
        return {
            name: [[(each.tokens, each.logprobs) for each in item.segments] for item in items]
            for name, items in played.items()
        }

    shared = written(EvaluateRecipe(make(EvaluateConfig, root, stage="shared", **settings)))
    own = OwnBases(make(EvaluateConfig, root, stage="own", **settings))
    monkeypatch.setattr(lora, "activate", own.own)
    assert written(own) == shared
    assert shared["prompted"] != shared["sft"] != shared["grpo"]


def test_a_misspelt_setting_is_refused_with_the_likely_name(make, tmp_path):
    with pytest.raises(UserError, match="did you mean learning_rate"):
        make(SFTConfig, tmp_path, learning_rat=1.0)
