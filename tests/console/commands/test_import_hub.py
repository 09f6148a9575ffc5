"""`gog import KIND hf://datasets/…`: a benchmark of the Hugging Face Hub is fetched and imported by one command."""

from __future__ import annotations

import json

import pytest
from support import hub_server
from support.foreign_files import fvqa_row, write_images, write_lines, write_parquet

from gog import dataset, mounts
from gog.dataset import formats
from gog_console import cli

ADDRESS = "hf://datasets/org/bench"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub with a benchmark as its publishers upload one: a table, a pickle beside it, and another dataset below."""
    source = tmp_path / "source"
    write_parquet(source / "fvqa_test.parquet", [fvqa_row(1), fvqa_row(2)])
    (source / "fvqa_test_search_results.pkl").write_bytes(b"\x80\x04.")
    write_images(source / "more", "1.jpg")
    write_lines(source / "more" / "train.jsonl", {"id": "q1", "question": "who?", "answer": "Ada", "image": "1.jpg"})
    with hub_server.serving(source, "org/bench", "datasets") as made:
        hub_server.redirect(monkeypatch, made, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "")
        yield made


@pytest.fixture
def gog(capsys):
    """gog(*arguments): exit code, output and errors."""

    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        return code, *capsys.readouterr()

    return run


def fetched(served):
    return [each.split(" ")[1].rpartition("/")[2] for each in served.requests if each.startswith("GET /datasets/")]


def test_a_benchmark_is_fetched_imported_and_recorded_with_its_commit(gog, served, tmp_path):
    pinned = f"{ADDRESS}@{served.commit}/fvqa_test.parquet"
    code, out, err = gog("import", "auto", f"{ADDRESS}/fvqa_test.parquet", tmp_path / "out")
    assert (code, err) == (0, f"fetching {pinned}\n") and fetched(served) == ["fvqa_test.parquet"]
    assert out.splitlines() == [
        f"{tmp_path}/out/test.jsonl: 2 questions",
        f"source: {pinned}, recorded in {tmp_path}/out/gog-source.json",
        "note: no split train, which training reads",
        f"format: mmsearch-r1. Next: gog validate {tmp_path}/out",
    ]
    record = json.loads((tmp_path / "out" / mounts.RECORD).read_text())
    assert record["resolved"] == pinned and list(record["sha256"]) == ["fvqa_test.parquet"]
    assert formats.recognise(tmp_path / "out") == "gog-jsonl" and gog("validate", tmp_path / "out")[0] == 0
    assert len(dataset.read_questions(tmp_path / "out", "test")) == 2


def test_a_folder_is_imported_by_itself_and_a_pickle_is_never_fetched(gog, served, tmp_path):
    assert gog("import", "plain", f"{ADDRESS}@main/more", tmp_path / "out")[0] == 0
    assert sorted(fetched(served)) == ["1.jpg", "train.jsonl"]
    assert [each.answers for each in dataset.read_questions(tmp_path / "out", "train")] == [("Ada",)]
    assert gog("import", "mmsearch-r1", ADDRESS, tmp_path / "other", "--split", "test")[0] == 0
    assert sorted(fetched(served)) == ["1.jpg", "fvqa_test.parquet", "train.jsonl"]


def test_an_outage_fails_the_command_and_the_next_one_continues(gog, served, tmp_path):
    served.cut = 400
    code, _, err = gog("import", "auto", f"{ADDRESS}/more", tmp_path / "out")
    assert code == cli.FAILED and "gog: Hugging Face Hub: " in err and "(the same command continues)" in err
    served.cut = 0
    assert gog("import", "auto", f"{ADDRESS}/more", tmp_path / "out")[0] == 0
    assert fetched(served).count("train.jsonl") == 1


@pytest.mark.parametrize(
    ("source", "token", "sentence"),
    [
        ("hf://datasets/org/other", "", "there is no such dataset, or it is private"),
        (ADDRESS, "secret", "access to this dataset must be granted by its owner"),
        (f"{ADDRESS}/none", "", "there is no file of a dataset in none"),
        ("hf://org/bench", "", "is not an address of a dataset"),
    ],
)
def test_what_a_user_corrects_is_invalid_input(gog, served, tmp_path, source, token, sentence):
    served.token = token
    code, _, err = gog("import", "auto", source, tmp_path / "out")
    assert code == cli.INVALID and sentence in err and not (tmp_path / "out").exists()


def test_nothing_is_fetched_for_a_folder_that_exists(gog, served, tmp_path):
    (tmp_path / "out").mkdir()
    code, _, err = gog("import", "auto", ADDRESS, tmp_path / "out")
    assert code == cli.INVALID and "out: exists already (name a new folder)" in err and served.requests == []
