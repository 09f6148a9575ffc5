"""The journal of turns: records, damage, attempts that branch, and what is deleted."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from support.builders import make_image, make_trajectory, make_turn

from gog import journal
from gog.journal import Chains, Found, Kept, Line, Play, Reader, Writer, records
from gog.journal.records import Envelope
from gog.store import Store
from gog.trajectory import Segment, Trajectory, outline

PLAY = Play("grpo", "grpo", 7, "ab12")


def kept(number: int, text: str = "", *, seen: bool = True, **fields: object) -> Kept:
    turn = make_turn("glance", text=text or f"turn {number}")
    turn = turn if seen else turn.model_copy(update={"observation": None})
    segment = Segment(source="model", tokens=(number,), logprobs=(-0.1,))
    return Kept(**{"number": number, "turn": turn, "segments": (segment,), **fields})  # type: ignore[arg-type]


class Attempt:
    """A process that appends to the journal of PLAY."""

    def __init__(self, store: Store, generation: int, *, name: str = "aaaaaaaa", rank: int = 0) -> None:
        self.store = store
        self.keys: list[str] = []
        self.place = (generation, name, rank)
        self.writer = Writer(self._put, pause=0.0)

    def _put(self, number: int, data: bytes) -> None:
        self.keys.append(PLAY.key(*self.place, number))
        self.store.put_object(self.keys[-1], data)

    def line(self, question: str = "q", sample: int = 0, head: str = "") -> Line:
        return self.writer.line(question, sample, head)

    def keep(self, line: Line, *entries: Kept, images: tuple = ()) -> None:
        """Each in an object of its own."""
        for entry in entries:
            before = len(self.keys)
            line.keep(entry, images)
            asyncio.run(self.writer.durable(self.writer._appended))
            assert len(self.keys) == before + 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def read(store: Store, **options: object) -> Reader:
    keys, _ = journal.listed(store, PLAY)
    reader = Reader(store, keys, Chains(**options))  # type: ignore[arg-type]
    reader.read()
    return reader


def found(store: Store, question: str = "q", sample: int = 0) -> Found:
    result = read(store).found(question, sample)
    assert result is not None
    return result


def texts(result: Found) -> list[str]:
    return [turn.text for turn in result.turns]


def damage(store: Store, key: str, at: int) -> None:
    path = Path(store.backend.where(key))
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


# ---- records


def test_turns_tokens_and_log_probs_come_back_bit_for_bit(store: Store) -> None:
    values = tuple(np.random.default_rng(0).normal(size=50).tolist())
    segment = Segment(source="model", tokens=tuple(range(50)), logprobs=values, version=3)
    attempt = Attempt(store, 1)
    attempt.keep(attempt.line(), kept(0, segments=(segment,), answer_next="max_calls", seconds=1.5))
    result = found(store)
    assert result.segments == (segment,) and result.segments[0].logprobs == values
    assert (result.answer_next, result.seconds, result.stop) == ("max_calls", 1.5, None)


def test_images_come_back_by_content(store: Store) -> None:
    small, large = make_image(1), make_image(2, 300, 200)
    attempt = Attempt(store, 1)
    attempt.keep(attempt.line(), kept(0), images=(small, large))
    images = read(store).images([small.hash, large.hash, "absent"])
    assert {name: image.hash for name, image in images.items()} == {each.hash: each.hash for each in (small, large)}


def test_an_observation_completes_the_turn_that_was_kept_before_it(store: Store) -> None:
    attempt = Attempt(store, 1)
    attempt.keep(attempt.line(), kept(0, seen=False), kept(0, "turn 0"), kept(1, seen=False))
    result = found(store)
    assert [turn.observation is not None for turn in result.turns] == [True, False]
    assert len(result.segments) == 3


def test_an_ended_trajectory_comes_back_whole(store: Store) -> None:
    attempt = Attempt(store, 1)
    line = attempt.line()
    attempt.keep(line, kept(0), kept(1, stop="answer"))
    turns = tuple(kept(number).turn for number in range(2))
    segments = tuple(segment for number in range(2) for segment in kept(number).segments)
    whole = make_trajectory(*turns, segments=segments, advantage=0.5)
    line.end(whole)
    attempt.writer.close()
    assert found(store).trajectory == whole


def test_of_questions_that_are_not_kept_whole_only_the_outline_is_held(store: Store) -> None:
    attempt = Attempt(store, 1)
    line = attempt.line()
    attempt.keep(line, kept(0, stop="answer"))
    whole = make_trajectory(kept(0).turn, segments=kept(0).segments)
    line.end(whole)
    attempt.writer.close()
    result = read(store, whole=set()).found("q", 0)
    assert result is not None and result.trajectory == outline(whole) and result.segments == ()


def test_records_of_other_ranks_questions_are_not_held(store: Store) -> None:
    attempt = Attempt(store, 1)
    for question in ("mine", "other"):
        attempt.keep(attempt.line(question), kept(0))
    reader = read(store, wanted={"mine"})
    assert reader.found("mine", 0) is not None and reader.found("other", 0) is None


# ---- damage


def test_a_damaged_record_is_ignored_with_everything_after_it(store: Store) -> None:
    attempt = Attempt(store, 1)
    attempt.keep(attempt.line(), *(kept(number) for number in range(4)))
    damage(store, attempt.keys[2], -3)
    assert texts(found(store)) == ["turn 0", "turn 1"]


def test_a_missing_object_ends_what_its_writer_left(store: Store) -> None:
    attempt = Attempt(store, 1)
    attempt.keep(attempt.line(), *(kept(number) for number in range(3)))
    store.backend.delete(attempt.keys[1])
    assert texts(found(store)) == ["turn 0"]


@pytest.mark.parametrize("cut", [0, 5, len(records.MAGIC) + 3, len(records.MAGIC) + 30])
def test_an_object_that_is_cut_off_yields_what_is_intact(cut: int) -> None:
    data = records.joined([records.frame(records.RECORD, b"a" * 20)[0], records.frame(records.RECORD, b"b")[0]])
    frames, intact = records.frames(data[:cut])
    assert frames == [] and not intact
    frames, intact = records.frames(data)
    assert [each.payload for each in frames] == [b"a" * 20, b"b"] and intact


def test_a_length_beyond_the_limit_is_damage_and_allocates_nothing() -> None:
    hostile = struct.pack(">cI16s", records.RECORD, 0xFFFFFFFF, b"")
    assert records.frames(records.MAGIC + hostile) == ([], False)


@pytest.mark.parametrize("payload", [b"", b"[]\n{}", b'{"question": 1, "sample": 0}\n{}', b"[" * 100_000])
def test_a_record_of_another_form_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a record|Expecting value"):
        records.read_record(payload)


def test_a_turn_that_does_not_follow_its_record_before_is_not_taken() -> None:
    chains = Chains()
    chains.add(Envelope("q", 0), "d0", kept(0).model_dump_json().encode())
    chains.add(Envelope("q", 0, after="d0"), "d1", kept(2).model_dump_json().encode())
    chains.add(Envelope("q", 0, after="d1"), "d2", b"{}")
    result = chains.found("q", 0)
    assert result is not None and texts(result) == ["turn 0"] and result.head == "d0"


@pytest.mark.parametrize("size", [b"\0\0\0\0\0\0\0\0", b"\0\1\0\0\0\1\0\0", b"\xff" * 8, b"\0"])
def test_pixels_of_another_size_than_they_claim_are_no_image(size: bytes) -> None:
    assert records.read_image(records.Frame(records.PIXELS, "", size + b"abc")) is None


def test_an_object_that_is_too_large_is_never_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(store, 1)
    attempt.keep(attempt.line(), kept(0))
    monkeypatch.setattr("gog.journal.plays.MAX_OBJECT", 10)
    assert journal.listed(store, PLAY) == ([], 0)


# ---- several attempts


def test_an_attempt_continues_the_records_of_the_one_before(store: Store) -> None:
    first = Attempt(store, 1)
    first.keep(first.line(), kept(0), kept(1))
    second = Attempt(store, 2, name="bbbbbbbb", rank=3)
    second.keep(second.line(head=found(store).head), kept(2))
    assert texts(found(store)) == ["turn 0", "turn 1", "turn 2"]


def test_an_attempt_that_could_not_read_the_last_record_never_mixes_with_it(store: Store) -> None:
    first = Attempt(store, 1)
    first.keep(first.line(), kept(0), kept(1))
    readable = read(store)
    readable.keys = readable.keys[:1]
    readable.chains = Chains()
    readable.read()
    before = readable.found("q", 0)
    assert before is not None
    second = Attempt(store, 2, name="bbbbbbbb")
    second.keep(second.line(head=before.head), kept(1, "again"), kept(2, "on"))
    assert texts(found(store)) == ["turn 0", "again", "on"]


def test_a_question_that_is_played_again_replaces_what_there_was(store: Store) -> None:
    first = Attempt(store, 1)
    line = first.line()
    first.keep(line, kept(0, stop="answer"))
    line.end(make_trajectory(kept(0).turn))
    first.writer.close()
    second = Attempt(store, 2, name="bbbbbbbb")
    second.keep(second.line(), kept(0, "again"))
    assert texts(found(store)) == ["again"] and found(store).trajectory is None


# ---- the writer


class Gate:
    """A place for objects that takes its time."""

    def __init__(self) -> None:
        self.open, self.begun, self.objects = threading.Event(), threading.Event(), list[bytes]()

    def __call__(self, number: int, data: bytes) -> None:
        self.begun.set()
        assert self.open.wait(10)
        self.objects.append(data)


def test_records_that_come_while_one_is_written_share_the_next_object() -> None:
    gate = Gate()
    writer = Writer(gate, pause=0.0)
    lines = [writer.line(f"q{number}", 0) for number in range(20)]
    lines[0].keep(kept(0), ())
    assert gate.begun.wait(10)
    for line in lines[1:]:
        line.keep(kept(0), ())
    gate.open.set()
    writer.close()
    assert [len(records.frames(data)[0]) for data in gate.objects] == [1, 19]


def test_a_turn_whose_observation_comes_before_it_is_written_is_one_record() -> None:
    gate = Gate()
    writer = Writer(gate, pause=0.0)
    writer.line("other", 0).keep(kept(0), ())
    assert gate.begun.wait(10)
    line = writer.line("q", 0)
    line.keep(kept(0, seen=False), ())
    line.keep(kept(0), (make_image(),))
    gate.open.set()
    writer.close()
    assert [each.kind for each in records.frames(gate.objects[1])[0]] == [records.PIXELS, records.RECORD]


def test_an_image_is_written_once_however_many_show_it() -> None:
    gate = Gate()
    gate.open.set()
    writer = Writer(gate, pause=0.0)
    for number in range(3):
        writer.line(f"q{number}", 0).keep(kept(0), (make_image(),))
    writer.close()
    kinds = [each.kind for data in gate.objects for each in records.frames(data)[0]]
    assert kinds.count(records.PIXELS) == 1 and kinds.count(records.RECORD) == 3


def test_settled_waits_for_the_turn_and_not_for_the_observation() -> None:
    gate = Gate()

    async def play() -> None:
        writer = Writer(gate, pause=0.0)
        line = writer.line("q", 0)
        line.keep(kept(0, seen=False), ())
        assert gate.begun.wait(10)
        waiting = asyncio.ensure_future(line.settled())
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.open.set()
        await waiting
        gate.open.clear()
        line.keep(kept(0), ())
        await line.settled()
        gate.open.set()
        writer.close()

    asyncio.run(play())


def test_what_writing_raises_reaches_those_that_wait_and_those_that_append() -> None:
    def refuse(number: int, data: bytes) -> None:
        raise OSError("no space")

    async def play() -> None:
        writer = Writer(refuse, pause=0.0)
        line = writer.line("q", 0)
        line.keep(kept(0, seen=False), ())
        with pytest.raises(OSError, match="no space"):
            await line.settled()
        with pytest.raises(OSError, match="no space"):
            line.keep(kept(0), ())
        with pytest.raises(OSError, match="no space"):
            writer.close()

    asyncio.run(play())


# ---- what is deleted


def test_journals_of_a_step_that_something_else_decided_are_deleted_when_it_is_played(store: Store) -> None:
    other = Play(PLAY.stage, PLAY.policy, PLAY.step, "ff00")
    store.put_object(other.key(1, "aaaaaaaa", 0, 0), b"x")
    store.put_object(Play("grpo", "grpo", 8, "ff00").key(1, "aaaaaaaa", 0, 0), b"x")
    assert journal.listed(store, PLAY) == ([], 0)
    assert [entry.key.split("/")[2] for entry in store.objects("journal/grpo/")] == ["grpo-000000008"]


def test_a_checkpoint_makes_the_journals_up_to_its_step_superfluous(store: Store) -> None:
    for stage, step in (("grpo", 6), ("grpo", 7), ("grpo", 8), ("grpo-no-gaze", 7)):
        store.put_object(Play(stage, "grpo", step, "ab12").key(1, "aaaaaaaa", 0, 0), b"x")
    journal.prune(store, "grpo", 7)
    left = {tuple(entry.key.split("/")[1:3]) for entry in store.objects("journal/")}
    assert left == {("grpo", "grpo-000000008"), ("grpo-no-gaze", "grpo-000000007")}
    journal.prune(store, "grpo")
    assert [entry.key.split("/")[1] for entry in store.objects("journal/")] == ["grpo-no-gaze"]


def test_a_sweep_deletes_the_journals_to_which_nothing_was_appended_since(store: Store) -> None:
    cancelled, going = PLAY, Play("sft-again", "sft", 0, "cd34")
    for play in (cancelled, going):
        for number in range(2):
            store.put_object(play.key(1, "aaaaaaaa", 0, number), b"x")
    for entry in store.objects("journal/"):  # the other play's first object is as old, its last one is not
        if not entry.key.startswith(going.prefix) or entry.key.endswith("-00000000"):
            os.utime(Path(store.where.removeprefix("file://")) / entry.key, (1e9, 1e9))
    assert journal.sweep(store, datetime.fromtimestamp(1.1e9, UTC)) == 1
    assert [entry.key for entry in store.objects("journal/")] == [going.key(1, "aaaaaaaa", 0, n) for n in range(2)]
    assert journal.sweep(store, datetime.fromtimestamp(1.1e9, UTC)) == 0


def test_an_outline_has_the_figures_of_the_whole_and_none_of_its_texts() -> None:
    from gog import behaviour

    whole: Trajectory = make_trajectory(kept(0).turn, make_turn("answer"), segments=kept(0).segments)
    short = outline(whole)
    assert behaviour.classify(short) == behaviour.classify(whole) and short.well_formed == whole.well_formed
    assert (short.tool_calls, short.stop, short.failures) == (whole.tool_calls, whole.stop, whole.failures)
    assert short.segments == () and not any(turn.text for turn in short.turns)


def test_the_pause_ends_early_once_half_of_the_trajectories_wait() -> None:
    written: list[bytes] = []

    async def play() -> None:
        writer = Writer(lambda number, data: written.append(data), pause=3600.0)
        lines = [writer.line(f"q{number}", 0) for number in range(3)]
        for turn in range(2):
            for line in lines:
                line.keep(kept(turn, seen=False), ())
            first = asyncio.ensure_future(lines[0].settled())
            await asyncio.sleep(0)
            assert turn == 0 or not first.done()
            await asyncio.wait_for(asyncio.gather(first, lines[1].settled(), lines[2].settled()), 10)
        writer.close()

    asyncio.run(play())
    assert sum(len(records.frames(data)[0]) for data in written) == 6
