"""The record of an episode: its derived values, and that it is read as it was written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from support.builders import make_trajectory, make_turn

from gog import trajectory as trajectories
from gog.errors import UserError
from gog.trajectory import Candidate, Failure, Observation, Result, Reward, Segment, Trajectory, Turn

text = st.text(st.characters(blacklist_categories=["Cs"]))


def make_full_trajectory(id: str = "t1", words: str = "ring\u2028\x85\r\n“quoted” \\ \0") -> Trajectory:
    """One that uses every field, with characters that have torn lines before."""
    seen = Observation(
        text=words,
        tool="grounding",
        images=("ab", "cd"),
        candidates=(Candidate(number=1, box=(0, 0.25, 3, 4), score=0.5, label=words, crop="ab"),),
        results=(Result(title=words, url="https://example.org", text=words),),
        failures=(Failure(tool="grounding", kind="timeout", message=words),),
        calls=2,
        seconds=0.125,
        attempts=3,
        cached=True,
        decisions=("retried", "hedged"),
        waited=0.5,
        usd=0.01,
    )
    return make_trajectory(
        make_turn("ground", text=words, argument=words, reasoning=words, observation=seen),
        make_turn("answer", text=words, well_formed=False, error="no reasoning"),
        id=id,
        segments=(
            Segment(source="prompt", tokens=(1, 2), images=("aa",)),
            Segment(source="model", tokens=(3, 4, 5), logprobs=(-0.1, -2.5, 0.0), version=7),
            Segment(source="observation", tokens=(6, 7), images=("ab", "cd")),
            Segment(source="model", tokens=(8,), logprobs=(-1.0,), version=7),
        ),
        reward=Reward(accuracy=1.0, format=0.0, total=0.9),
        advantage=-1.25,
        region=(1, 2, 3, 4),
        level="2",
        failures=seen.failures,
    )


def test_only_tokens_that_the_model_wrote_are_in_the_mask() -> None:
    item = make_full_trajectory()
    assert item.tokens() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert item.mask() == [0, 0, 1, 1, 1, 0, 0, 1]
    assert item.model_logprobs() == [-0.1, -2.5, 0.0, -1.0]


def test_images_come_in_the_order_of_their_tokens() -> None:
    assert make_full_trajectory().images() == ["aa", "ab", "cd"]


def test_tool_calls_are_counted_only_where_a_tool_was_called() -> None:
    two = Observation(text="seen", tool="imageSearch", calls=2)
    none = Observation(text="There is no candidate with this number.")
    turns = [make_turn("gaze", observation=two), make_turn("gaze", observation=none), make_turn("text"), make_turn()]
    assert make_trajectory(*turns).tool_calls == 3


@pytest.mark.parametrize(
    ("stop", "formed", "expected"),
    [("answer", (True, True), True), ("answer", (False, True), False), ("answer", (True, False), False)]
    + [(stop, (True, True), False) for stop in ("format", "max_turns", "max_calls", "max_tokens", "max_turn_tokens")],
)
def test_an_episode_is_well_formed_when_every_turn_is_and_the_last_one_answers(
    stop: str, formed: tuple[bool, bool], expected: bool
) -> None:
    turns = [make_turn("glance", well_formed=formed[0]), make_turn("answer", well_formed=formed[1])]
    assert make_trajectory(*turns, stop=stop).well_formed is expected


def test_a_trajectory_is_read_as_it_was_written(tmp_path: Path) -> None:
    items = [make_full_trajectory("one"), make_trajectory(id="two")]
    path = tmp_path / "deep" / "trajectories.jsonl"
    assert trajectories.write(path, items) == 2
    assert list(trajectories.read(path)) == items
    assert path.read_bytes().count(b"\n") == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@given(st.lists(text, max_size=3))
def test_no_text_breaks_a_line(tmp_path: Path, words: list[str]) -> None:
    items = [make_full_trajectory(f"t{number}", each) for number, each in enumerate(words)]
    path = tmp_path / "trajectories.jsonl"
    trajectories.write(path, items)
    assert list(trajectories.read(path)) == items


def test_a_damaged_line_is_named_and_those_before_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    trajectories.write(path, [make_trajectory(id="one"), make_trajectory(id="two")])
    path.write_bytes(path.read_bytes()[:-20])
    found = trajectories.read(path)
    assert next(found).id == "one"
    with pytest.raises(UserError, match="not a trajectory of version 1:") as caught:
        next(found)
    assert (caught.value.where, caught.value.remedy) == (f"{path}:2", "remove the line")


def test_a_line_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    line = {**json.loads(make_trajectory().model_dump_json()), "version": 2}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r":1: not a trajectory of version 1: version: Input should be 1"):
        list(trajectories.read(path))


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    path.write_text(json.dumps({**json.loads(make_trajectory().model_dump_json()), "colour": "red"}) + "\n")
    with pytest.raises(UserError, match="colour: Extra inputs are not permitted"):
        list(trajectories.read(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read trajectories: No such file or directory") as caught:
        list(trajectories.read(tmp_path / "none.jsonl"))
    assert caught.value.where == str(tmp_path / "none.jsonl")


@pytest.mark.parametrize("record", [Segment, Failure, Candidate, Result, Observation, Turn, Reward, Trajectory])
def test_every_field_is_described(record: type[BaseModel]) -> None:
    assert [name for name, field in record.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Segment(source="model", tokens=(1,), logprobs=(value,))


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    trajectories.write(path, [make_trajectory(id="old")])

    def breaking():  # type: ignore[no-untyped-def]
        yield make_trajectory(id="new")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        trajectories.write(path, breaking())
    assert [item.id for item in trajectories.read(path)] == ["old"]
