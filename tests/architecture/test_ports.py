"""Ports of servers that tests start: none is given twice, and none on which something listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import ports

TESTS = Path(__file__).parents[1]


def test_a_port_is_given_once_even_to_different_processes():
    ours = ports.free(20)
    line = [
        sys.executable,
        "-c",
        f"from support import ports; ports.FIRST, ports.COUNT = {ours[0]}, 2000; print(ports.free(20))",
    ]
    theirs = subprocess.run(
        line, env=os.environ | {"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=True
    ).stdout
    assert len(set(ours)) == 20 and not set(ours) & set(map(int, theirs.strip("[]\n").split(", ")))


def test_a_port_on_which_a_server_listens_is_not_given(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(ports, "FIRST", server.getsockname()[1])
        monkeypatch.setattr(ports, "COUNT", 1)
        with pytest.raises(RuntimeError, match="no 1 free ports"):
            ports.free(1)
