"""A stage attempt: the checkpoint it resumes from, what its pod reports, what its ranks share."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request

import pytest
from PIL import Image as PILImage
from support.builders import make_image
from support.stages import commit, in_two_ranks, make_stage

from gog import dataset_zip, journal, metrics, outage, progress, spec, store
from gog.errors import UserError
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.runtime import checkpoint, monitor, resumption, termination
from gog_recipes.runtime.metric_log import MetricLog
from gog_recipes.runtime.ranks import Ranks


def test_a_stage_resumes_from_its_own_checkpoint_also_with_more_steps_and_other_addresses(tmp_path):
    commit(make_stage(tmp_path, endpoints={"judge": "http://127.0.0.1:1"}))
    moved = {"endpoints": {"judge": "http://127.0.0.1:2"}, "backends": {"judge": "world#1"}}
    again = make_stage(tmp_path, **moved, steps=7, workdir=str(tmp_path / "work"))
    assert again.store.latest("grpo").step == 1


def test_a_stage_that_ran_out_of_memory_resumes_with_settings_that_need_less(tmp_path):
    commit(make_stage(tmp_path))
    less = {
        "micro_batch_tokens": 512,
        "activation_checkpointing": "on",
        "kv_cache_bytes": 1 << 20,
        "concurrent_episodes": 8,
    }
    again = make_stage(tmp_path, **less, prefill_tokens=256, feature_cache_bytes=1 << 20, save_every=1)
    assert again.store.latest("grpo").step == 1
    assert again.journals([]).decided_by == make_stage(tmp_path).journals([]).decided_by


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"run": "theirs"},
            "checkpoint grpo/1 was made by run 'theirs' (name another store: two runs must not share one)",
        ),
        (
            {"seed": 3, "kl_coef": 0.3},
            "checkpoint grpo/1 was made with other settings: seed (3 there, 0 here), kl_coef (0.3 there, 0.001 here) "
            "(restore those to resume the stage, or start a new run, with another name or store, for the new ones)",
        ),
    ],
)
def test_a_stage_refuses_to_resume_from_another_runs_or_other_settings_checkpoint(tmp_path, changes, sentence):
    commit(make_stage(tmp_path, **changes))
    with pytest.raises(UserError) as caught:
        make_stage(tmp_path)
    assert str(caught.value) == f"file://{tmp_path}/store: {sentence}"


def test_an_adapter_of_a_base_that_was_quantized_otherwise_is_used_and_logged(tmp_path, capsys):
    earlier = make_stage(tmp_path, base_quantization="nf4", stage="earlier")
    commit(earlier)
    trained = earlier.store.latest("earlier")
    make_stage(tmp_path, base_quantization="nf4").folder(trained)
    assert "base_quantization" not in capsys.readouterr().out
    make_stage(tmp_path).folder(trained)
    assert "earlier/1 was trained with base_quantization nf4 and is used with none" in capsys.readouterr().out


def test_a_stage_does_not_resume_on_a_base_that_is_quantized_otherwise(tmp_path):
    commit(make_stage(tmp_path))
    with pytest.raises(UserError, match=r"made with other settings: base_quantization \(none there, nf4 here\)"):
        make_stage(tmp_path, base_quantization="nf4")


def test_checkpoints_under_another_key_in_the_same_store_do_not_matter(tmp_path):
    commit(make_stage(tmp_path, run="theirs"))
    assert make_stage(tmp_path, stage="grpo-mine").store.latest("grpo-mine") is None


def dataset_folder(folder, name="data", question="who made it ?", side=8):
    """A dataset of one question, whose image has this side."""
    made = folder / name
    made.mkdir()
    PILImage.fromarray(make_image(1, side, side).pixels).save(made / "q.png")
    row = {"id": "q", "image": "q.png", "question": question, "answers": ["Ada"]}
    (made / "train.jsonl").write_text(json.dumps(row) + "\n")
    return {"data": {"path": str(made)}}


def test_a_stage_refuses_to_continue_with_another_dataset_under_the_same_run(tmp_path):
    first = make_stage(tmp_path, **dataset_folder(tmp_path))
    first.questions("train")
    commit(first)
    make_stage(tmp_path, **dataset_folder(tmp_path, "copy")).questions("train")
    for name, change in (("lines", {"question": "who sold it ?"}), ("images", {"side": 9})):
        stage = make_stage(tmp_path, **dataset_folder(tmp_path, name, **change))
        with pytest.raises(UserError, match="checkpoint grpo/1 was made with another dataset"):
            stage.questions("train")
        with pytest.raises(UserError, match="another dataset"):
            stage.is_done("train")


def test_a_dataset_that_changes_between_attempts_is_read_again_and_compared_also_in_another_format(tmp_path):
    given = {"data": {"path": str(tmp_path / "train.jsonl")}, "workdir": str(tmp_path / "work")}
    PILImage.fromarray(make_image(1, 8, 8).pixels).save(tmp_path / "q.png")

    def attempt(question):
        asked = [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": "Ada"}]
        (tmp_path / "train.jsonl").write_text(json.dumps({"messages": asked, "images": ["q.png"]}) + "\n")
        stage = make_stage(tmp_path, **given)
        return stage, [each.question for each in stage.questions("train")[1]]

    assert attempt("who made it ?")[1] == ["who made it ?"]
    stage, asked = attempt("who sold it, and to whom ?")
    assert asked == ["who sold it, and to whom ?"]
    commit(stage)
    assert attempt("who sold it, and to whom ?")[1] == asked
    with pytest.raises(UserError, match="checkpoint grpo/1 was made with another dataset"):
        attempt("who painted it ?")


def test_a_checkpoint_that_names_no_dataset_is_continued_with_any(tmp_path):
    commit(make_stage(tmp_path))
    make_stage(tmp_path, **dataset_folder(tmp_path)).questions("train")


def test_a_training_stage_resumes_only_on_the_checkpoints_that_it_started_from(tmp_path):
    sft = make_stage(tmp_path, stage="sft")
    commit(sft, step=100)
    started_from = sft.store.latest("sft")
    make_stage(tmp_path).publish(40, {}, meta={}, parents=[started_from], complete=False)
    commit(sft, step=200)
    stage = make_stage(tmp_path)
    with pytest.raises(UserError) as caught:
        checkpoint.resume(stage, None, None, "none", [stage.input("sft")])
    sentence = (
        "checkpoint grpo/40 started from sft/100, the stage would start from sft/200 (name what it started from under"
    )
    assert str(caught.value).startswith(f"file://{tmp_path}/store: {sentence} inputs, or start a new run")
    resumption.require_parents(stage.store.latest("grpo"), [started_from], "")


def test_an_evaluation_applies_no_adapter_on_another_checkpoint_than_it_was_trained_on(tmp_path):
    sft = make_stage(tmp_path, stage="sft")
    commit(sft, step=100)
    make_stage(tmp_path).publish(40, {}, meta={}, parents=[sft.store.latest("sft")], complete=False)
    commit(sft, step=200)
    given = {"run": "ours", "data": {"path": str(tmp_path)}, "store": {"uri": f"file://{tmp_path}/store"}}
    cfg = spec.EvaluateConfig.model_validate(given | {"model": {"base": "tiny"}, "policies": ["sft", "grpo"]})
    with pytest.raises(
        UserError, match=r"grpo/40 started from sft/100, the stage would apply it on sft/200 \(name what"
    ):
        EvaluateRecipe(cfg).setup()


def test_a_checkpoint_deletes_the_journals_that_it_made_superfluous(tmp_path):
    stage = make_stage(tmp_path)
    for step in (1, 2, 3):
        stage.store.put_object(journal.Play("grpo", "grpo", step, "ab").key(1, "aaaaaaaa", 0, 0), b"x")
    commit(stage, step=2)
    assert [entry.key.split("/")[2] for entry in stage.store.objects("journal/")] == ["grpo-000000003"]
    stage.publish(3, {}, meta={}, parents=[], complete=True)
    assert stage.store.objects("journal/") == []


def test_a_journal_is_named_by_what_decides_the_trajectories_and_by_nothing_else(tmp_path):
    commit(make_stage(tmp_path, stage="sft"))
    commit(make_stage(tmp_path, stage="other"))
    parents = [make_stage(tmp_path).store.latest(stage) for stage in ("sft", "other")]
    weights = make_stage(tmp_path).store.latest("sft")

    def decided_by(parent=weights, dataset="d", **settings):
        stage = make_stage(tmp_path, **settings)
        stage.dataset = dataset
        return stage.journals([parent]).decided_by

    assert decided_by() == decided_by(steps=7, endpoints={"judge": "http://127.0.0.1:1"}) == decided_by(parents[1])
    assert len({decided_by(), decided_by(seed=1), decided_by(dataset="e"), decided_by(temperature=0.5)}) == 4


def test_how_calls_are_made_and_how_far_a_stage_goes_may_change_between_attempts(tmp_path):
    commit(make_stage(tmp_path))
    patient = {
        "concurrency": 9,
        "outage": {"patience_seconds": 5},
        "grounding": {"attempts": 7},
        "judge": {"attempts": 1},
    }
    make_stage(tmp_path, tools=patient, max_excluded_share=0.9, steps=7)
    with pytest.raises(UserError, match="made with other settings: tools"):
        make_stage(tmp_path, tools={"top": 9})


def fetch(server, page):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{page}", timeout=10) as answer:
        return answer.read().decode()


def test_a_pod_serves_its_progress_with_the_newest_checkpoint_and_its_metrics(tmp_path):
    stage = make_stage(tmp_path)
    server = monitor.serve(0, stage.progress, host="127.0.0.1")
    try:
        assert json.loads(fetch(server, "/progress")) == {"step": 0, "total": 0, "metrics": {}, "checkpoint": None}
        stage.report(1, 7, reward=0.5)
        commit(stage)
        metrics.TRAIN_STEP.labels("grpo-served").set(1)
        assert json.loads(fetch(server, "/progress")) == {
            "step": 1,
            "total": 7,
            "metrics": {"reward": 0.5},
            "checkpoint": {"ref": "grpo/1", "complete": False},
        }
        assert 'gog_train_step{stage="grpo-served"} 1.0' in fetch(server, "/metrics")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(server, "/../etc/passwd")
    finally:
        server.shutdown()
        server.server_close()


def test_an_outage_that_a_stage_waits_for_is_in_its_progress_until_it_is_over(tmp_path, capsys):
    stage = make_stage(tmp_path)
    stage.report(2, 7, reward=0.5)
    stage.report_waiting(outage.Waiting("judge", "timeout", 30, 570))
    stage.report(2, 7, reward=0.5)
    waiting = progress.read(stage.workdir)["waiting"]
    assert (waiting["reason"], waiting["message"]) == ("JudgeDown", "judge is down: timeout")
    assert waiting["since"] < waiting["until"]
    stage.report_waiting(None)
    assert progress.read(stage.workdir).get("waiting") is None
    assert capsys.readouterr().out == "grpo: waits for judge, for 570 s at most: timeout\ngrpo: judge works again\n"
    stage.report_waiting(None)
    assert "waiting" not in stage.progress() and stage.progress()["step"] == 2


def test_a_new_attempt_does_not_wait_for_what_the_one_before_waited_for(tmp_path):
    stage = make_stage(tmp_path, workdir=str(tmp_path / "work"))
    stage.report_waiting(outage.Waiting("judge", "timeout", 0.0, 60.0))
    assert "waiting" in progress.read(stage.workdir)
    assert "waiting" not in progress.read(make_stage(tmp_path, workdir=str(tmp_path / "work")).workdir)


def test_a_port_that_is_taken_is_reported_in_one_line():
    server = monitor.serve(0, dict, host="127.0.0.1")
    try:
        with pytest.raises(UserError, match=f"cannot serve metrics at port {server.server_port}"):
            monitor.serve(server.server_port, dict, host="127.0.0.1")
    finally:
        server.shutdown()
        server.server_close()


def test_the_progress_of_a_new_attempt_starts_at_its_checkpoint(tmp_path):
    commit(make_stage(tmp_path, steps=9), step=4)
    again = make_stage(tmp_path, steps=9, workdir=str(tmp_path / "empty"))
    assert again.progress() == {
        "step": 4,
        "total": 4,
        "metrics": {},
        "checkpoint": {"ref": "grpo/4", "complete": False},
    }


def test_the_termination_message_is_the_last_progress_cut_to_what_kubernetes_keeps(tmp_path, monkeypatch):
    monkeypatch.setenv(termination.FILE, str(tmp_path / "termination-log"))
    stage = make_stage(tmp_path)
    stage.report(3, 3, reward=0.5, rewards=[0.1234567] * 2000)
    commit(stage, step=3)
    assert not (tmp_path / "termination-log").exists()  # only a stage that completes writes one
    stage.end()
    words = (tmp_path / "termination-log").read_bytes()
    assert len(words) <= 4096
    assert json.loads(words) == {
        "step": 3,
        "total": 3,
        "metrics": {"reward": 0.5},
        "checkpoint": {"ref": "grpo/3", "complete": False},
    }


def test_other_ranks_write_to_a_folder_of_their_own_and_log_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(termination.FILE, str(tmp_path / "termination-log"))
    stage = make_stage(tmp_path, ranks=Ranks(1, 2), workdir=str(tmp_path / "work"))
    stage.report(1, 2)
    stage.log("hello")
    stage.end()
    assert stage.workdir == tmp_path / "work" / "rank-1" and stage.common == tmp_path / "work"
    assert [path.name for path in stage.workdir.iterdir()] == ["metrics.jsonl"]
    assert not (tmp_path / "termination-log").exists() and capsys.readouterr().out == ""


def test_files_of_every_rank_become_one_checkpoint_committed_by_rank_0(tmp_path):
    """Each rank stages its own files."""

    def publish(ranks):
        rank = ranks.rank
        stage = make_stage(tmp_path, ranks=ranks, workdir=str(tmp_path / f"pod-{rank}"))
        rows = stage.workdir / f"rows-{rank}"
        rows.write_text(f"rows of {rank}")
        stage.publish(1, {"log": rows}, meta={}, parents=[], own={rows.name: rows})

    in_two_ranks(publish)
    opened = store.open_store(f"file://{tmp_path}/store")
    manifest = opened.latest("grpo")
    assert {name: opened.open(manifest, name).read_text() for name in manifest.files} == {
        "log": "rows of 0",
        "rows-0": "rows of 0",
        "rows-1": "rows of 1",
    }


def test_a_dataset_of_a_store_is_unpacked_once_for_all_ranks_of_a_pod(tmp_path, world):
    place = store.open_store(f"file://{tmp_path}/datasets")
    dataset_zip.pack(world, tmp_path / "dataset.zip")
    place.publish(dataset_zip.KEY, 1, {dataset_zip.FILE: tmp_path / "dataset.zip"})

    def act(ranks):
        data = {"uri": f"file://{tmp_path}/datasets"}
        stage = make_stage(tmp_path, ranks=ranks, data=data, workdir=str(tmp_path / "work"))
        folder, questions = stage.questions("train")
        return folder, folder.stat().st_ino, len(questions)

    found = in_two_ranks(act)
    assert found[0] == found[1] and found[0][0].parent == tmp_path / "work" and found[0][2] == 80


def test_a_dataset_that_the_store_lacks_is_reported_with_the_command_that_uploads_one(tmp_path):
    (tmp_path / "datasets" / "manifests" / "data").mkdir(parents=True)
    stage = make_stage(tmp_path, data={"uri": f"file://{tmp_path}/datasets"})
    with pytest.raises(UserError, match=r"holds no dataset.*gog move push"):
        stage.questions("train")


def test_a_line_of_the_metric_log_holds_null_for_a_figure_that_is_not_finite(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append(step=1, loss=0.123456789, mfu=math.inf, behaviour={"none": math.nan}, eval_loss=None)
    assert log.path.read_text() == '{"step": 1, "loss": 0.1234568, "mfu": null, "behaviour": {"none": null}}\n'
    (tmp_path / "older.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    log.resume(tmp_path / "older.jsonl")
    assert log.path.read_text() == '{"step": 1, "loss": null}\n'
