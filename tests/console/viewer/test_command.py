"""Claims about `gog view`: what it prints, how it ends, what it refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from support import report_builders

from gog_console import cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return report_builders.make_run(tmp_path / "runs", stages=("curate",))


def test_the_printed_address_opens_the_page_and_an_interrupt_ends_it(run, tmp_path):
    line = [
        sys.executable,
        "-m",
        "gog_console.cli",
        "view",
        "world",
        "--dir",
        str(run.parent),
        "--reviews",
        str(tmp_path),
    ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout
        url = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
        assert url
        client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        assert b'id="viewer"' in client.open(url.group()).read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == cli.INTERRUPTED
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / "reviews.jsonl").exists() and (tmp_path / "cache/gog/view").is_dir()


@pytest.mark.parametrize("target", ["absent", "file:///absent/../x y", "s3://", "README.md.zip"])
def test_an_unknown_target_is_a_user_error_and_an_empty_one_an_empty_page(run, target, capsys):
    if target.startswith("file"):
        from gog_console.viewer import sources

        assert sources.resolve(target, run.parent).list().archives == ()
        return
    assert cli.main(["view", target, "--dir", str(run.parent)]) == cli.INVALID
    assert target.partition(":")[0] in capsys.readouterr().err


def test_a_port_that_cannot_be_used_is_reported(run, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70000):
            assert cli.main(["view", str(run), "--port", str(port)]) == cli.INVALID
            assert f"port {port}" in capsys.readouterr().err
