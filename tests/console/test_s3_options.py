"""Options of an S3 server on a command line."""

from __future__ import annotations

import pytest

from gog_console import cli


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["move", "push", ".", "s3://b/p", "--endpoint-url", "notaurl"], "--endpoint-url: String should match"),
        (["move", "push", ".", "s3://b/p", "--region", "r" * 65], "--region: String should have at most 64"),
        (["move", "push", ".", "gs://b/p"], "gs://b/p: String should match"),
        (["move", "model", "s3://b/m", ".", "--endpoint-url", "notaurl"], "--endpoint-url: String should match"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence_that_names_it(
    line: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line) == 2
    messages = capsys.readouterr().err
    assert messages.startswith(f"gog: {sentence}") and len(messages.splitlines()) == 1
