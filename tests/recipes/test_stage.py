"""A stage attempt: the checkpoint it resumes from, what its pod reports, what its ranks share."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from huggingface_hub import constants
from PIL import Image as PILImage
from support import base_folders, hub_server
from support.builders import make_image

from gog import base_model, dataset_zip, journal, metrics, outage, progress, spec, store
from gog.errors import ServiceDown, UserError
from gog_recipes.runtime import base, config, monitor, termination
from gog_recipes.runtime.metric_log import MetricLog
from gog_recipes.runtime.ranks import SINGLE, Ranks
from gog_recipes.runtime.stage import Stage


def make_stage(folder, ranks=SINGLE, **settings):
    body = {"run": "ours", "model": {"base": "tiny"}, "data": {"path": str(folder)}, **settings}
    return Stage(spec.GRPOConfig.model_validate(body | {"store": {"uri": f"file://{folder}/store"}}), ranks)


def commit(stage, step=1):
    weights = stage.workdir / "weights"
    weights.write_text(f"{step}")
    stage.publish(step, {"weights": weights}, meta={}, parents=[], complete=False)


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
            {"seed": 3, "clip": 0.3},
            "checkpoint grpo/1 was made with other settings: seed (3 there, 0 here), clip (0.3 there, 0.2 here) "
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


def test_a_checkpoint_that_names_no_dataset_is_continued_with_any(tmp_path):
    commit(make_stage(tmp_path))
    make_stage(tmp_path, **dataset_folder(tmp_path)).questions("train")


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


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_reported_in_one_line_whichever_library_raised_it(error, capsys):
    def write():
        raise error

    with pytest.raises(SystemExit) as caught:
        config.exit_with(write)
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "failed: the stage's files: the disk is full (free space, then `gog resume`; nothing committed is lost)\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("is unknown", where="loss", remedy="use grpo"), 2, "error: loss: is unknown (use grpo)"),
        (ServiceDown("judge", "down for 600 s"), 1, "failed: judge: down for 600 s (the stage's next attempt"),
        (store.Unavailable("s3://b: not served within 120 s"), 1, "failed: s3://b: not served within 120 s"),
        (KeyboardInterrupt(), 130, "interrupted: the next attempt resumes from the last checkpoint"),
    ],
)
def test_a_stage_that_does_not_complete_ends_in_one_line_and_the_code_of_its_kind(capsys, error, code, line):
    def play():
        raise error

    with pytest.raises(SystemExit) as caught:
        config.exit_with(play)
    assert caught.value.code == code
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("is unknown", where="loss"), "error: loss: is unknown"),
        (ServiceDown("judge", "503: try\nlater"), "failed: judge: 503: try later (the stage's next attempt resumes"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RuntimeError("x" * 5000), "RuntimeError: xxx"),
    ],
)
def test_the_reason_of_a_failure_is_its_pod_s_termination_message(tmp_path, monkeypatch, error, message):
    def play():
        raise error

    monkeypatch.setenv(termination.FILE, str(tmp_path / "termination-log"))
    with pytest.raises((SystemExit, type(error))):
        config.exit_with(play)
    left = (tmp_path / "termination-log").read_text()
    assert left.startswith(message) and len(left) <= 1000 and "\n" not in left


def test_the_first_rank_s_reason_is_kept_when_others_fail_because_of_it(tmp_path):
    environment = {termination.FILE: str(tmp_path / "termination-log")}
    (tmp_path / "termination-log").touch()  # as a kubelet makes it
    termination.leave_reason("failed: judge: down for 600 s", environment)
    termination.leave_reason("RuntimeError: connection closed by peer", environment)
    assert (tmp_path / "termination-log").read_text() == "failed: judge: down for 600 s"


def test_outside_of_a_pod_no_reason_is_left(tmp_path):
    termination.leave_reason("failed", {})
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_completes_exits_with_0():
    with pytest.raises(SystemExit) as caught:
        config.exit_with(lambda: None)
    assert caught.value.code == 0


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        config.exit_with(lambda: print(1 // 0))


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


def in_two_ranks(act):
    """[act(ranks) of each of two ranks], which are threads; an exception in the place of a result."""
    barrier, items, results = threading.Barrier(2), {}, {}

    class Rank(Ranks):
        def gather(self, item):
            items[self.rank] = item
            barrier.wait(10)
            found = [items[rank] for rank in range(self.size)]
            barrier.wait(10)
            return found

    def run(ranks):
        try:
            results[ranks.rank] = act(ranks)
        except UserError as error:
            results[ranks.rank] = error

    threads = [threading.Thread(target=run, args=(Rank(rank, 2),)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(2)]


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
    assert found[0] == found[1] and found[0][0] == tmp_path / "work" / "data" and found[0][2] == 80


def test_a_dataset_that_the_store_lacks_is_reported_with_the_command_that_uploads_one(tmp_path):
    (tmp_path / "datasets" / "manifests" / "data").mkdir(parents=True)
    stage = make_stage(tmp_path, data={"uri": f"file://{tmp_path}/datasets"})
    with pytest.raises(UserError, match=r"holds no dataset.*gog move push"):
        stage.questions("train")


def test_a_base_model_in_a_store_is_fetched_once_into_the_pod(tmp_path, monkeypatch):
    asked = []

    def fetch(spec, uri, folder):
        asked.append((spec.uri, uri))
        base_folders.write(folder)

    monkeypatch.setattr(store, "fetch_prefix", fetch)
    stage = make_stage(tmp_path, model={"base": "s3://models/base"}, workdir=str(tmp_path / "work"))
    first, second = stage.model, stage.model
    assert first == second and first.base == str(tmp_path / "work" / "base") and first.preset == "qwen2.5-vl"
    assert asked == [(f"file://{tmp_path}/store", "s3://models/base")]


def test_the_first_process_of_a_pod_ends_at_sigterm():
    program = (
        "import os, signal; from gog_recipes.runtime import config; os.getpid = lambda: 1\n"
        "config.exit_with(lambda: (os.kill(os.getppid(), 0), signal.raise_signal(signal.SIGTERM)))"
    )
    default = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{program}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", default], timeout=120, check=False)
    assert done.returncode == 130


def test_ranks_with_other_settings_are_refused_by_the_name_of_the_setting(tmp_path):
    refused = in_two_ranks(lambda ranks: make_stage(tmp_path, ranks, seed=ranks.rank, workdir=str(tmp_path / "w")).base)
    sentence = "ranks: rank 1 and rank 0 differ in seed (start all ranks with one configuration)"
    assert [str(each) for each in refused] == [sentence, sentence]


def test_ranks_with_another_base_model_under_the_same_name_are_refused(tmp_path, monkeypatch):
    """Each rank has a folder of its own, as pods have."""
    folders = [base_folders.write(tmp_path / str(rank), seed=rank) for rank in range(2)]
    local = threading.local()
    monkeypatch.setattr(base.base_source, "fetch", lambda name, **_: base.base_source.Located(local.folder, name))

    def act(ranks):
        local.folder = folders[ranks.rank]
        return make_stage(tmp_path, ranks, model={"base": "/model"}, workdir=str(tmp_path / "w")).base

    sentence = "ranks: rank 1 and rank 0 differ in base model (give every pod the same model)"
    assert [str(each) for each in in_two_ranks(act)] == [sentence, sentence]


def test_ranks_with_another_dataset_are_refused(tmp_path):
    def act(ranks):
        folder = tmp_path / str(ranks.rank)
        folder.mkdir()
        line = {"id": f"q{ranks.rank}", "image": "a.png", "question": "?", "answers": ["x"]}
        (folder / "train.jsonl").write_text(json.dumps(line) + "\n")
        PILImage.new("RGB", (9, 9)).save(folder / "a.png")
        stage = make_stage(tmp_path, ranks, data={"path": str(folder)}, workdir=str(tmp_path / "w"))
        return stage.questions("train")

    sentence = "ranks: rank 1 and rank 0 differ in dataset (train) (give every pod the same dataset)"
    assert [str(each) for each in in_two_ranks(act)] == [sentence, sentence]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that serves a base model, with an empty cache."""
    with hub_server.serving(base_folders.write(tmp_path / "source")) as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield made


def test_later_stages_use_the_commit_that_the_first_checkpoint_records_even_if_the_branch_moved(tmp_path, served):
    given = {"model": {"base": "hf://org/model"}, "workdir": str(tmp_path / "work")}
    first = make_stage(tmp_path, stage="sft", **given)
    recorded = adapter_of(first).meta["base"]["name"]
    assert recorded == f"hf://org/model@{served.commit}" and first.model.base.endswith(served.commit)
    served.commit = "b" * 40
    later = make_stage(tmp_path, inputs={"sft": "sft"}, **given)
    assert later.base.identity.name == recorded and later.model.base == first.model.base
    assert make_stage(tmp_path / "other", **given).base.identity.name == f"hf://org/model@{served.commit}"


def adapter_of(stage):
    """A checkpoint that records the stage's base, as training stages commit it."""
    weights = stage.workdir / "weights"
    weights.write_text("x")
    meta = {base_model.RECORD: stage.base.identity.document()}
    stage.publish(1, {"weights": weights}, meta=meta, parents=[], complete=False)
    return stage.store.latest(stage.key)


def test_an_adapter_is_only_used_on_the_base_model_that_it_was_trained_on(tmp_path):
    folder = base_folders.write(tmp_path / "base")
    given = {"model": {"base": str(folder)}, "workdir": str(tmp_path / "work")}
    trained = adapter_of(make_stage(tmp_path, stage="sft", **given))
    assert make_stage(tmp_path, **given).folder(trained).is_dir()
    base_folders.write(folder, seed=1)
    with pytest.raises(UserError) as caught:
        make_stage(tmp_path, **given).folder(trained)
    recorded, own = trained.meta["base"]["fingerprint"], base_model.fingerprint(folder)
    assert str(caught.value) == (
        f"checkpoint sft/1: its adapter was trained on the base model {folder} (fingerprint {recorded}), not on {folder} "
        f"(fingerprint {own}) (name the base model that the adapter was trained on)"
    )


def test_an_adapter_without_a_record_of_its_base_is_accepted_with_a_line_in_the_log(tmp_path, capsys):
    stage = make_stage(tmp_path, stage="sft")
    commit(stage)
    assert stage.folder(stage.store.latest("sft")).is_dir()
    assert "sft: checkpoint sft/1 does not record its base model, which is not compared" in capsys.readouterr().out


def test_a_line_of_the_metric_log_holds_null_for_a_figure_that_is_not_finite(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append(step=1, loss=0.123456789, mfu=math.inf, behaviour={"none": math.nan}, eval_loss=None)
    assert log.path.read_text() == '{"step": 1, "loss": 0.1234568, "mfu": null, "behaviour": {"none": null}}\n'
    (tmp_path / "older.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    log.resume(tmp_path / "older.jsonl")
    assert log.path.read_text() == '{"step": 1, "loss": null}\n'
