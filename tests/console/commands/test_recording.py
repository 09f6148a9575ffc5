"""`gog recording`: recorded answers as one file."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize("line", [["export", "nothing", "out"], ["inspect", "nothing"], ["import", "nothing", "here"]])
def test_a_file_that_does_not_exist_is_one_sentence(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recording", *line]) == 2
    assert capsys.readouterr().err.startswith("gog: nothing: ")
    assert not list(tmp_path.iterdir()), "no target without a source"
