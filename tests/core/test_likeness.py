"""Questions are recognised though id, size and compression of the image differ; other questions are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PILImage
from skimage import data

from gog import images
from gog.dataset import Question, likeness
from gog.images import Image


def photograph(name: str) -> Image:
    return Image(np.ascontiguousarray(getattr(data, name)()[..., :3]))


def recompressed(image: Image, *, width: int, quality: int) -> Image:
    stream = io.BytesIO()
    small = PILImage.fromarray(image.pixels).resize((width, round(width * image.height / image.width)))
    small.save(stream, "JPEG", quality=quality)
    return images.decode(stream.getvalue())


def known(image: Image, question: str = "Who built it?", answer: str = "Ada Lovelace", id: str = "q"):
    made = Question(id=id, image="x.png", question=question, answers=(answer,))
    return likeness.Known.of(made, lambda: likeness.signature(image))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize(("width", "quality"), [(256, 50), (700, 80)])
def test_a_photograph_is_recognised_after_scaling_and_compression(name, width, quality):
    image = photograph(name)
    small = likeness.signature(recompressed(image, width=width, quality=quality))
    assert likeness.is_near(likeness.signature(image), small)


def test_other_photographs_and_a_mirrored_one_are_not_taken_for_each_other():
    found = [likeness.signature(photograph(name)) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    found.append(likeness.signature(Image(np.ascontiguousarray(photograph("astronaut").pixels[:, ::-1]))))
    assert not any(likeness.is_near(a, b) for index, a in enumerate(found) for b in found[:index])


def test_two_scenes_of_the_painted_world_that_differ_in_one_object_are_two_images():
    one = np.full((56, 56, 3), 200, np.uint8)
    other = one.copy()
    other[10:20, 30:40] = (220, 30, 30)
    assert not likeness.is_near(likeness.signature(Image(one)), likeness.signature(Image(other)))


CAT, CUP = photograph("chelsea"), photograph("coffee")
SMALL_CAT = recompressed(CAT, width=200, quality=60)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (known(CAT, "What else?", "Bob"), "the same image"),
        (known(SMALL_CAT, "WHO built it"), "the same question about the same image"),
        (known(SMALL_CAT, "By whom?"), "the same answer about the same image"),
        (known(SMALL_CAT, "By whom?", "Bob"), ""),
        (known(CUP, "Who built it?"), ""),
        (known(CUP, "In which year was the old stone bridge in Prague built?", "1357"), "the same long question"),
        (known(CUP, "In which year was the old stone bridge in Prague built?", "1402"), ""),
    ],
)
def test_a_benchmarks_question_in_the_pool_is_found_with_the_reason(given, reason):
    index = likeness.Index(whole=True)
    index.add(known(CAT, id="b1"))
    index.add(known(photograph("rocket"), "In which year was the old stone bridge in Prague built?", "1357", id="b2"))
    found, other = index.like(given)
    assert found.startswith(reason) and bool(found) == bool(reason) == bool(other)


def test_within_a_pool_another_question_about_the_same_image_is_no_repetition():
    index = likeness.Index(whole=False)
    index.add(known(CAT, id="a"))
    assert index.like(known(CAT, "What else?", "Bob")) == ("", "")
    assert index.like(known(SMALL_CAT, "who built it ?"))[1] == "a"


@pytest.mark.parametrize(
    ("question", "answer", "leaks"),
    [
        ("Who painted the Mona Lisa?", "Mona Lisa", True),
        ("Is the MONA-LISA by Leonardo?", "mona lisa", True),
        ("Is it a cat or a lion?", "lion", False),
        ("How many cats?", "cat", False),
        ("Which lionheart?", "lion", False),
        ("Is it 12?", "12", False),
    ],
)
def test_an_answer_within_its_question_is_found_as_whole_words(question, answer, leaks):
    made = Question(id="q", image="x", question=question, answers=("other", answer))
    assert likeness.leaked_answer(made) == (answer if leaks else "")
