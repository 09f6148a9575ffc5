"""A dataset is checked as a whole before a run: lines, images and boxes, several errors at once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image as PILImage

from gog import dataset
from gog.dataset import checks
from gog.errors import UserError


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    PILImage.effect_noise((width, height), 50).convert("RGB").save(stream, kind)
    return stream.getvalue()


def line(number: int, **fields: object) -> str:
    given = {"id": f"q{number}", "image": f"images/{number}.png", "question": "who?", "answers": ["Ada"], **fields}
    return json.dumps(given)


class Folder:
    """A dataset folder with a train split."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images").mkdir()

    def add(self, number: int, encoded_image: bytes | None = None, **fields: object) -> None:
        (self.root / "images" / f"{number}.png").write_bytes(encoded_image or encoded(64, 48))
        with (self.root / "train.jsonl").open("a") as stream:
            stream.write(line(number, **fields) + "\n")

    def report(self, *splits: str) -> list[str]:
        """The errors, one a line, with names relative to the folder."""
        with pytest.raises(UserError) as caught:
            dataset.check(self.root, splits or ("train",))
        return str(caught.value).replace(f"{self.root}/", "").splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_dataset_without_errors_passes(folder: Folder) -> None:
    folder.add(1, evidence={"region": [0, 0, 64, 48]})
    folder.add(2, encoded(200, 5))
    folder.add(3, encoded(64, 48, "JPEG"))
    (folder.root / "corpus.jsonl").write_text('{"title": "Ada", "text": "Ada Lovelace"}')
    dataset.check(folder.root, ["train"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_named_by_line(folder: Folder, kind: str) -> None:
    whole = encoded(64, 48, kind)
    folder.add(1)
    folder.add(2, whole[: len(whole) // 2])
    assert [error.split(": ")[0:2] for error in folder.report()] == [["train.jsonl:2", "image 'images/2.png'"]]


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1600, 7), "1600 x 7 pixels: the model accepts an aspect ratio of at most 200 (crop, pad or remove it)"),
        ((300, 1), "300 x 1 pixels: the model needs at least 5 on each side (crop, pad or remove it)"),
    ],
)
def test_an_image_that_the_model_refuses_is_named_by_line(folder: Folder, size: tuple[int, int], reason: str) -> None:
    folder.add(1, encoded(*size))
    assert folder.report() == [f"train.jsonl:1: image 'images/1.png': {reason}"]


def test_a_box_outside_its_image_is_named_by_line(folder: Folder) -> None:
    folder.add(1, evidence={"region": [0, 0, 65, 48]})
    assert folder.report() == [
        "train.jsonl:1: evidence.region: [0, 0, 65, 48] exceeds the image (64 x 48), perhaps on a scale of 0 to 1000: "
        "boxes are x0, y0, x1, y1 in pixels (correct or remove the line)"
    ]


def test_errors_of_several_files_are_reported_at_once_and_in_their_order(folder: Folder) -> None:
    folder.add(1, encoded(300, 2))
    folder.add(2, answers=[""])
    folder.add(3, image="images/4.png")
    (folder.root / "corpus.jsonl").write_text('{"title": "Ada"}')
    (folder.root / "index").mkdir()
    (folder.root / "index" / "images.jsonl").write_text('{"image": "../a.png", "title": "Ada"}')
    assert [error.split(": ")[0] for error in folder.report("train", "test")] == [
        *("train.jsonl:1", "train.jsonl:2", "train.jsonl:3", str(folder.root), "index/images.jsonl:1", "corpus.jsonl:1")
    ]


def test_at_most_twenty_errors_are_shown(folder: Folder) -> None:
    for number in range(30):
        folder.add(number, b"no image")
    report = folder.report()
    assert len(report) == checks.MOST + 1 and report[-1] == "only the first 20 errors are shown"


def test_an_image_of_several_questions_is_decoded_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    read = checks.images.read
    monkeypatch.setattr(checks.images, "read", lambda path: decoded.append(path) or read(path))
    for number in range(3):
        folder.add(number, image="images/0.png")
    dataset.check(folder.root, ["train"])
    assert decoded == [folder.root / "images" / "0.png"]


def test_an_indexed_image_may_have_any_size_but_must_be_whole(folder: Folder) -> None:
    folder.add(1)
    (folder.root / "index").mkdir()
    lines = [{"image": f"index/{name}", "title": name} for name in ("thin.png", "torn.png")]
    (folder.root / "index" / "images.jsonl").write_text("\n".join(json.dumps(each) for each in lines))
    (folder.root / "index" / "thin.png").write_bytes(encoded(300, 1))
    (folder.root / "index" / "torn.png").write_bytes(encoded(64, 48)[:100])
    assert [error.split(": ")[0] for error in folder.report()] == ["index/images.jsonl:2"]
