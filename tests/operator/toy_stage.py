"""A stage that trains nothing: steps, progress, checkpoints in the real store, and failures on demand.

TOY in the environment is JSON by the store key of the stage:
{"steps": 4, "seconds": 0.0, "save_every": 2, "fail_until_attempt": 2, "exit": 2, "signal": 9, "hang": true}.
Each start adds a line to `starts.jsonl` beside its configuration, with the step it started from.
"""

from __future__ import annotations

import json
import os
import random  # from the standard library, whatever lies in the working directory
import signal
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gog import progress, store


def main() -> int:
    kind, _, config = sys.argv[1:4]
    body: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)  # as a recipe reads it
    key, workdir = body.get("stage") or kind, Path(body["workdir"])
    toy = {"steps": 4, "seconds": 0.0, "save_every": 2, **json.loads(os.environ.get("TOY", "{}")).get(key, {})}
    assert random.random() < 1
    own = store.open_store(body["store"]["uri"])
    newest = own.latest(key)
    first = newest.step if newest else 0
    with (workdir / "starts.jsonl").open("a") as stream:
        stream.write(json.dumps({"from": first, "pid": os.getpid(), "inputs": body["inputs"]}) + "\n")
    starts = len((workdir / "starts.jsonl").read_text().splitlines())
    if starts < toy.get("fail_until_attempt", sys.maxsize if "exit" in toy else 0):
        print(f"toy: {key} fails on purpose", file=sys.stderr, flush=True)
        if "signal" in toy:
            os.kill(os.getpid(), toy["signal"])
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
            own.publish(key, step, {"weights": weights}, meta={"complete": step == steps})
    return 0


if __name__ == "__main__":
    sys.exit(main())
