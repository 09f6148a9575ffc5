"""Dataset formats are an extension point: a reader from outside is one file, and everything else follows from it."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image as PILImage

from gog import dataset
from gog.dataset import formats
from gog.errors import UserError

OUTSIDE = '''
"""Questions as one JSON array with images in base64.

    [{"qid": 7, "q": "who?", "gold": ["Ada"], "jpeg": "/9j/4AAQ..."}]
"""

import base64
import json

from gog.dataset import Question
from gog.dataset.formats import Row
from gog.errors import UserError


class Reader:
    def detect(self, path):
        return path.suffix == ".json"

    def splits(self, path):
        return (path.stem,)

    def rows(self, path, split):
        for number, item in enumerate(json.loads(path.read_bytes()), 1):
            where = f"{path}: item {number}"
            if not item["gold"]:
                yield UserError("gold is empty", where=where)
                continue
            question = Question(id=str(item["qid"]), image=f"{number}.jpg", question=item["q"], answers=item["gold"])
            yield Row(where, question, base64.b64decode(item["jpeg"]))
'''
OUTSIDE_NAME = "array_format:Reader"
CHOICES = f"{', '.join(formats.names())}, or module:factory"
"""How a message lists the formats."""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outside reader, as an installed module."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "array_format.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "array_format", raising=False)


def item(number: int, *, width: int = 64, gold: tuple[str, ...] = ("Ada",), image: bytes | None = None) -> dict:
    stream = io.BytesIO()
    PILImage.new("RGB", (width, 48), (number, 0, 0)).save(stream, "JPEG")
    return {"qid": number, "q": "who?", "gold": gold, "jpeg": base64.b64encode(image or stream.getvalue()).decode()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.json"


def write(path: Path, *items: dict) -> None:
    path.write_text(json.dumps(items))


def test_a_dataset_of_an_outside_reader_becomes_a_folder_that_stages_read(path: Path, tmp_path: Path) -> None:
    write(path, item(1), item(2), {**item(1), "qid": 3})
    folder = dataset.as_folder(path, OUTSIDE_NAME, tmp_path / "converted")
    questions = dataset.read_questions(folder, "train")
    assert [(question.id, question.answers) for question in questions] == [(str(n), ("Ada",)) for n in (1, 2, 3)]
    assert questions[0].image == questions[2].image != questions[1].image, "equal images are kept once"
    assert all(question.image.endswith(".jpg") for question in questions)
    dataset.check(folder, ["train"])


def test_a_folder_in_gogs_own_form_is_not_converted(path: Path, tmp_path: Path) -> None:
    write(path, item(1))
    folder = dataset.as_folder(path, OUTSIDE_NAME, tmp_path / "converted")
    assert dataset.as_folder(folder, None, tmp_path / "again") == folder
    assert not (tmp_path / "again").exists()


def test_a_conversion_that_fails_names_the_row_and_leaves_no_folder(path: Path, tmp_path: Path) -> None:
    write(path, item(1), item(2, gold=()))
    with pytest.raises(UserError, match=r"train\.json: item 2: gold is empty"):
        dataset.as_folder(path, OUTSIDE_NAME, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_rows_of_an_outside_reader_are_checked_like_gogs_own(path: Path) -> None:
    write(path, item(1), item(1), item(3, gold=()), item(4, width=2), item(5, image=b"no image"))
    with pytest.raises(UserError) as caught:
        dataset.check(path, ["train"], format=OUTSIDE_NAME)
    errors = str(caught.value).replace(f"{path}: ", "").splitlines()
    assert [error.partition(": ")[0] for error in errors] == ["item 2", "item 3", "item 4", "item 5"]
    assert "occurs twice" in errors[0] and "2 x 48 pixels" in errors[2] and "not a readable image" in errors[3]


def test_a_format_of_the_package_is_recognised_by_content(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text('{"id": "q1", "image": "a.png", "question": "who?", "answers": ["Ada"]}')
    (tmp_path / "notes.jsonl").write_text('{"note": "not a question"}')
    assert formats.find(tmp_path).splits(tmp_path) == ("eval",) == dataset.splits(tmp_path)


def test_a_folder_that_no_format_recognises_is_reported_as_an_incomplete_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test\.jsonl: cannot read: No such file"):
        dataset.check(tmp_path, ["test"])


def test_splits_that_a_file_of_another_format_does_not_have_are_one_error_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    path.write_text('{"question": "who?", "answer": "Ada", "image": "1.jpg"}\n')
    with pytest.raises(UserError) as caught:
        dataset.check(path, ["train", "test"])
    remedy = f"gog import plain {path} FOLDER --split mini=train"
    assert str(caught.value) == f"{path}: has no split train or test; it has mini ({remedy})"


def test_a_split_that_an_outside_reader_does_not_have_is_refused(path: Path) -> None:
    write(path, item(1))
    with pytest.raises(UserError, match=r"has no split test; it has train .*name another split in stages\.evaluate"):
        dataset.check(path, ["train", "test"], format=OUTSIDE_NAME)


def test_a_folder_without_rows_of_the_format_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*: no rows of the format \(is it the right file or folder\?\)$"):
        dataset.check(tmp_path, ["train", "test"], format="plain")


def test_a_stage_that_reads_a_split_under_another_name_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text('{"id": "q1", "image": "a.png", "question": "who?", "answers": ["Ada"]}')
    with pytest.raises(UserError, match=r"has no split train; it has eval \(import with --split eval=train\)"):
        dataset.read_questions(tmp_path, "train")


def test_a_file_that_no_format_recognises_is_refused_with_the_formats_there_are(path: Path) -> None:
    write(path, item(1))
    with pytest.raises(UserError, match=rf"train\.json: the format .* \(set data\.format: {CHOICES}"):
        dataset.check(path, ["train"])


@pytest.mark.parametrize("name", ["parquet", "array_format", "array_format:Absent", "absent:Reader", ":", ""])
def test_a_format_that_does_not_exist_is_refused_by_name(path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.format: no dataset format '.*{CHOICES}"):
        formats.load(name)


def test_every_format_of_the_package_has_a_reader() -> None:
    assert formats.OWN in formats.names()
    for name in formats.names():
        reader = formats.load(name)
        assert all(callable(getattr(reader, method)) for method in ("detect", "splits", "rows"))
