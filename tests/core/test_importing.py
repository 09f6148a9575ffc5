"""An import commits as it goes, names every row that it cannot take, and appears whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.foreign_files import fvqa_row, jpeg, write_images, write_lines, write_parquet

from gog import dataset
from gog.dataset import importing
from gog.errors import UserError


class Killed(BaseException):
    """Ends an import as kill -9 does: nothing handles it."""


def rows(count):
    return [{"id": f"q{number}", "question": "who?", "answer": "Ada", "image": "1.jpg"} for number in range(count)]


@pytest.fixture
def source(tmp_path):
    write_images(tmp_path, "1.jpg")
    return write_lines(tmp_path / "train.jsonl", *rows(30))


def request(source: Path, **changes):
    return importing.Request(**{"kind": "plain", "source": source, "target": source.parent / "out", **changes})


def ids(folder, split="train"):
    return [question.id for question in dataset.read_questions(folder, split)]


@pytest.fixture(autouse=True)
def commits_often(monkeypatch):
    monkeypatch.setattr(importing, "COMMIT", 4)


def test_an_import_is_a_dataset_that_stages_read_and_leaves_nothing_beside_it(source):
    progress = importing.run(request(source))
    out = source.parent / "out"
    assert ids(out) == [f"q{number}" for number in range(30)] and progress.taken == {"train": 30}
    assert sorted(each.name for each in out.iterdir()) == ["images", "train.jsonl"]
    assert not (source.parent / "out.partial").exists()
    dataset.check(out, ["train"])


@pytest.mark.parametrize("at", [4, 12, 28])
def test_an_import_that_was_killed_continues_at_its_last_commit(source, at, monkeypatch):
    def kill(progress):
        if progress.rows == at:
            raise Killed

    with pytest.raises(Killed):
        importing.run(request(source), kill)
    partial = source.parent / "out.partial"
    with (partial / "train.jsonl").open("a") as stream:
        stream.write('{"id": "q')  # of a row after the commit
    written = []
    monkeypatch.setattr(importing.convert, "add", lambda folder, data: written.append(1) or "images/x.jpg")
    (partial / "images" / "x.jpg").write_bytes(jpeg())
    importing.run(request(source))
    assert ids(source.parent / "out") == [f"q{number}" for number in range(30)]
    assert len(written) == 30 - at, "rows before the commit are not written again"


def test_an_import_of_files_that_changed_since_begins_again(source):
    def kill(progress):
        raise Killed

    with pytest.raises(Killed):
        importing.run(request(source), kill)
    write_lines(source, *rows(7))
    assert importing.run(request(source)).taken == {"train": 7}


def test_faulty_rows_are_refused_together_and_the_import_continues_when_they_are_mended(source, tmp_path):
    bad = [{**rows(3)[2], "answer": None}, {**rows(4)[3], "image": "2.jpg"}]
    write_lines(source, *rows(2), *bad)
    with pytest.raises(UserError) as caught:
        importing.run(request(source))
    text = str(caught.value)
    assert f"{source}:3: answer: holds no answer (correct or remove the row)" in text
    assert f"{source}:4: image: image '2.jpg' is missing" in text
    assert "2 of 4 rows cannot be taken; --leave-out imports the other 2" in text
    assert (tmp_path / "out.partial" / "missing.txt").read_text() == "2.jpg\n"
    assert not (tmp_path / "out").exists()
    write_lines(source, *rows(4))
    assert importing.run(request(source)).taken == {"train": 4}


def test_faulty_rows_are_left_out_when_that_is_asked_for_and_stay_listed_beside_the_dataset(source, tmp_path):
    write_lines(source, *rows(2), {**rows(3)[2], "answer": None})
    progress = importing.run(request(source, leave_out=True))
    assert (progress.taken, progress.faults) == ({"train": 2}, 1)
    (fault,) = map(json.loads, (tmp_path / "out.faults.jsonl").read_text().splitlines())
    assert fault["where"] == f"{source}:3" and fault["what"] == "answer: holds no answer"


def test_many_faults_are_counted_and_the_first_are_shown(source):
    write_lines(source, *({**row, "answer": None} for row in rows(30)))
    with pytest.raises(UserError, match=r"10 more are in .*faults\.jsonl"):
        importing.run(request(source))


def test_an_id_that_occurs_twice_is_found_across_an_interruption(source):
    write_lines(source, *rows(8), rows(1)[0])

    def kill(progress):
        raise Killed

    with pytest.raises(Killed):
        importing.run(request(source), kill)
    with pytest.raises(UserError, match=r"train\.jsonl:9: id 'q0' occurs twice"):
        importing.run(request(source))


def test_an_image_that_is_none_or_of_a_size_that_models_refuse_is_named(tmp_path):
    damaged = [{"bytes": b"\xff\xd8\xffrest", "path": None}]
    thin = [{"bytes": jpeg(1, 2, 48), "path": None}]
    table = [fvqa_row(1, images=damaged), fvqa_row(2, images=thin)]
    path = write_parquet(tmp_path / "train.parquet", table)
    with pytest.raises(UserError, match=r"(?s)row 1: image: not a readable image.*row 2: image: 2 x 48 pixels"):
        importing.run(request(path, kind="mmsearch-r1"))


def test_rows_are_chosen_by_their_marks_and_splits_by_their_names(tmp_path):
    write_images(tmp_path, "1.jpg")
    one = {"question": "who?", "answer": "Ada", "image": "1.jpg"}
    write_lines(tmp_path / "pool_test.jsonl", {**one, "lang": "en"}, {**one, "lang": "zh"})
    write_lines(tmp_path / "pool_train.jsonl", one)
    chosen = request(tmp_path, target=tmp_path / "out", splits={"test": "eval"}, only={"language": "en"})
    progress = importing.run(chosen)
    assert progress.taken == {"eval": 1} and progress.left_out == {"language is not en": 1}
    assert dataset.splits(tmp_path / "out") == ("eval",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "infoseek"}, "no rows of the format infoseek|holds no|is missing"),
        ({"splits": {"dev": "dev"}}, "no split 'dev'.*one of train"),
        ({"only": {"language": "EN"}}, "no rows are left"),
        ({"kind": "nothing"}, "no dataset format 'nothing'"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_its_cause(source, changes, message):
    with pytest.raises(UserError, match=message):
        importing.run(request(source, **changes))


def test_an_existing_folder_is_not_touched(source, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        importing.run(request(source))
