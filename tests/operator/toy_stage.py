"""A stage that trains nothing: steps, progress, checkpoints in the real store, and misbehaviour on demand.

What it shall do beyond its steps is told by TOY in the environment, as JSON by the store key of the stage:
{"steps": 4, "seconds": 0.0, "save_every": 2, "fail_until_attempt": 2, "exit": 2, "hang": true}.
Each start is noted in `starts.jsonl` beside its configuration, with the step it went on from.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

from gog import progress, store


def main() -> int:
    kind, _, config = sys.argv[1:4]
    body = yaml.safe_load(Path(config).read_text())
    key, workdir = body.get("stage") or kind, Path(body["workdir"])
    toy = {"steps": 4, "seconds": 0.0, "save_every": 2, **json.loads(os.environ.get("TOY", "{}")).get(key, {})}
    shop = store.open_store(body["store"]["uri"])
    newest = shop.latest(key)
    first = newest.step if newest else 0
    with (workdir / "starts.jsonl").open("a") as stream:
        stream.write(json.dumps({"from": first, "pid": os.getpid(), "inputs": body["inputs"]}) + "\n")
    starts = len((workdir / "starts.jsonl").read_text().splitlines())
    if "exit" in toy or starts < toy.get("fail_until_attempt", 0):
        print(f"toy: {key} fails on purpose", file=sys.stderr)
        return int(toy.get("exit", 1))
    if toy.get("hang"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    steps = toy["steps"]
    losses = []
    for step in range(first + 1, steps + 1):
        time.sleep(toy["seconds"])
        losses.append(1 / step)
        progress.report(workdir, step, steps, {"loss": losses})
        if step % toy["save_every"] == 0 or step == steps:
            weights = workdir / "weights"
            weights.write_text(f"{key} {step}")
            shop.publish(key, step, {"weights": weights}, meta={"complete": step == steps})
    return 0


if __name__ == "__main__":
    sys.exit(main())
