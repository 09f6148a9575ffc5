"""The base model of a stage, in all ranks and all stages of a run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image as PILImage
from support import base_folders, hub_server
from support.stages import commit, in_two_ranks, make_stage

from gog import base_model, store
from gog.errors import UserError
from gog_recipes.runtime import base


def test_a_base_model_in_a_store_is_fetched_once_into_the_pod(tmp_path, monkeypatch):
    asked = []

    def fetch(spec, uri, folder):
        asked.append((spec.uri, uri))
        base_folders.write(folder)

    monkeypatch.setattr(store, "fetch_prefix", fetch)
    stage = make_stage(tmp_path, model={"base": "s3://models/base"}, workdir=str(tmp_path / "work"))
    first, second = stage.model, stage.model
    assert first == second and Path(first.base).parent == tmp_path / "work" and first.preset == "qwen2.5-vl"
    assert asked == [(f"file://{tmp_path}/store", "s3://models/base")]
    corrected = make_stage(tmp_path, model={"base": "s3://models/other"}, workdir=str(tmp_path / "work")).model
    assert corrected.base != first.base and asked[1:] == [(f"file://{tmp_path}/store", "s3://models/other")]


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
        hub_server.redirect(monkeypatch, made, tmp_path / "cache")
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
