"""Two ranks under torchrun do what one process does; killed, they resume from what they committed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gog import store, trajectory_zip
from gog.errors import UserError
from gog.spec import EvaluateConfig, GRPOConfig, SFTConfig, StratifyConfig
from gog_recipes.grpo import GRPORecipe
from gog_recipes.runtime import ranks
from gog_recipes.sft import SFTRecipe
from gog_recipes.stratify import StratifyRecipe

pytestmark = pytest.mark.slow

SFT = {"stage": "again", "epochs": 3, "max_steps": 10, "save_every": 2}
GRPO = {"levels": ["easy", "1", "2"], "questions_per_step": 5, "group_size": 3, "save_every": 2}
"""Five questions for two ranks: their shares differ."""
AHEAD = GRPO | {"stage": "ahead", "async": {"max_staleness": 2}}


def launch(program: list[str], folder: Path) -> subprocess.Popen:
    line = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "gog_recipes.runtime.launch",
        "--standalone",
        "--nproc_per_node=2",
        *program,
    ]
    with (folder / "log").open("w") as log:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(line, stdout=log, stderr=log, env=env, start_new_session=True)


def copy_of(chain, target):
    source, copy = store.Store(chain / "store"), store.open_store(f"file://{target}/store")
    for stage in ("curate", "sft", "stratify"):
        manifest = source.latest(stage)
        files = {name: source.open(manifest, name) for name in manifest.files}
        copy.publish(stage, manifest.step, files, meta=manifest.meta, parents=manifest.parents)
    return target


def lines(root, stage):
    opened = store.Store(root / "store")
    return [json.loads(line) for line in opened.open(opened.latest(stage), "metrics.jsonl").read_text().splitlines()]


def files(root, stage):
    return {name: blob.hash for name, blob in store.Store(root / "store").latest(stage).files.items()}


@pytest.fixture(scope="module")
def roots(chain, tmp_path_factory):
    """A copy of the chain for each case."""
    folder = tmp_path_factory.mktemp("ranks")
    return {name: copy_of(chain, folder / name) for name in ("one", "two", "killed", "two-one", "one-two", "halves")}


@pytest.fixture(scope="module")
def killed(make, roots):
    """SFT by two ranks, killed by SIGKILL after its first checkpoint; the step of its newest checkpoint."""
    root = roots["killed"]
    recipe = make(SFTConfig, root, **SFT | {"max_steps": 400, "epochs": 100})
    (root / "jobs.json").write_text(json.dumps([["sft", recipe.model_dump(mode="json", by_alias=True)]]))
    process = launch([str(Path(__file__).with_name("ranks_program.py")), str(root / "jobs.json")], root)
    opened, deadline = store.Store(root / "store"), time.monotonic() + 300
    while not opened.steps("again"):
        assert process.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
        time.sleep(0.02)
    for pid in children(process.pid):
        os.kill(pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    return opened.steps("again")[-1]


def children(pid: int) -> list[int]:
    """Processes of torchrun's workers, each of which has a session of its own."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@pytest.fixture(scope="module")
def done(make, roots, killed):
    """All stages by two ranks, in one launch, and the same by one process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone(SFTRecipe(make(SFTConfig, roots["one"], **SFT)))
    alone(SFTRecipe(make(SFTConfig, roots["one-two"], **SFT | {"max_steps": 4})))
    alone(GRPORecipe(make(GRPOConfig, roots["one"], steps=4, **GRPO)))
    again = {"stage": "stratify-again", "questions": 9, "rollouts": 2}
    alone(stratify := StratifyRecipe(make(StratifyConfig, roots["one"], **again)))
    assert stratify.stage.store.latest("stratify-again")
    goal = {"max_steps": killed + 4, "epochs": 100}
    jobs = [
        make(SFTConfig, roots["two"], **SFT),
        make(SFTConfig, roots["one-two"], **SFT),
        make(SFTConfig, roots["two-one"], **SFT | {"max_steps": 4}),
        make(SFTConfig, roots["killed"], **SFT | goal),
        make(SFTConfig, roots["halves"], **SFT | goal),
        make(GRPOConfig, roots["two"], steps=4, **GRPO),
        make(GRPOConfig, roots["halves"], steps=2, **GRPO),
        make(GRPOConfig, roots["halves"], steps=4, **GRPO),
        make(GRPOConfig, roots["two"], steps=3, **AHEAD),
        make(GRPOConfig, roots["two"], steps=5, **AHEAD),
        make(StratifyConfig, roots["two"], **again),
        make(EvaluateConfig, roots["two"], questions=7, policies=["direct", "sft"], bootstrap=100),
    ]
    root = roots["two"]
    values = [[job.kind, job.model_dump(mode="json", by_alias=True)] for job in jobs]
    (root / "jobs.json").write_text(json.dumps(values))
    process = launch([str(Path(__file__).with_name("ranks_program.py")), str(root / "jobs.json")], root)
    assert process.wait(600) == 0, (root / "log").read_text()[-3000:]
    alone(SFTRecipe(make(SFTConfig, roots["two-one"], **SFT)))
    torch.set_num_threads(before)
    return roots


def alone(recipe):
    recipe.setup()
    result = recipe.train()
    if asyncio.iscoroutine(result):
        result = asyncio.run(result)
    if isinstance(recipe, StratifyRecipe):
        recipe.save_checkpoint(result, 1.0)


def near(series, other, names, rel=1e-4):
    assert len(series) == len(other)
    for line, twin in zip(series, other, strict=True):
        for name in names:
            assert line[name] == pytest.approx(twin[name], rel=rel, abs=1e-6), (line["step"], name)


@pytest.mark.parametrize("way", ["two", "one-two", "two-one"])
def test_an_sft_step_is_the_same_for_any_number_of_ranks_also_when_it_changes_midway(done, way):
    near(lines(done[way], "again"), lines(done["one"], "again"), ("loss", "grad_norm", "learning_rate", "tokens"))


def test_every_rank_commits_its_own_rows_of_the_optimizer(done):
    held = sorted(name for name in files(done["two"], "again") if name.startswith("optimizer"))
    assert held == ["optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"]
    assert "optimizer.safetensors" in files(done["two-one"], "again")


def test_killed_and_resumed_two_ranks_repeat_the_uninterrupted_run_bit_for_bit(done, killed):
    weights = [name for name in files(done["halves"], "again") if name.endswith(".safetensors")]
    assert len(weights) == 4 and lines(done["killed"], "again")[-1]["step"] == killed + 4
    assert [files(done["killed"], "again")[name] for name in weights] == [
        files(done["halves"], "again")[name] for name in weights
    ]
    same = ("step", "loss", "grad_norm")
    series, straight = ([[line[n] for n in same] for line in lines(done[w], "again")] for w in ("killed", "halves"))
    assert series == straight


def test_grpo_plays_and_learns_the_same_over_two_ranks_as_in_one_process(done):
    series, alone = lines(done["two"], "grpo"), lines(done["one"], "grpo")
    assert any(line["learned"] for line in series)
    counted = ("trajectories", "learned", "generated_tokens", "reward_mean", "accuracy_mean", "tool_calls_mean")
    near(series, alone, counted)
    learned = [[line for line in each if line["learned"]] for each in (series, alone)]
    near(*learned, ("grad_norm",), rel=1e-3)
    assert max(line["logp_diff_max"] for line in series if line["learned"]) < 1e-4


def test_grpo_of_two_ranks_resumed_repeats_the_uninterrupted_run(done):
    names = ("step", "reward_mean", "accuracy_mean", "generated_tokens", "learned")
    halves, straight = ([[line[n] for n in names] for line in lines(done[w], "grpo")] for w in ("halves", "two"))
    assert halves == straight


def test_two_ranks_play_ahead_and_form_each_step_of_the_same_groups(done):
    series = lines(done["two"], "ahead")
    assert [line["step"] for line in series] == [1, 2, 3, 4, 5] and any(line["learned"] for line in series)
    assert all(line["trajectories"] == 15 and line["staleness"] <= 2 for line in series)
    assert max(line["staleness"] for line in series) > 0
    opened = store.Store(done["two"] / "store")
    kept = trajectory_zip.Archive(opened.open(opened.latest("ahead"), "trajectories.zip")).trajectories()
    assert {item.step for item in kept} == {5} and len({item.id for item in kept}) == 15


def test_trajectories_of_all_ranks_are_kept_with_their_images(done):
    opened = store.Store(done["two"] / "store")
    kept = trajectory_zip.Archive(opened.open(opened.latest("grpo"), "trajectories.zip"))
    shown = {image for item in kept.trajectories() for image in trajectory_zip.shown(item)}
    assert len(kept.trajectories()) == 15 and all(kept.png(image) for image in shown)


def test_questions_divided_among_ranks_are_graded_as_by_one_process(done):
    graded = []
    for root in (done["one"], done["two"]):
        opened = store.Store(root / "store")
        graded.append(opened.open(opened.latest("stratify-again"), "levels.jsonl").read_text())
    assert graded[0] == graded[1] and len(graded[0].splitlines()) == 9


def test_evaluation_counts_every_question_once_for_any_number_of_ranks(done):
    opened = store.Store(done["two"] / "store")
    answers = [json.loads(line) for line in opened.open(opened.latest("evaluate"), "answers.jsonl").open()]
    assert len({(line["policy"], line["question_id"]) for line in answers}) == len(answers) == 14


def test_only_rank_0_logs_and_reports(done):
    log = (done["two"] / "log").read_text()
    assert log.count("grpo: checkpoint grpo/4 committed") == 2  # of two runs, not of four ranks
    assert not (done["two"] / "work" / "sft" / "rank-1" / "progress.json").exists()


def test_items_that_are_sharded_and_unsharded_keep_their_order():
    items = list("abcdefg")
    parts = [ranks.Ranks(rank, 3).shard(items) for rank in range(3)]
    one = ranks.Ranks(1, 3)
    object.__setattr__(one, "gather", lambda item: parts)
    assert ranks.Ranks.unshard(one, parts[1]) == items


def test_a_step_with_less_to_do_than_ranks_is_refused():
    with pytest.raises(UserError, match=r"questions_per_step is 2.*of 3 processes.*raise it to 3"):
        ranks.Ranks(0, 3).require(2, "questions_per_step")


def test_curation_by_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="curate is one process, and 2 were started"):
        ranks.refuse_several("curate")
