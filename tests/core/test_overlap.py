"""Questions that are trained on and evaluated are found, without decoding the images of a whole pool."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image as PILImage
from skimage import data

from gog import images
from gog.dataset import overlap
from gog.errors import UserError


@pytest.fixture
def pool(tmp_path):
    """pool(train, test): a dataset. Each question is (id, words, answer, image)."""
    for name, photograph in (("cat", data.chelsea()), ("cup", data.coffee())):
        whole = PILImage.fromarray(np.ascontiguousarray(photograph))
        whole.save(tmp_path / f"{name}.png")
        whole.save(tmp_path / f"{name}-again.png", compress_level=1)
        whole.resize((200, round(200 * whole.height / whole.width))).save(tmp_path / f"{name}-small.jpg", quality=60)
        (tmp_path / f"{name}-copy.png").write_bytes((tmp_path / f"{name}.png").read_bytes())

    def write(**splits):
        for split, rows in splits.items():
            lines = [
                {"id": id, "question": words, "answers": [answer], "image": image} for id, words, answer, image in rows
            ]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path

    return write


ASKED = ("b1", "Who built it?", "Ada Lovelace", "cat.png")
LONG = ("b2", "In which year was the old stone bridge in Prague built?", "1357", "cat.png")


@pytest.mark.parametrize(
    ("question", "reason", "is_same"),
    [
        (("q", "who built it", "Bob", "cat.png"), overlap.SAME, True),
        (("q", "who built it", "Bob", "cat-copy.png"), overlap.SAME, True),
        (("q", "Who built it?", "Bob", "cat-again.png"), overlap.SAME, True),
        (("q", "Who built it?", "Bob", "cat-small.jpg"), f"{overlap.SAME}, scaled or compressed", False),
        (("q", "What else?", "Bob", "cat-copy.png"), "the same image", False),
        (("q", "By whom?", "Ada Lovelace", "cat-small.jpg"), "the same answer about the same image", False),
        (("q", LONG[1], "1357", "cup.png"), "the same long question with the same answer", False),
        (("q", LONG[1], "1402", "cup.png"), None, False),
        (("q", "Who built it?", "Ada Lovelace", "cup.png"), None, False),
        (("q", "By whom?", "Bob", "cat-small.jpg"), None, False),
    ],
)
def test_a_question_of_the_pool_that_is_evaluated_is_found_with_the_reason(pool, question, reason, is_same):
    found = overlap.find(pool(train=[question], test=[ASKED, LONG]), ["test"])
    assert [(each.reason, each.is_same) for each in found.shared] == ([(reason, is_same)] if reason else [])
    assert found.unseen == 0 and all(each.split == "test" for each in found.shared)


def test_every_evaluated_split_is_compared_and_train_is_not_compared_with_itself(pool):
    path = pool(train=[("q1", *ASKED[1:]), ("q2", "What?", "x", "cup.png")], test=[LONG], bench=[ASKED])
    (found,) = overlap.find(path, ["train", "test", "bench", "bench"]).shared
    assert (found.question, found.other, found.split) == ("q1", "b1", "bench")


def test_images_of_other_questions_are_not_decoded(pool, monkeypatch):
    path = pool(train=[("q1", "What?", "x", "cup.png"), ("q2", *ASKED[1:])], test=[ASKED])
    monkeypatch.setattr(images, "read", lambda path: pytest.fail(f"{path} was decoded"))
    assert [each.question for each in overlap.find(path, ["test"]).shared] == ["q2"], "its file is equal"


def test_beyond_the_limit_images_are_compared_by_file_only_and_counted(pool):
    path = pool(train=[("q1", ASKED[1], "x", "cup.png"), ("q2", ASKED[1], "x", "cat-small.jpg")], test=[ASKED])
    found = overlap.find(path, ["test"], most=2)
    assert found.shared == () and found.unseen == 1
    assert overlap.sentences(found) == [
        "1 question of train with the words or answer of an evaluated one: images were compared by file only; gog validate "
        "DATASET compares all of them"
    ]
    assert len(overlap.find(path, ["test"], most=None).shared) == 1


def test_a_refusal_names_the_first_questions_and_counts_all():
    same = [overlap.Shared(f"q{number}", f"b{number}", "test", overlap.SAME, True) for number in range(25)]
    first, *others = str(overlap.refusal(same, "data")).splitlines()
    assert first == (
        "data: question 'q0' of train is 'b0' of test: the same question about the same image (remove it from train, or "
        "evaluate on another split)"
    )
    assert len(others) == 20 and others[-1] == "25 questions in all"
    assert isinstance(overlap.refusal(same[:1], "data"), UserError)
    near = [overlap.Shared("q", "b", "test", "the same image", False)] * 12
    assert overlap.sentences(overlap.Found(tuple(near), 0))[-1] == "2 more questions of train are like evaluated ones"
