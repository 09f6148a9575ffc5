"""Compares gog with TRL's GRPOTrainer on identical work, in CPU time, wall time, memory and work done twice.

    python benchmarks/trl.py [--repetitions 5] [--small] [--latency 0.5] [--rows 8]

One seeded random Qwen2.5-VL of 5.4 million parameters, one adapter, 2 questions, 8 trajectories each, forced work
(versus/workload.py): each side is a process of its own with one thread, TRL in its own environment, which the first run
makes under ~/.cache/gog (hard links to the package cache where there is one). The sides take turns, step by step, after
a warm-up. A run counts only if both have generated, read and shown equally many tokens in every trajectory, and if the
gradients of one recorded step agree.

CPU seconds are those of a side's process and its ended children. Other load on the machine lengthens wall times, so they
are also given without the time in which a side's main thread was ready and had no core. Of gog that may hide waits for
tools, at most their path (calls x latency), because its tools answer meanwhile. Tools without latency are functions in
the process on both sides. The steps with slow tools use the defaults of each: TRL's synchronous functions, and gog's own
HTTP clients over a server, whose CPU time is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import outcome

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "versus"))
from workload import Workload  # noqa: E402 (from beside the sides, which run in two environments)

VERSIONS = {"trl": "1.16.0", **{name: metadata.version(name) for name in ("torch", "transformers", "peft")}}
"""Of the other side; what both have is the same."""
MORE = ("torchvision", "pillow", "jinja2", "safetensors")
SMALL = Workload(groups=1, group_size=4, calls=2, turn_tokens=8, steps=12)
GOALS = {"rollout_cpu": 5.0, "train_cpu": 2.5, "slow_own_wall": 6.0, "memory": 2.0}
"""TRL's cost divided by gog's, at least."""
GRADIENTS, PREFILL, PATH = 1e-5, 1.05, 1.2
"""Largest relative difference of gradients; prefilled ÷ unique tokens; added wall ÷ critical path, at most."""
WARM_UP = 1
LOG_LINES = 30
"""Of a side that ended early, printed at most."""


def environment() -> Path:
    """The Python of an environment with TRL, made if it does not exist."""
    folder = Path(os.environ.get("GOG_TRL", Path.home() / ".cache" / "gog" / f"trl-{VERSIONS['trl']}"))
    python, mark = folder / "bin" / "python", folder / ".versions"
    wanted = [f"{name}=={version}" for name, version in VERSIONS.items()]
    wanted += [f"{name}=={metadata.version(name)}" for name in MORE]
    if not mark.exists() or mark.read_text() != "\n".join(wanted):
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *wanted], check=True)
        mark.write_text("\n".join(wanted))
    return python


class Side:
    """A process that makes steps. log: file of what it writes besides."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        self.setup = int(self._read()["rss"])

    def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command and returns the answer."""
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            command, code = " ".join(map(str, self.process.args)), self.process.wait()  # type: ignore[arg-type]
            last = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise SystemExit("\n".join([f"{command} ended with {code}; its last lines:", *last]))
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def sides(folder: Path, rows: int) -> Iterator[dict[str, Side]]:
    """Both sides, ready."""
    commands = {
        "gog": [sys.executable, str(HERE / "versus" / "gog_side.py"), str(folder)],
        "trl": [str(environment()), str(HERE / "versus" / "trl_side.py"), str(folder), "--rows", str(rows)],
    }
    with contextlib.ExitStack() as stack:
        found = {}
        for name, command in commands.items():
            log = folder / f"{name}.log"
            errors = stack.enter_context(open(log, "w"))
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.stdin.close)  # type: ignore[union-attr]
            found[name] = Side(process, log)
        yield found


def gradient_difference(folder: Path) -> float:
    """|gog's gradient - TRL's| / |TRL's| of the recorded step, over all parameters of the adapter."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / f"{name}_gradients.safetensors") for name in ("gog", "trl"))
    if ours.keys() != theirs.keys():
        raise SystemExit(f"the sides train other parameters: {sorted(ours.keys() ^ theirs.keys())[:3]}")
    flat = [torch.cat([each[name].flatten().double() for name in sorted(each)]) for each in (ours, theirs)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def check_equal(steps: dict[str, dict[str, Any]], work: Workload) -> None:
    """Stops the benchmark where the sides have done other work."""
    for name, step in steps.items():
        other = [each for each in step["tokens"] if each != steps["gog"]["tokens"][0]]
        if other or len(step["tokens"]) != work.trajectories or set(step["tool_calls"]) != {work.calls}:
            raise SystemExit(f"{name} has done other work: {step['tool_calls']} calls, {other[:1]} tokens")
        if step["tokens"][0]["model"] != (work.calls + 1) * work.turn_tokens:
            raise SystemExit(f"{name} generated {step['tokens'][0]['model']} tokens in a trajectory")


def measure(folder: Path, work: Workload, repetitions: int, latency: float, rows: int) -> dict[str, Any]:
    """Figures of all steps by arm, and the difference of the gradients."""
    arms: dict[str, dict[str, Any]] = {
        "gog": {},
        "gog_http": {"http": True},
        "gog_slow": {"http": True, "latency": latency},
        "trl": {},
        "trl_slow": {"latency": latency},
    }
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    loads = []
    with sides(folder, rows) as both:
        for name in ("gog", "trl"):
            both[name].ask(do="replay")
        difference = gradient_difference(folder)
        for repetition in range(repetitions + WARM_UP):
            for name, arm in arms.items():
                if repetition < WARM_UP and arm:
                    continue
                steps[name].append(both[name.split("_")[0]].ask(do="step", **arm))
            loads.append(os.getloadavg()[0])
            check_equal({name: each[-1] for name, each in steps.items() if each}, work)
            cost = {name: round(sum(steps[name][-1]["cpu"].values()), 2) for name in ("gog", "trl")}
            print(f"repetition {repetition} of {repetitions}: CPU s of a step {cost}", file=sys.stderr, flush=True)
        setup = {name: each.setup for name, each in both.items()}
    counted = {name: each[WARM_UP:] if not arms[name] else each for name, each in steps.items()}
    return {"gradient_difference": difference, "steps": counted, "setup": setup, "load": loads}


def figures(found: dict[str, Any], work: Workload, latency: float) -> dict[str, Any]:
    """The table: by row medians and ranges of both sides, and TRL's divided by gog's."""
    steps, n = found["steps"], work.trajectories

    def of(arm: str, kind: str, *parts: str, per: int = 1) -> list[float]:
        return [sum(step[kind][part] for part in parts or step[kind]) / per for step in steps[arm]]

    rows = {
        "rollout_cpu": (of("gog", "cpu", "rollout", per=n), of("trl", "cpu", "rollout", per=n)),
        "train_cpu": (of("gog", "cpu", "train", per=n), of("trl", "cpu", "train", per=n)),
        "step_cpu": (of("gog", "cpu", per=n), of("trl", "cpu", per=n)),
        "slow_wall": (of("gog_slow", "wall"), of("trl_slow", "wall")),
        "slow_own_wall": (of("gog_slow", "own_wall"), of("trl_slow", "own_wall")),
        "slow_rollout_cpu": (of("gog_slow", "cpu", "rollout", per=n), of("trl_slow", "cpu", "rollout", per=n)),
        "memory": tuple(
            [(steps[side][-1]["peak"] - found["setup"][side]) / 1e6] for side in ("gog", "trl")
        ),
        "prefill_ratio": tuple([step["prefilled"] / step["unique"] for step in steps[side]] for side in ("gog", "trl")),
        "encode_ratio": tuple([step["encoded"] / step["images"] for step in steps[side]] for side in ("gog", "trl")),
    }  # fmt: skip
    table = {name: {"gog": spread(ours), "trl": spread(theirs)} for name, (ours, theirs) in rows.items()}
    for row in table.values():
        row["ratio"] = round(row["trl"]["median"] / row["gog"]["median"], 3)
    path = latency * work.calls
    for name, fast in (("gog", "gog_http"), ("trl", "trl")):
        pairs = zip(of(f"{name}_slow", "own_wall"), of(fast, "own_wall"), strict=True)
        table.setdefault("added_by_path", {})[name] = spread([(slow - quick) / path for slow, quick in pairs])
    return table


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 4), "lowest": round(min(values), 4), "highest": round(max(values), 4)
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """What was measured, and on what."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    with open("/proc/cpuinfo") as lines:
        model = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
        )
    return {"commit": commit, "versions": VERSIONS, "python": platform.python_version(), "cpu": model,
            "cores": os.cpu_count(), "threads": 1}  # fmt: skip


def goals_of(table: dict[str, Any], difference: float) -> dict[str, bool]:
    """What was to be reached, and whether it was."""
    goals = {f"{name} TRL ÷ gog >= {goal:g}": table[name]["ratio"] >= goal for name, goal in GOALS.items()}
    return {
        **goals,
        f"slow tools add <= {PATH} x their path": table["added_by_path"]["gog"]["median"] <= PATH,
        f"prefilled ÷ unique <= {PREFILL}": table["prefill_ratio"]["gog"]["highest"] <= PREFILL,
        "each image encoded once": table["encode_ratio"]["gog"]["highest"] <= 1,
        f"gradients differ by <= {GRADIENTS:g}": difference <= GRADIENTS,
    }


def show(table: dict[str, Any]) -> None:
    """Prints the table."""
    print(f"{'':17} {'gog':>28} {'TRL':>28} {'TRL ÷ gog':>10}")
    for name, row in table.items():
        cells = [row.get(side) for side in ("gog", "trl")]
        texts = [f"{c['median']:.3f} ({c['lowest']:.3f}–{c['highest']:.3f})" if c else "" for c in cells]
        print(f"{name:17} {texts[0]:>28} {texts[1]:>28} {row.get('ratio', float('nan')):>10.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds of a slow tool call")
    parser.add_argument("--rows", type=int, default=8, help="trajectories of TRL's forward and backward pass")
    parser.add_argument("--small", action="store_true", help="4 trajectories of 3 short turns, 2 repetitions")
    given = parser.parse_args()
    repetitions = 2 if given.small else given.repetitions
    rows = 4 if given.small else given.rows
    import build  # writes the folder with gog's prompts, and imports torch

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        work = build.write(folder, SMALL if given.small else Workload(steps=2 + 3 * (repetitions + WARM_UP)))
        found = measure(folder, work, repetitions, given.latency, rows)
    table = figures(found, work, given.latency)
    show(table)
    sizes = {name: getattr(work, name) for name in ("groups", "group_size", "calls", "turn_tokens", "side")}
    report = {
        "machine": machine(), "work": {**sizes, "latency": given.latency, "repetitions": repetitions, "trl_rows": rows,
        "tokens": found["steps"]["gog"][0]["tokens"][0]}, "load": spread(found["load"]),
        "gradient_difference": found["gradient_difference"], **table,
    }  # fmt: skip
    return outcome.finish("trl_small" if given.small else "trl", report, goals_of(table, found["gradient_difference"]))


if __name__ == "__main__":
    sys.exit(main())
