"""Recordings: what they hold, how they are handed on, and what is refused."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gog.calls import recording_file, redact
from gog.calls.recording import Entry, Recording
from gog.errors import Unwritable, UserError

TEXT = b'{"hits": [{"title": "A ring \xc3\xa9"}]}'


def make_entry(key: str, tool: str = "textSearch", answer: bytes = TEXT, recorded: float = 1_767_600_000.0) -> Entry:
    return Entry(key, tool, recorded, None, answer)


def make_recording(path: Path, *entries: Entry) -> Recording:
    recording = Recording(path)
    recording.put_all(entries)
    return recording


ENTRIES = (
    make_entry("b"),
    make_entry("a", "judge", b"\xff\x00 not text"),
    make_entry("c", "imageSearch", recorded=1_767_600_060.5),
)


def test_a_recording_that_was_exported_and_imported_is_the_same(tmp_path: Path) -> None:
    there = make_recording(tmp_path / "there.sqlite", *ENTRIES)
    written = recording_file.write(there, tmp_path / "file")
    assert recording_file.read(tmp_path / "file", lambda: Recording(tmp_path / "here.sqlite")) == written
    here = Recording(tmp_path / "here.sqlite")
    assert list(here.entries()) == list(there.entries()) == sorted(ENTRIES, key=lambda each: each.key)
    assert written.answers == {"imageSearch": 1, "judge": 1, "textSearch": 1}
    assert (written.first, written.last) == (1_767_600_000.0, 1_767_600_060.5)


def test_equal_recordings_have_equal_hashes_in_whatever_order_they_were_made(tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate((ENTRIES, ENTRIES[::-1])):
        recording = make_recording(tmp_path / f"{number}.sqlite", *order)
        digests.add(recording_file.write(recording, tmp_path / str(number)).digest)
        digests.add(recording_file.inspect(tmp_path / str(number)).digest)
        digests.add(recording_file.summary_of(recording).digest)
    assert len(digests) == 1
    other = make_recording(tmp_path / "other.sqlite", *ENTRIES[1:])
    assert recording_file.write(other, tmp_path / "other").digest not in digests


def test_an_export_holds_no_secrets(tmp_path: Path) -> None:
    answer = b'{"url": "https://x.org/?api_key=abc", "echo": "sk-0123456789"}'
    recording = make_recording(tmp_path / "r.sqlite", make_entry("a", answer=answer))
    recording_file.write(recording, tmp_path / "file", ["sk-0123456789"])
    lines = lines_of(tmp_path / "file")
    assert not any(secret in line for secret in (b"abc", b"0123456789") for line in lines)


def lines_of(path: Path) -> list[bytes]:
    return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines(keepends=True)


def damaged(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_bytes(zstandard.compress(b"".join(change(lines_of(path)))))

    return apply


DAMAGE: dict[str, Callable[[Path], object]] = {
    "another answer": damaged(lambda lines: [line.replace(b"ring", b"rung") for line in lines]),
    "an answer less": damaged(lambda lines: [lines[0], *lines[2:]]),
    "no end": damaged(lambda lines: lines[:-1]),
    "more behind the end": damaged(lambda lines: [*lines, b"{}\n"]),
    "another format": damaged(lambda lines: [b'{"format":"gog-recording/2"}\n', *lines[1:]]),
    "no JSON": damaged(lambda lines: [lines[0], b"hello\n", *lines[1:]]),
    "an answer without a key": damaged(lambda lines: [lines[0], b'{"tool":"x"}\n', *lines[1:]]),
    "a list": damaged(lambda lines: [lines[0], b"[]\n", *lines[1:]]),
    "deep nesting": damaged(lambda lines: [lines[0], b"[" * 100_000 + b"\n", *lines[1:]]),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "not compressed": lambda path: path.write_bytes(b"".join(lines_of(path))),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_and_nothing_of_it_is_recorded(name: str, tmp_path: Path) -> None:
    rng = random.Random(0)
    many = [make_entry(f"{number:03}", answer=rng.randbytes(500)) for number in range(20)]
    recording_file.write(make_recording(tmp_path / "r.sqlite", *ENTRIES, *many), tmp_path / "file")
    DAMAGE[name](tmp_path / "file")
    here = make_recording(tmp_path / "here.sqlite", make_entry("mine"))
    with pytest.raises(UserError) as caught:
        recording_file.read(tmp_path / "file", lambda: Recording(tmp_path / "here.sqlite"))
    assert caught.value.where == str(tmp_path / "file")
    assert [each.key for each in here.entries()] == ["mine"]
    with pytest.raises(UserError):
        recording_file.read(tmp_path / "file", lambda: Recording(tmp_path / "new.sqlite"))
    assert not (tmp_path / "new.sqlite").exists()


def test_an_answer_that_would_expand_beyond_its_bound_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(tmp_path / "r.sqlite", make_entry("a", answer=b"x" * 5000))
    monkeypatch.setattr("gog.calls.recording.MAX_ANSWER_BYTES", 4999)
    assert recording.get("a") is None


def test_answers_are_compressed(tmp_path: Path) -> None:
    make_recording(tmp_path / "r.sqlite", make_entry("a", answer=json.dumps({"text": "the ring " * 1000}).encode()))
    (size,) = sqlite3.connect(tmp_path / "r.sqlite").execute("SELECT length(answer) FROM answers").fetchone()
    assert size < 200


def test_a_recording_of_another_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "r.sqlite") as file:
        file.execute("CREATE TABLE answers (key TEXT, answer BLOB)")
    with pytest.raises(UserError, match="it has version 0, not 1"):
        Recording(tmp_path / "r.sqlite")


SECRET = {
    b"https://x.org/?q=1&api_key=SECRETS": b"https://x.org/?q=1&api_key=[redacted]",
    b'"https://x.org/?apikey=SECRETS"': b'"https://x.org/?apikey=[redacted]"',
    b"?X-Amz-Credential=SECRETS&X-Amz-Date=1": b"?X-Amz-Credential=[redacted]&X-Amz-Date=1",
    b"a\\u0026access_token=SECRETS\\u0026b=1": b"a\\u0026access_token=[redacted]\\u0026b=1",
    b'"https://x.org/?a=1&amp;api_key=SECRETS&amp;b=1"': b'"https://x.org/?a=1&amp;api_key=[redacted]&amp;b=1"',
    b"?u=https%3A%2F%2Fx.org%3Fkey%3DSECRETS%26b%3D1": b"?u=https%3A%2F%2Fx.org%3Fkey%3D[redacted]%26b%3D1",
    b"%26api_key%3dSECRETS": b"%26api_key%3d[redacted]",
    b"/a;api_key=SECRETS;b=1#access_token=SECRETS": b"/a;api_key=[redacted];b=1#access_token=[redacted]",
    b"?sv=2024&se=1&sp=r&sig=SECRET%2FS%3D&sr=b": b"?sv=2024&se=1&sp=r&sig=[redacted]&sr=b",
    b"a\\u0026token\\u003dSECRETS\\u0026b": b"a\\u0026token\\u003d[redacted]\\u0026b",
    **{
        b"?q=1&%s=SECRETS" % name: b"?q=1&%s=[redacted]" % name
        for name in (b"key", b"token", b"password", b"subscription-key", b"id_token", b"secret", b"auth", b"Signature")
    },
    b'"https://user:SECRETS@x.org/a@b"': b'"https://[redacted]@x.org/a@b"',
    b'"https:\\/\\/user:SECRETS@x.org\\/a@b"': b'"https:\\/\\/[redacted]@x.org\\/a@b"',
    b"//[redacted]@x.org?key=[redacted]": b"//[redacted]@x.org?key=[redacted]",
    b"https://medium.com/@someone, mail me@x.org // or @me": b"https://medium.com/@someone, mail me@x.org // or @me",
    b"?monkey=1&tokens=2&author=3&design=4&key=&keys=5": b"?monkey=1&tokens=2&author=3&design=4&key=&keys=5",
    b"see open sesame": b"see [redacted]",
    b"2+2=4? key=value & more": b"2+2=4? key=value & more",
    b"iVBORw0KGgo==": b"iVBORw0KGgo==",
}


@pytest.mark.parametrize("answer", SECRET)
def test_secrets_are_removed_from_answers_and_nothing_else_is(answer: bytes) -> None:
    assert redact.redact(answer, ["open sesame", "see"]) == SECRET[answer]


def test_secrets_are_removed_wherever_a_long_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "PIECE", 50)
    for before in range(60):
        answer = b'{"a": "%s", "url": "https://x.org/?q=1&api_key=SECRETS&hl=en", "b": "%s"}' % (
            b"x" * before,
            b"y" * 200,
        )
        assert redact.redact(answer) == answer.replace(b"SECRETS", b"[redacted]")


@pytest.mark.parametrize("value", [b"SECRETS", b"SECRET?S" * 40], ids=["short", "longer than pieces"])
def test_secrets_are_removed_wherever_an_answer_without_quotation_marks_is_cut(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redact, "PIECE", 50)
    for before in range(120):
        for end in (b" and more", b"&hl=en", b""):
            for begin in (b"https://x.org/?q=1?api_key=", b"https://x.org/%3Fq%3D1%26subscription-key%3D"):
                answer = b"x" * before + begin + value + end
                assert redact.redact(answer) == answer.replace(value, b"[redacted]")


FRAGMENTS = [
    *(
        b"?api_key=",
        b"&Signature=",
        b"\\u0026api_key=",
        b"%26key%3D",
        b"&amp;sig=",
        b"%3f",
        b"%3D",
        b"//me:pw@",
        b"\\/\\/me@",
    ),
    *(b"abc" * 9, *b'"?& \\#<;%/@=', b"\\u003d", b"key"),
]


@given(st.lists(st.sampled_from(FRAGMENTS)))
def test_an_answer_is_redacted_alike_in_one_piece_and_in_many(parts: list[bytes | int]) -> None:
    answer = b"".join(each if isinstance(each, bytes) else bytes([each]) for each in parts)
    whole = redact.redact(answer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact, "PIECE", 40)
        assert redact.redact(answer) == whole
    assert redact.redact(whole) == whole


LONG = {
    "parameters": b"&key=a",
    "passwords": b"//a@",
    "slashes": b"//" * 30_000 + b"@",
    "users": b"//" + b"a" * 250,
    "encoded": b"%26key%3D",
    "a value": b"?key=" + b"a" * 60_000,
}


@pytest.mark.parametrize("what", LONG)
def test_a_long_answer_is_redacted_in_linear_time(what: str) -> None:
    started = time.process_time()
    redact.redact(LONG[what] * (1_000_000 // len(LONG[what])) + b" @ =")
    assert time.process_time() - started < 3, "0.2 s at most on an idle machine; a quadratic search takes minutes"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"garbage of some length", "damaged at its start"),
        (b"", "damaged at its start"),
        (b"\x28\xb5\x2f\xfdgarbage", "or damaged"),
    ],
)
def test_a_damaged_export_is_called_damaged_by_whatever_reads_it(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.gogrec"
    path.write_bytes(content)
    for read in (
        recording_file.inspect,
        lambda given: recording_file.read(given, lambda: Recording(tmp_path / "new.sqlite")),
    ):
        with pytest.raises(UserError, match=words) as caught:
            read(path)
        assert "export" in caught.value.remedy and path.read_bytes() == content


def test_a_recording_where_an_exported_file_is_expected_is_named_with_the_command_that_exports_it(
    tmp_path: Path,
) -> None:
    make_recording(tmp_path / "r.sqlite").close()
    with pytest.raises(UserError, match="a recording, not a file that was exported") as caught:
        recording_file.read(tmp_path / "r.sqlite", lambda: Recording(tmp_path / "new.sqlite"))
    assert f"gog recording export {tmp_path / 'r.sqlite'}" in caught.value.remedy


def test_a_recording_of_which_a_part_is_damaged_is_inspected_to_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    entries = [make_entry(f"{number:03}", answer=random.Random(number).randbytes(4_000)) for number in range(50)]
    make_recording(path, *entries).close()
    data = bytearray(path.read_bytes())
    data[8_192 : len(data) - 8_192] = b"\xff" * (len(data) - 16_384)
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot read the recorded answers"):
        recording_file.summary_of(Recording(path))


def test_a_damaged_recording_is_the_users_to_replace(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    make_recording(
        path, *(make_entry(f"{number:03}", answer=random.Random(number).randbytes(4_000)) for number in range(50))
    ).close()
    data = bytearray(path.read_bytes())
    data[4_096:] = bytes(len(data) - 4_096)
    recording = Recording(path)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot read a recorded answer: .*malformed"):
        recording.get("007")
    recording.close()


def fill(recording: Recording) -> None:
    """Leaves no page of the disk to the file."""
    recording._file.execute("PRAGMA max_page_count = 1")


def lock(recording: Recording) -> None:
    """Another process writes, for longer than the file waits."""
    other = sqlite3.connect(recording.path)
    other.execute("BEGIN IMMEDIATE")
    recording._file.execute("PRAGMA busy_timeout = 0")
    recording.holder = other  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fill, "cannot record an answer: database or disk is full (free space on its disk, then `gog resume`)"),
        (lock, "cannot record an answer: database is locked (end the process that locks it, then `gog resume`)"),
    ],
)
def test_a_fault_of_the_disk_may_pass_and_names_its_remedy(
    fault: Callable[[Recording], None], message: str, tmp_path: Path
) -> None:
    recording = Recording(tmp_path / "r.sqlite")
    fault(recording)
    with pytest.raises(Unwritable) as caught:
        recording.put(make_entry("a", answer=random.Random(0).randbytes(100_000)))
    assert caught.value.may_pass and caught.value.sentence() == f"{tmp_path / 'r.sqlite'}: {message}"


def test_a_file_that_is_no_recording_does_not_pass_by_itself(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_text("dear diary, " * 100)
    with pytest.raises(Unwritable) as caught:
        Recording(tmp_path / "r.sqlite")
    assert not caught.value.may_pass


def test_a_recording_on_a_read_only_volume_is_replayed_and_nothing_is_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recording(tmp_path / "r.sqlite", make_entry("a")).close()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    recording = Recording(tmp_path / "r.sqlite", must_exist=True)
    found = recording.get("a")
    assert found is not None and found.answer == TEXT
    assert [path.name for path in tmp_path.iterdir()] == ["r.sqlite"]


def test_a_recording_that_was_not_closed_is_not_read_in_part_from_a_read_only_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = make_recording(tmp_path / "r.sqlite", make_entry("a"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="was not closed"):
        Recording(tmp_path / "r.sqlite", must_exist=True)
    held.close()


def test_a_recording_that_is_removed_while_it_is_used_loses_no_answer_silently(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "r.sqlite", make_entry("a"))
    (tmp_path / "r.sqlite").unlink()
    with pytest.raises(Unwritable, match="removed while it was in use"):
        recording.put(make_entry("b"))
