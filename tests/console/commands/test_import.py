"""`gog import` and `gog validate` of the dataset that it wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from support.foreign_files import fvqa_row, jpeg, write_images, write_lines, write_parquet

from gog import dataset
from gog.errors import UserError
from gog_console import cli


@pytest.fixture
def gog(capsys):
    """gog(*arguments): exit code, output and errors."""

    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def row(number, **changes):
    return {"id": f"q{number}", "question": f"who is number {number}?", "answer": "Ada", "image": "1.jpg", **changes}


def own(number, **changes):
    """A line of gog's own form."""
    line = {"id": f"q{number}", "question": f"who is number {number}?", "answers": [f"Ada {number}"], "image": "1.jpg"}
    return line | changes


def test_a_parquet_file_is_recognised_imported_and_valid(gog, tmp_path):
    source = write_parquet(tmp_path / "fvqa_train.parquet", [fvqa_row(1), fvqa_row(2)])
    code, out, err = gog("import", "auto", source, tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{tmp_path}/out/train.jsonl: 2 questions",
        "note: no split test, which evaluation reads",
        f"format: mmsearch-r1. Next: gog validate {tmp_path}/out",
    ]
    code, out, _ = gog("validate", tmp_path / "out")
    assert code == 0 and out == f"{tmp_path}/out: train: 2 questions, format gog-jsonl\n"


@pytest.mark.parametrize("name", ["mini_data.pq", "mini_data"])
def test_validate_takes_parquet_under_any_name_for_a_dataset(gog, tmp_path, name):
    source = write_parquet(tmp_path / name, [fvqa_row(1)])
    code, out, _ = gog("validate", source)
    assert code == 0 and out == f"{source}: mini_data: 1 question, format mmsearch-r1\n"


def test_an_import_without_the_splits_that_stages_read_says_how_to_make_one(gog, tmp_path):
    source = write_parquet(tmp_path / "fvqa_mini.parquet", [fvqa_row(1)])
    note = "no split train, which training reads, and no split test, which evaluation reads"
    _, out, _ = gog("import", "mmsearch-r1", source, tmp_path / "out")
    assert f"note: {note}; to make one, import with --split fvqa_mini=train\n" in out
    with pytest.raises(UserError) as caught:
        dataset.check(tmp_path / "out", ["train", "test"])
    assert str(caught.value) == (
        f"{tmp_path}/out: has no split train or test; it has fvqa_mini (import with --split fvqa_mini=train)"
    )
    gog("import", "mmsearch-r1", source, tmp_path / "pool", "--split", "fvqa_mini=train")
    dataset.check(tmp_path / "pool", ["train"])


def test_validate_names_file_row_field_and_remedy_of_a_faulty_row(gog, tmp_path):
    source = write_parquet(tmp_path / "fvqa_train.parquet", [fvqa_row(1), fvqa_row(2, images=[])])
    code, _, err = gog("validate", source)
    assert code == 2 and err == f"gog: {source}: row 2: images: has no image (correct or remove the row)\n"


def test_validate_notes_answers_in_questions_and_repeated_questions(gog, tmp_path):
    write_images(tmp_path, "1.jpg", "2.jpg")
    lines = [
        row(1),
        row(2, question="Is Ada Lovelace she?", answer="Ada Lovelace"),
        row(3, question="who is number 1?"),
    ]
    code, out, _ = gog("validate", write_lines(tmp_path / "pool.jsonl", *lines))
    assert code == 0 and "note: pool: question q2 gives its answer away: 'Ada Lovelace'" in out
    assert "note: pool: question q3 repeats question q1" in out


def test_validate_notes_questions_of_train_that_another_split_has_too(gog, tmp_path):
    write_images(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "small.jpg").write_bytes(jpeg(40, width=128, height=96))
    write_lines(tmp_path / "train.jsonl", own(1), own(2, image="2.jpg"), own(3, image="small.jpg"))
    write_lines(tmp_path / "test.jsonl", own(1, id="t1"), own(3, id="t3"))
    code, out, _ = gog("validate", tmp_path)
    assert code == 0
    assert "note: question 'q1' of train is 't1' of test: the same question about the same image\n" in out
    assert "note: question 'q3' of train is 't3' of test: the same question about the same image, scaled or" in out
    assert out.count("note: question") == 2


def test_validate_refuses_a_pool_with_questions_of_a_benchmark_and_names_both(gog, tmp_path):
    write_images(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "test").mkdir()
    write_images(tmp_path / "test", "1.jpg")
    benchmark = write_lines(tmp_path / "test" / "bench.jsonl", row(7, id="b7"))
    pool = write_lines(tmp_path / "pool.jsonl", row(1, image="2.jpg", answer="Bob"), row(7))
    code, _, err = gog("validate", pool, "--against", benchmark)
    assert code == 2 and err.startswith(f"gog: {pool}: pool: question 'q7' is 'b7' of {benchmark}: the same image")
    code, _, err = gog("validate", "examples/world.yaml", "--against", benchmark)
    assert code == 2 and "--against: is for a dataset" in err


@pytest.mark.parametrize("command", [("validate",), ("import", "auto")])
def test_a_file_that_is_cut_off_is_refused_with_the_cause(gog, tmp_path, command):
    source = write_parquet(tmp_path / "trunc.parquet", [fvqa_row(1)])
    source.write_bytes(source.read_bytes()[:-20])
    code, _, err = gog(*command, source, *([tmp_path / "out"] if "import" in command else []))
    assert code == 2 and err.startswith(f"gog: {source}: not a readable .parquet file") and "fetch it again" in err


def test_a_split_that_is_named_twice_is_refused(gog, tmp_path):
    write_images(tmp_path, "1.jpg")
    source = write_lines(tmp_path / "a.jsonl", row(1))
    code, _, err = gog("import", "plain", source, tmp_path / "out", "--split", "a=train", "--split", "a=test")
    assert code == 2 and err == "gog: --split: 'a' is named twice (import it once, under one name)\n"
    assert not (tmp_path / "out").exists()


def test_a_mark_without_a_value_is_refused(gog, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", row(1))
    code, _, err = gog("import", "plain", source, tmp_path / "out", "--only", "language")
    assert code == 2 and "--only: 'language' is not MARK=VALUE" in err


def test_an_import_that_is_killed_with_sigkill_is_finished_by_the_same_command(tmp_path, gog):
    (tmp_path / "1.jpg").write_bytes(jpeg())
    source = write_lines(tmp_path / "train.jsonl", *(row(number) for number in range(400)))
    program = (
        "import os, signal\nfrom gog.dataset import importing\nimportlib = __import__('importlib')\n"
        "importing.COMMIT = 32\nreal = importing._Work.save\ncount = 0\n"
        "def save(work):\n    global count\n    real(work)\n    count += 1\n"
        "    if count == 5:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "importing._Work.save = save\n"
        f"importlib.import_module('gog_console.cli').main(['import', 'plain', {str(source)!r}, {str(tmp_path / 'out')!r}])"
    )
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert died.returncode == -signal.SIGKILL and not (tmp_path / "out").exists()
    assert len((tmp_path / "out.partial" / "train.jsonl").read_text().splitlines()) == 160
    assert gog("import", "plain", source, tmp_path / "out")[0] == 0
    assert [each.id for each in dataset.read_questions(tmp_path / "out", "train")] == [f"q{n}" for n in range(400)]
