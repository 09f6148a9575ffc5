"""Files that a server writes once it is ready."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path


def await_file(path: Path, process: subprocess.Popen, seconds: float = 600) -> dict:
    """The content of a file that a process writes once it is ready."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"{path.stem} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{path.stem} was not ready within {seconds} s"
        time.sleep(0.05)
    return json.loads(path.read_text())
