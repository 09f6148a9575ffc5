"""`gog recording`: recorded answers as one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ports, s3

from gog.calls.recording import Entry, Recording
from gog_console import cli


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "answers.sqlite"
    Recording(path).put(Entry("a", "textSearch", 1_767_600_000.0, None, b'{"hits": ["sk-0123456789"]}'))
    return str(path)


def test_a_recording_is_exported_inspected_and_imported(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_API_KEY", "sk-0123456789")
    out, here = str(tmp_path / "run.gogrec"), str(tmp_path / "here.sqlite")
    printed = []
    for line in (["export", recording, out], ["inspect", out], ["import", out, here], ["inspect", here]):
        assert cli.main(["recording", *line]) == 0
        printed.append(capsys.readouterr().out.splitlines())
    assert len({lines[0] for lines in printed}) == 1, "the same hash each time"
    assert printed[1][1:] == [
        "textSearch           1 answers",
        "in all   1 answers, 24 bytes",
        "recorded 2026-01-05 08:00:00Z to 2026-01-05 08:00:00Z",
    ]
    assert [each.answer for each in Recording(Path(here)).entries()] == [b'{"hits": ["[redacted]"]}']


def test_names_and_times_of_a_hostile_file_are_printed_in_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, here = str(tmp_path / "r.sqlite"), str(tmp_path / "r.gogrec"), str(tmp_path / "here.sqlite")
    name = "../../x\x1b[31m\nin all   0 answers" + "x" * 10_000
    Recording(Path(path)).put(Entry("a", name, 1e300, None, b"{}"))
    for line in (["inspect", path], ["export", path, out], ["inspect", out], ["import", out, here]):
        assert cli.main(["recording", *line]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert all(each.isprintable() and len(each) < 300 for each in printed)
        assert printed[1].startswith("../../x [31m in all") and printed[2] == "in all   1 answers, 2 bytes"


@pytest.mark.parametrize("line", [["export", "nothing", "out"], ["inspect", "nothing"], ["import", "nothing", "here"]])
def test_a_file_that_does_not_exist_is_one_sentence(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recording", *line]) == 2
    assert capsys.readouterr().err.startswith("gog: nothing: ")
    assert not list(tmp_path.iterdir()), "no target without a source"


def test_a_recording_in_a_bucket_is_imported_inspected_and_exported(
    recording: str, gateway: s3.Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--endpoint-url", gateway.url, "--path-style", "--region", "us-east-1"]
    there = f"s3://{s3.BUCKET}/{tmp_path.parent.name}/{tmp_path.name}"
    files = [str(tmp_path / name) for name in ("run.gogrec", "again.gogrec")]
    printed = []
    for line in (
        ["export", recording, files[0]],
        ["import", files[0], there, *options],
        ["inspect", there, *options],
        ["export", there, files[1], *options],
    ):
        assert cli.main(["recording", *line]) == 0
        printed.append(capsys.readouterr().out.splitlines())
    assert len({tuple(lines[:4]) for lines in printed}) == 1, "the same hash, tools and times each time"
    assert printed[1][-1] == f"added to {there}; use it with tools.cache: {{mode: replay-strict, path: {there}}}"


def test_a_folder_of_objects_is_named_by_its_address(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = f"file://{tmp_path}/answers"
    for line in (
        ["export", recording, str(tmp_path / "f")],
        ["import", str(tmp_path / "f"), there],
        ["inspect", there],
    ):
        assert cli.main(["recording", *line]) == 0
    assert "textSearch           1 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["inspect", "gs://b/p"], "RECORDING: gs://b/p: is no address of recorded answers"),
        (["export", "gs://b/p", "out"], "RECORDING: gs://b/p: is no address of recorded answers"),
        (["export", "folder/", "out"], "RECORDING: folder/: names a folder, not a file"),
        (["export", "file:///nowhere/at/all", "out"], "file:///nowhere/at/all: no such recording"),
        (["export", "file:///nowhere", "s3://b/out"], "FILE: s3://b/out: is an address"),
        (["import", "s3://b/p", "here.sqlite"], "FILE: s3://b/p: is an address"),
        (["inspect", "s3://b/p", "--endpoint-url", "notaurl"], "--endpoint-url: String should match"),
    ],
)
def test_an_address_that_cannot_work_is_one_sentence_and_makes_nothing(
    line: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recording", *line]) == 2
    assert capsys.readouterr().err.startswith(f"gog: {sentence}")
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_is_a_failure_that_may_pass(
    gateway: s3.Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gog.store.address.Patience", lambda: s3.IMPATIENT)
    line = ["recording", "inspect", "s3://b/p", "--endpoint-url", f"http://127.0.0.1:{ports.free(1)[0]}"]
    assert cli.main(line) == 1
    assert "gog: s3://b" in capsys.readouterr().err
