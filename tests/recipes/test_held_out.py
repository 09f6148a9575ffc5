"""SFT learns verified demonstrations only, holds questions out, and keeps the best adapter beside the last."""

from __future__ import annotations

import json
from importlib import resources

import pytest
import torch
from safetensors.torch import load_file
from support import learning, plain
from support.builders import make_trajectory

from gog import store, trajectory_zip
from gog.errors import UserError
from gog.spec import SFTConfig
from gog.trajectory import Reward
from gog_recipes.data import demonstrations
from gog_recipes.models import lora, policy_model
from gog_recipes.runtime import checkpoint, config, held_out
from gog_recipes.sft import SFTRecipe


@pytest.fixture(scope="module")
def sample():
    """Demonstrations of gog's own and their images."""
    archive = trajectory_zip.Archive(resources.files("gog_recipes.world") / "sample.zip")
    items = archive.trajectories()[:32]
    return items, {image: archive.image(image) for item in items for image in trajectory_zip.shown(item)}


def recipe(root, items, images, **settings):
    root.mkdir(exist_ok=True)
    trajectory_zip.write(root / "mine.zip", items, images)
    values = {
        "model": {"base": "tiny"},
        "data": {"path": str(root)},
        "store": {"uri": f"file://{root}/store"},
        "workdir": str(root / "work"),
        "demonstrations": str(root / "mine.zip"),
        "batch_size": 4,
        "learning_rate": 4e-3,
        "warmup_steps": 1,
        "lora": {"dropout": 0.1},
    }
    made = SFTRecipe(config.typed(SFTConfig, values | settings))
    made.setup()
    return made


def wrong(item):
    return item.reward is not None and item.reward.accuracy == 0.0


def test_demonstrations_that_the_judge_found_wrong_are_skipped_and_counted_unless_they_are_wanted(
    sample, tmp_path, capsys
):
    items, images = sample
    expected = {item.id for item in items if wrong(item)}
    assert expected
    made = recipe(tmp_path / "some", items, images, eval_share=0, max_steps=1)
    assert set(made.skipped) == expected and not expected & set(made.ids)
    assert "is skipped: unverified: the judge found its answer wrong" in capsys.readouterr().out
    made.train()
    assert store.Store(tmp_path / "some" / "store").latest("sft").meta["skipped"] == len(expected)
    assert len(recipe(tmp_path / "all", items, images, eval_share=0, unverified="keep").rows) == len(items)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"reward": Reward(accuracy=1.0, format=1.0, total=1.0)}, ""),
        ({"reward": Reward(accuracy=0.0, format=1.0, total=0.1)}, "the judge found its answer wrong"),
        ({"answer": "The Answer!", "answers": ("answer",)}, ""),
        ({"answer": "something else", "answers": ("answer",)}, "it has no verdict"),
        ({"reward": Reward(accuracy=None, format=1.0, total=None), "answer": "x", "answers": ("y",)}, "no verdict"),
        ({"answer": "", "answers": ("the",)}, "no verdict"),
        ({"stop": "max_turns", "answer": None}, "it ends without an answer"),
    ],
)
def test_a_demonstration_is_verified_by_its_verdict_or_else_by_an_accepted_answer(fields, reason):
    found = demonstrations.unverified(make_trajectory(**fields))
    assert reason in found and bool(found) == bool(reason)


def test_no_question_is_both_learned_and_held_out():
    questions = [f"q{n // 3}" for n in range(90)]
    held = held_out.split(questions, 0.2, 7)
    assert len(held) == 6 and held == held_out.split(list(reversed(questions)), 0.2, 7)
    assert held != held_out.split(questions, 0.2, 8)
    assert held_out.split(questions, 0.0, 7) == set() and len(held_out.split(questions, 1e-3, 7)) == 1


def test_held_out_demonstrations_are_evaluated_and_never_learned(sample, tmp_path):
    items, images = sample
    made = recipe(tmp_path, items, images, eval_share=0.25, eval_every=2, max_steps=5, save_every=2)
    assert made.evaluator.rows and not set(made.evaluator.rows) & set(made.rows)
    made.train()
    lines = made.stage.metric_log.lines
    assert [line["step"] for line in lines if "eval_loss" in line] == [2, 4, 5]
    assert lines[-1]["eval_loss"] < lines[1]["eval_loss"] and 0 < lines[-1]["eval_token_accuracy"] <= 1
    batch = policy_model.collate(made.evaluator.rows, made.processor, made.vision, learning.CPU)
    logits, tokens = plain.forward(made.model.eval(), batch, made.processor, made.vision)
    assert lines[-1]["eval_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, tokens)), rel=1e-4)
    assert lines[-1]["eval_token_accuracy"] == pytest.approx(float((logits.argmax(-1) == tokens).float().mean()))


def test_a_stage_does_not_resume_with_other_demonstrations_in_the_same_file(sample, tmp_path):
    items, images = sample
    settings = {"eval_share": 0, "unverified": "keep"}
    recipe(tmp_path, items, images, **settings, max_steps=1).train()
    assert recipe(tmp_path, items, images, **settings, max_steps=2).step == 1
    last = items[0].turns[-1]
    changed = items[0].model_copy(update={"turns": (*items[0].turns[:-1], last.model_copy(update={"text": "other"}))})
    for other in (
        items[1:],
        [items[1], items[0], *items[2:]],
        [changed.model_copy(update={"segments": ()}), *items[1:]],
    ):
        with pytest.raises(UserError, match="checkpoint sft/1 was made with another dataset"):
            recipe(tmp_path, other, images, **settings, max_steps=2)


def files(root, name):
    opened = store.Store(root / "store")
    return load_file(opened.open(opened.latest("sft"), name))


def rising(monkeypatch, losses):
    """Makes evaluations report these losses, one after the other."""
    values = iter(losses)
    monkeypatch.setattr(held_out.Evaluator, "scores", lambda self, model: held_out.Scores(next(values), 0.5))


def test_the_best_adapter_survives_a_resumption_and_is_what_later_stages_start_from(sample, tmp_path, monkeypatch):
    items, images = sample
    settings = {"eval_share": 0.25, "eval_every": 2, "save_every": 2, "select": "best"}
    rising(monkeypatch, [0.5, 0.9])
    recipe(tmp_path, items, images, **settings, max_steps=4).train()
    rising(monkeypatch, [0.8])
    resumed = recipe(tmp_path, items, images, **settings, max_steps=6)
    assert (resumed.best.step, resumed.best.loss) == (2, 0.5)
    resumed.train()
    opened = store.Store(tmp_path / "store")
    meta = opened.latest("sft").meta
    assert (meta["best_step"], meta["selected_step"], meta["best_eval_loss"]) == (2, 2, 0.5)
    published, best, last = (files(tmp_path, name) for name in (lora.FILES[0], held_out.BEST, checkpoint.LAST))
    assert all(torch.equal(published[name], best[name]) for name in best)
    assert any(not torch.equal(published[name], last[name]) for name in last)
    present = checkpoint.whole_adapter(resumed.model)
    assert all(torch.equal(each, last[name.replace(".default.", ".")]) for name, each in present.items())


def test_by_default_later_stages_start_from_the_last_adapter(sample, tmp_path, monkeypatch):
    items, images = sample
    rising(monkeypatch, [0.5, 0.9])
    made = recipe(tmp_path, items, images, eval_share=0.25, eval_every=2, save_every=2, max_steps=4)
    made.train()
    opened = store.Store(tmp_path / "store")
    assert opened.latest("sft").meta["selected_step"] == 4 and checkpoint.LAST not in opened.latest("sft").files
    published = files(tmp_path, lora.FILES[0])
    assert any(not torch.equal(each, published[name]) for name, each in files(tmp_path, held_out.BEST).items())


def test_evaluation_and_selection_leave_a_resumed_run_bit_for_bit_the_same(sample, tmp_path):
    items, images = sample
    settings = {"eval_share": 0.25, "eval_every": 1, "save_every": 2, "select": "best"}
    recipe(tmp_path / "whole", items, images, **settings, max_steps=4).train()
    recipe(tmp_path / "halves", items, images, **settings, max_steps=2).train()
    recipe(tmp_path / "halves", items, images, **settings, max_steps=4).train()
    opened = {name: store.Store(tmp_path / name / "store") for name in ("whole", "halves")}
    blobs = {}
    for name, each in opened.items():
        manifest = each.latest("sft")
        blobs[name] = {file: blob.hash for file, blob in manifest.files.items() if file.endswith(".safetensors")}
    assert blobs["whole"] == blobs["halves"] and held_out.BEST in blobs["whole"]
    series = [
        [
            {key: json.loads(line)[key] for key in ("loss", "eval_loss", "eval_token_accuracy")}
            for line in each.open(each.latest("sft"), "metrics.jsonl").read_text().splitlines()
        ]
        for each in opened.values()
    ]
    assert series[0] == series[1]


def test_every_token_of_the_model_is_learned_and_none_of_prompts_and_observations(sample, tmp_path):
    items, images = sample
    made = recipe(tmp_path, items, images, eval_share=0, unverified="keep")
    for item, row in zip(items, made.rows, strict=True):
        batch = policy_model.collate([row], made.processor, made.vision, learning.CPU)
        written = [token for turn in item.turns for token in made.processor.encode(turn.text, [])]
        assert batch.targets.tolist() == written == batch.ids[0, batch.predictors + 1].tolist()
        assert sum(len(s.tokens) for s in row if s.source != "model") == batch.ids.shape[1] - len(written)
        shown = [image for turn in item.turns if turn.observation for image in turn.observation.images]
        assert list(batch.images) == [item.image, *shown]
    assert any(len(trajectory_zip.shown(item)) > 1 for item in items)


def test_a_held_out_demonstration_in_which_a_number_is_not_finite_is_named(sample, tmp_path, monkeypatch):
    items, images = sample
    made = recipe(tmp_path, items, images, eval_share=0.25, micro_batch_tokens=16)
    (image, *_), features = made.evaluator.rows[1][0].images, policy_model.features
    poison = lambda batch, vision: features(batch, vision) * (float("nan") if image in batch.images else 1)  # noqa: E731
    monkeypatch.setattr(policy_model, "features", poison)
    with pytest.raises(UserError, match=f"held-out demonstration {made.evaluator.ids[1]} are not finite"):
        made.evaluator.scores(made.model)
