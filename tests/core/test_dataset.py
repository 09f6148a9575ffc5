"""Lines of a dataset: each way a line can be wrong has its message, with file, line number, field and cause."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
from support.builders import make_question

from gog import dataset
from gog.errors import UserError

GOOD = {"id": "q1", "image": "images/q1.png", "question": "who?", "answers": ["Ada"]}
REMEDY = " (correct or remove the line)"


def line(**changes: object) -> bytes:
    """A good line with fields changed, or left out by None."""
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not None}).encode()


BAD = {
    "torn": (b'{"id": "q1"', "line: Invalid JSON: EOF while parsing an object at line 2 column 0"),
    "no JSON": (b"hello", "line: Invalid JSON: expected value at line 1 column 1"),
    "no object": (b"[]", "line: Input should be an object"),
    "not UTF-8": (b'{"id": "\xff"}', "line: Invalid JSON: invalid unicode code point at line 1 column 9"),
    "no id": (line(id=None), "id: Field required"),
    "empty id": (line(id=""), "id: String should have at least 1 character"),
    "long id": (line(id="x" * 201), "id: String should have at most 200 characters"),
    "id a number": (line(id=3), "id: Input should be a valid string"),
    "no image": (line(image=None), "image: Field required"),
    "empty question": (line(question=""), "question: String should have at least 1 character"),
    "no answer": (line(answers=[]), "answers: Tuple should have at least 1 item after validation, not 0"),
    "one answer bare": (line(answers="Ada"), "answers: Input should be a valid array"),
    "an answer no text": (line(answers=["Ada", 1]), "answers.1: Input should be a valid string"),
    "a field too many": (line(colour="red"), "colour: Extra inputs are not permitted"),
    "half a box": (line(evidence={"region": [1, 2, 3]}), "evidence.region.3: Field required"),
    "empty gold answer": (line(answers=[""]), "answers.0: String should have at least 1 character"),
    "blank alternative": (line(answers=["Ada", " "]), "answers.1: is blank"),
    "blank question": (line(question=" \t"), "question: is blank"),
    "answer null": (line(answers=[None]), "answers.0: Input should be a valid string"),
    "box of NaN": (
        b'{"id": "q1", "image": "images/q1.png", "question": "who?", "answers": ["Ada"], '
        b'"evidence": {"region": [NaN, NaN, NaN, NaN]}}',
        "evidence.region.0: Input should be a finite number",
    ),
    "score of infinity": (
        line(evidence={"score": 1}).replace(b'"score": 1', b'"score": 1e999'),
        "line: the number 1e999 is too large",
    ),
    "mark of NaN": (line(evidence={"score": float("nan")}), "line: NaN is not a JSON number"),
    "key twice": (line().replace(b'"id"', b'"id": "q0", "id"', 1), "line: key 'id' occurs twice"),
    "key twice, deep": (
        line(evidence={"kind": "a"}).replace(b'"kind"', b'"kind": "b", "kind"', 1),
        "line: key 'kind' occurs twice",
    ),
}


def make_folder(folder: Path, *lines: bytes, images: tuple[str, ...] = ("q1", "q2")) -> Path:
    (folder / "images").mkdir()
    for name in images:
        (folder / "images" / f"{name}.png").touch()
    (folder / "test.jsonl").write_bytes(b"\n".join(lines))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        dataset.read_questions(folder, "test")
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_with_its_number_field_and_cause(tmp_path: Path, name: str) -> None:
    bad, sentence = BAD[name]
    folder = make_folder(tmp_path, line(id="q0"), bad + b"\n")
    assert refusal(folder) == f"test.jsonl:2: {sentence}{REMEDY}"


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, b"", line(), b"  ", b"\r", line(id="q2"), b"", b"hello")
    assert refusal(folder).startswith("test.jsonl:7: line: Invalid JSON")


def test_an_id_that_occurs_twice_is_named_at_its_second_line(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, b"", line(), b"", line(question="what?"))
    assert refusal(folder) == "test.jsonl:4: id 'q1' occurs twice (ids must be unique)"


def test_a_missing_image_is_named_by_line(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, b"", line(), line(id="q2", image="images/q9.png"))
    assert refusal(folder) == "test.jsonl:3: image 'images/q9.png' is missing"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/data/q1.png", "image '/data/q1.png' is an absolute path"),
        ("../q1.png", "image '../q1.png' may lie outside the dataset folder"),
        ("images/../../q1.png", "image 'images/../../q1.png' may lie outside the dataset folder"),
    ],
)
def test_an_image_that_is_not_below_the_folder_is_refused(tmp_path: Path, image: str, message: str) -> None:
    folder = make_folder(tmp_path, line(image=image))
    assert refusal(folder) == f"test.jsonl:1: {message} (give its path relative to the dataset folder)"


def test_an_image_that_is_a_url_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, line(image="https://example.org/q1.png"))
    assert refusal(folder).startswith("test.jsonl:1: image 'https://example.org/q1.png' is a URL (download it;")


def test_an_image_of_a_linked_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "q3.png").touch()
    (tmp_path / "pool").mkdir()
    folder = make_folder(tmp_path / "pool", line(image="linked/q3.png"))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert [question.image for question in dataset.read_questions(folder, "test")] == ["linked/q3.png"]


def test_a_name_longer_than_file_systems_allow_is_missing(tmp_path: Path) -> None:
    assert refusal(make_folder(tmp_path, line(image="x" * 5000))).endswith("is missing")


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    assert refusal(make_folder(tmp_path, line(image="images"))) == "test.jsonl:1: image 'images' is missing"


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path) == ("test.jsonl: cannot read: No such file or directory (is the dataset folder complete?)")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_split_without_questions_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refusal(make_folder(tmp_path, content)) == "test.jsonl: no questions (give at least one line)"


def test_a_byte_order_mark_and_crlf_line_ends_are_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, codecs.BOM_UTF8 + line() + b"\r", line(id="q2", image="images/q2.png") + b"\r")
    assert [question.id for question in dataset.read_questions(folder, "test")] == ["q1", "q2"]


def test_a_byte_order_mark_counts_at_the_start_of_the_file_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, line(), codecs.BOM_UTF8 + line(id="q2"))
    assert refusal(folder).startswith("test.jsonl:2: line: Invalid JSON")


def test_a_file_in_utf_16_is_named_as_such(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "test.jsonl").write_bytes(line().decode().encode("utf-16"))
    assert refusal(folder) == "test.jsonl: the file is UTF-16 (save it as UTF-8)"


@pytest.mark.parametrize("evidence", [b"null", b'{"kind": null, "expression": null, "region": null}'])
def test_null_in_an_optional_field_means_that_it_is_absent(tmp_path: Path, evidence: bytes) -> None:
    folder = make_folder(tmp_path, line().removesuffix(b"}") + b', "evidence": ' + evidence + b"}")
    assert dataset.read_questions(folder, "test")[0].evidence == dataset.Evidence()


def test_null_in_a_required_field_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, line().replace(b'"who?"', b"null"))
    assert refusal(folder).startswith("test.jsonl:1: question: Input should be a valid string")


def test_questions_keep_their_order_and_their_evidence(tmp_path: Path) -> None:
    evidence = {"kind": "maker", "expression": "red ring", "region": [1, 2, 3, 4], "scene": {"rings": 2}}
    folder = make_folder(tmp_path, line(id="q2", image="images/q2.png"), line(evidence=evidence, answers=["Ada", "A"]))
    second, first = dataset.read_questions(folder, "test")
    assert (second.id, first.id, first.answers) == ("q2", "q1", ("Ada", "A"))
    assert first.evidence.region == (1, 2, 3, 4)
    assert first.evidence.model_extra == {"scene": {"rings": 2}}


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    questions = [make_question("q1", question="qui?\u2028\x85é"), make_question("q2", answers=("a", "b"))]
    dataset.write_lines(path, questions)
    assert list(dataset.read_lines(path, dataset.Question)) == questions
    assert "é" in path.read_text()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path, number: float) -> None:
    evidence = dataset.Evidence.model_validate({"score": number})
    with pytest.raises(ValueError, match=r"evidence\.score is not a finite number"):
        dataset.write_lines(tmp_path / "train.jsonl", [make_question("q1", evidence=evidence)])
    assert not (tmp_path / "train.jsonl").exists()


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    dataset.write_lines(path, [make_question("old")])
    with pytest.raises(AttributeError):
        dataset.write_lines(path, [make_question("new"), None])  # type: ignore[list-item]
    assert [question.id for question in dataset.read_lines(path, dataset.Question)] == ["old"]
