"""Trajectories with their images in one file: complete, or refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_image, make_trajectory, make_turn

from gog import trajectory_zip
from gog.errors import UserError
from gog.trajectory import Candidate, Observation, Segment
from gog.trajectory_zip import Archive

CROP, OTHER, UNSEEN = make_image(1), make_image(2), make_image(3)
IMAGES = {image.hash: image for image in (make_image(), CROP, OTHER, UNSEEN)}
text = st.text(st.characters(blacklist_categories=["Cs"]))


def make_shown_trajectory(id: str = "t1", words: str = "seen"):  # type: ignore[no-untyped-def]
    """One that shows the question's image, a candidate's crop and another image."""
    offered = (Candidate(number=1, box=(0, 0, 9, 9), score=0.5, crop=CROP.hash),)
    seen = Observation(text=words, tool="grounding", candidates=offered)
    segments = (Segment(source="observation", tokens=(0,), images=(OTHER.hash,)),)
    return make_trajectory(make_turn("ground", observation=seen), make_turn(), id=id, segments=segments)


def write(folder: Path) -> Path:
    path = folder / "trajectories.zip"
    trajectory_zip.write(path, [make_shown_trajectory("one"), make_shown_trajectory("two")], IMAGES)
    return path


def test_trajectories_and_images_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = Archive(write(tmp_path))
    assert found.trajectories() == [make_shown_trajectory("one"), make_shown_trajectory("two")]
    for image in (make_image(), CROP, OTHER):
        assert np.array_equal(found.image(image.hash).pixels, image.pixels)


def test_only_images_that_are_shown_are_written_and_each_once(tmp_path: Path) -> None:
    names = zipfile.ZipFile(write(tmp_path)).namelist()
    images = sorted(f"images/{image.hash}.png" for image in (make_image(), CROP, OTHER))
    assert names == ["trajectories.jsonl", *images]


@given(st.lists(text, min_size=1, max_size=3))
def test_no_text_breaks_a_line(tmp_path: Path, words: list[str]) -> None:
    items = [make_shown_trajectory(f"t{number}", each + "\u2028\x85\x0b\x1c") for number, each in enumerate(words)]
    trajectory_zip.write(tmp_path / "t.zip", items, {})
    assert Archive(tmp_path / "t.zip").trajectories() == items


def test_a_number_that_is_not_finite_is_not_written_as_null(tmp_path: Path) -> None:
    trajectory = make_trajectory().model_copy(update={"advantage": float("nan")})
    with pytest.raises(ValueError, match="NaN is not a JSON number"):
        trajectory_zip.write(tmp_path / "t.zip", [trajectory], {})
    assert not (tmp_path / "t.zip").exists()


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    assert trajectory_zip.write(path, [make_shown_trajectory()], {}) == 1
    assert Archive(path).png(CROP.hash) is None
    with pytest.raises(UserError, match=f"image {CROP.hash} is missing"):
        Archive(path).image(CROP.hash)


def test_a_truncated_archive_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = write(tmp_path).read_bytes()
    torn = tmp_path / "torn.zip"
    for end in range(0, len(whole) - 1, 97):
        torn.write_bytes(whole[:end])
        with pytest.raises(UserError, match="not a trajectory archive"):
            Archive(torn)


def test_a_flipped_bit_in_a_line_is_detected(tmp_path: Path) -> None:
    found = spoil(write(tmp_path), b'"question"')
    with pytest.raises(UserError, match="not a trajectory archive: Bad CRC-32"):
        found.trajectories()


def test_a_flipped_bit_in_an_image_is_detected(tmp_path: Path) -> None:
    found = spoil(write(tmp_path), b"IDAT")
    first = min(image.hash for image in (make_image(), CROP, OTHER))
    with pytest.raises(UserError, match=f"image {first} is damaged: Bad CRC-32"):
        found.image(first)


@pytest.mark.parametrize("fault", ["encrypted", "compressed in another way", "deflated and damaged"])
def test_an_archive_of_others_that_cannot_be_read_is_refused(tmp_path: Path, fault: str) -> None:
    path = write(tmp_path)
    if fault.startswith("deflated"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(trajectory_zip.LINES, "line\n" * 1000)
    data = bytearray(path.read_bytes())
    directory, offset, value = data.index(b"PK\x01\x02"), *{"e": (8, 1), "c": (10, 99), "d": (0, 0)}[fault[0]]
    for header in [at for at in range(directory, len(data) - 4) if data[at : at + 4] == b"PK\x01\x02"]:
        data[header + offset] |= value
    if fault.startswith("deflated"):
        data[30 + len(trajectory_zip.LINES)] = 0xFF  # the first byte behind the header: no such block
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a trajectory archive"):
        Archive(path).trajectories()


def spoil(path: Path, mark: bytes) -> Archive:
    """The archive with one bit after `mark` flipped."""
    data = bytearray(path.read_bytes())
    data[data.index(mark) + 20] ^= 1
    path.write_bytes(data)
    return Archive(path)


def test_a_zip_without_trajectories_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "text")
    with pytest.raises(UserError, match="not a trajectory archive") as caught:
        Archive(path).trajectories()
    assert caught.value.where == str(path)


def test_a_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(trajectory_zip.LINES, make_trajectory().model_dump_json() + '\n{"version": 2}\n')
    with pytest.raises(UserError, match="not a trajectory of version 1") as caught:
        Archive(path).trajectories()
    assert caught.value.where == f"{path}:2"


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Archive(tmp_path / "none.zip")
    assert caught.value.where == str(tmp_path / "none.zip")
