"""Settings, stores and objects for the tests of `gog move`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from gog_console import cli
from support import builders

WORLD = {"seed": 3, "train": 6, "test": 3}


def move(tmp_path, what, **body):
    """Exit code of `gog move WHAT` with these settings."""
    path = tmp_path / f"{what}.yaml"
    path.write_text(yaml.safe_dump(body))
    return cli.main(["move", what, "--config", str(path)])


def result(capsys):
    """What `gog move` printed: its result."""
    return json.loads(capsys.readouterr().out)


def uri_of(store):
    return {"uri": Path(store.where).as_uri()}


def train(store, steps=3, *, complete=True):
    """Checkpoints of grpo, each made from an sft one, the last complete."""
    builders.publish(store, 9, {"adapter": b"sft"}, stage="sft", meta={"complete": True})
    for step in range(1, steps + 1):
        done = complete and step == steps
        files = {"adapter": b"%d" % step, "state": b"state of %d" % step}
        builders.publish(store, step, files, stage="grpo", meta={"complete": done}, parents=("sft/9",))
    return store


def held(store):
    """Everything that a reader can find, each checkpoint verified."""
    manifests = [store.manifest(stage, step) for stage in store.stages() for step in store.steps(stage)]
    for manifest in manifests:
        store.check(manifest)
    return {
        manifest.ref: {name: store.open(manifest, name).read_bytes() for name in manifest.files}
        for manifest in manifests
    }


def objects_in(folder):
    """The objects of a run folder as the operator sends them: JSON values only."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((folder / "objects").rglob("*.yaml"))]
    return json.loads(json.dumps(found, default=lambda moment: moment.isoformat()))


def result_lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
