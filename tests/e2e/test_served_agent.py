"""A manifest that serves its result, on one machine with the tiny world: trained, offered, tried, promoted, rolled back.

Two runs of SFT alone, which are poor but quick; what is tested is how their versions are served. Takes minutes.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import served_runs
from support.operator_builders import until

pytestmark = pytest.mark.slow

GOG = [sys.executable, "-m", "gog_console"]


def written(folder: Path, name: str, seed: int, minimum: float = 0.0) -> Path:
    """File of a manifest."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(served_runs.manifest(name, seed, minimum=minimum)))
    return path


class Agent:
    """An agent's folder."""

    def __init__(self, runs: Path) -> None:
        self.folder = runs / "assistant"

    @property
    def status(self) -> dict[str, Any]:
        path = self.folder / "objects" / "toolserver.assistant.yaml"
        return (yaml.safe_load(path.read_text()).get("status") or {}) if path.exists() else {}

    def is_ready(self) -> bool:
        return any(each["type"] == "Ready" and each["status"] == "True" for each in self.status.get("conditions", ()))

    def chat(self, image: str) -> str:
        """Version that answered a chat; its failure, where it failed."""
        body = json.dumps(served_runs.chat(image)).encode()
        request = urllib.request.Request(f"{self.status['url']}/v1/chat/completions", body)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return str(json.load(answer)["system_fingerprint"])
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"


def test_a_served_result_is_replaced_only_past_its_gate_and_its_canary(tmp_path: Path):
    runs, environment = tmp_path / "runs", os.environ | {"OMP_NUM_THREADS": "1"}
    agent = Agent(runs)

    def gog(*line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*GOG, *line, "--dir", str(runs)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    first = [*GOG, "run", str(written(tmp_path, "one", 0)), "--dir", str(runs)]
    with subprocess.Popen(first, env=environment, stdout=subprocess.DEVNULL) as serving:
        try:
            until(lambda: serving.poll() is not None or agent.is_ready(), patience=1200)
            assert serving.poll() is None, "the run ended without serving"
            data = next((runs / "one" / "data").rglob("*.png")).read_bytes()
            image = f"data:image/png;base64,{base64.b64encode(data).decode()}"
            assert agent.chat(image) == "assistant-1"

            refused = gog("run", str(written(tmp_path, "high", 2, minimum=1.0)))
            assert refused.returncode == 0 and "less than 100.0% (serve.gate.minAccuracy)" in refused.stdout
            assert agent.status["version"] == "assistant/1" and not agent.status.get("canary", {}).get("version")

            offered = gog("run", str(written(tmp_path, "two", 1)))
            assert offered.returncode == 0, offered.stderr
            assert f"process {serving.pid} serves assistant" in offered.stdout
            until(lambda: agent.status.get("canary", {}).get("version") == "assistant/2")
            answered = {agent.chat(image) for _ in range(6 * served_runs.CHATS)}
            until(lambda: agent.status.get("version") == "assistant/2", patience=60)
            assert answered >= {"assistant-1", "assistant-2"}
            assert "assistant/2" in gog("status", "assistant").stdout

            serving.send_signal(signal.SIGKILL)
        finally:
            serving.kill()
    assert agent.status["version"] == "assistant/2", "a killed control loop leaves what is served"
    again = [*GOG, "resume", "assistant", "--dir", str(runs)]
    with subprocess.Popen(again, env=environment, stdout=subprocess.DEVNULL) as serving:
        try:
            address = agent.status["url"]
            until(lambda: serving.poll() is not None or (agent.is_ready() and _answers(address)), patience=600)
            until(lambda: agent.chat(image) == "assistant-2", patience=120)
            assert gog("rollback", "assistant").returncode == 0
            until(lambda: agent.status["version"] == "assistant/1", patience=60)
            until(lambda: agent.chat(image) == "assistant-1", patience=60)
            serving.send_signal(signal.SIGINT)
            assert serving.wait(120) in (0, 130)
        finally:
            serving.kill()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/progress", timeout=5):
            return True
    except OSError:
        return False
