"""`gog` as a process, with toy programs in place of stages and servers: they train nothing and answer nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from gog_console import cli
from gog_operator.cluster import processes
from gog_operator.plan import kstatus
from support.operator_builders import manifest, until

TOYS = Path(__file__).parents[1] / "operator"
GOG = [sys.executable, "-m", "gog_console"]


@dataclass
class Harness:
    """A working directory of `gog`."""

    folder: Path
    stage: dict[str, Any] = field(default_factory=dict)
    """What the toy stages do, by store key."""
    server: dict[str, Any] = field(default_factory=dict)
    """What the toy servers do, by role."""
    more: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    """Processes to end with the test."""

    def write(self, kind: str = "GoGRun", **spec: Any) -> Path:
        """Writes a manifest that needs no world. Returns its path."""
        self.pool()
        body = manifest(kind, "world", data={"path": "pool"}, **spec)
        path = self.folder / "manifest.yaml"
        path.write_text(yaml.safe_dump(body))
        return path

    def pool(self) -> Path:
        """Writes a dataset of one question to learn from and one to evaluate, which no toy reads. Returns its folder."""
        folder = self.folder / "pool"
        folder.mkdir(exist_ok=True)
        for split, name, answer, colour in (("train", "q1", "Ada", "black"), ("test", "q2", "Bob", "white")):
            Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
            line = {"id": name, "image": f"{name}.png", "question": "who?", "answers": [answer]}
            (folder / f"{split}.jsonl").write_text(json.dumps(line))
        return folder

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "GOG_STAGE_PROGRAM": f"{sys.executable} {TOYS / 'toy_stage.py'}",
            "GOG_SERVE_PROGRAM": f"{sys.executable} {TOYS / 'toy_server.py'}",
            "TOY": json.dumps(self.stage),
            "TOY_SERVER": json.dumps(self.server),
            **self.more,
        }

    def start(self, *line: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*GOG, *line],
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def gog(self, *line: str) -> tuple[int, str]:
        """Calls `gog` in this process, which saves its start. Returns the exit code, and stdout and stderr together."""
        output, before = io.StringIO(), dict(os.environ)
        try:
            os.environ.update(self.environment())
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                code = cli.main(line)
        finally:
            os.environ.clear()
            os.environ.update(before)
        return code, output.getvalue()

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "world"

    def object(self, name: str) -> dict[str, Any]:
        return yaml.safe_load((self.run / "objects" / f"{name}.yaml").read_text())

    def conditions(self, name: str) -> dict[str, str]:
        """Type -> reason of each condition that is true, without those for generic tools (test_kstatus.py)."""
        found = self.object(name)["status"].get("conditions", [])
        holding = {each["type"]: each["reason"] for each in found if each["status"] == "True"}
        return {type_: reason for type_, reason in holding.items() if type_ not in ("Ready", *kstatus.DERIVED)}

    def starts(self, stage: str) -> list[dict[str, Any]]:
        """The starts of a stage: one dict each, with the step it started from."""
        path = self.run / "work" / stage / "starts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> list[str]:
        path = self.run / "events.jsonl"
        return [json.loads(line)["message"] for line in path.read_text().splitlines()] if path.exists() else []

    def living(self) -> set[int]:
        """Processes of the run."""
        return processes.marked(str(self.run))

    def committed(self, stage: str) -> list[int]:
        return sorted(int(each.stem) for each in (self.run / "store" / "manifests" / stage).glob("*.json"))

    def until_committed(self, stage: str, step: int) -> None:
        until(lambda: step in self.committed(stage))

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for pid in self.living():
            processes.kill_group(pid, signal.SIGKILL)
