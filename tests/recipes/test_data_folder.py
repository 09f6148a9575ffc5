"""The dataset that a stage reads: always a folder in gog's own form, whatever the manifest names."""

from __future__ import annotations

import json

import pytest
from PIL import Image as PILImage

from gog import dataset, spec
from gog.errors import UserError
from gog_recipes.runtime import data as stage_data

STORE = spec.StoreSpec(uri="file:///unused")
READER = '''
from gog.dataset import Question
from gog.dataset.formats import Row


class Reader:
    """A CSV file: id, image, question, answer."""

    def detect(self, path):
        return False

    def splits(self, path):
        return ("train",)

    def rows(self, path, split):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            key, image, question, answer = line.split(",")
            made = Question(id=key, image=image, question=question, answers=(answer,))
            yield Row(f"{path}:{number}", made, path.parent / image)
'''


def located(given, tmp_path):
    return stage_data.locate(given, options=STORE, common=tmp_path / "work").folder


@pytest.fixture
def pool(tmp_path):
    made = tmp_path / "pool"
    made.mkdir()
    PILImage.new("RGB", (8, 8)).save(made / "a.png")
    return made


def test_a_folder_in_gogs_own_form_is_read_where_it_is(pool, tmp_path):
    line = {"id": "q1", "image": "a.png", "question": "who?", "answers": ["Ada"]}
    (pool / "train.jsonl").write_text(json.dumps(line))
    assert located(spec.DataSpec(path=str(pool)), tmp_path) == pool
    assert located(spec.DataSpec(uri=pool.as_uri()), tmp_path) == pool


def test_a_file_in_another_format_is_converted_once(pool, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "csv_format.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path / "site")
    (pool / "pool.csv").write_text("q1,a.png,who?,Ada\nq2,a.png,when?,1843\n")
    data = spec.DataSpec(path=str(pool / "pool.csv"), format="csv_format:Reader")
    folder = located(data, tmp_path)
    assert [question.answers for question in dataset.read_questions(folder, "train")] == [("Ada",), ("1843",)]
    monkeypatch.setattr("gog.dataset.convert.convert", lambda *given: pytest.fail("converted again"))
    assert located(data, tmp_path) == folder


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.path: .*absent: no such file or folder"):
        located(spec.DataSpec(path=str(tmp_path / "absent")), tmp_path)
