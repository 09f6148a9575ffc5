"""Measures how the cost of a trajectory grows with concurrent episodes and with turns, and draws docs/growth.png.

    python benchmarks/growth.py [--repetitions 3] [--small] [--no-plot]

Steps of GRPO with gog alone, on the forced work of benchmarks/trl.py: a random Qwen2.5-VL of 5.4 million parameters, groups
of 8, turns of 16 tokens, an image with each observation, one thread, tools as functions in the process. First 16 to 512
episodes at once with three turns each, then 16 episodes of 2 to 16 turns. CPU seconds; the sizes take turns within a
repetition, after a warm-up step.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import outcome

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "versus"))

import build  # noqa: E402 (beside the sides of the comparison)
import forced  # noqa: E402
import gog_side  # noqa: E402
import torch  # noqa: E402
import trl  # noqa: E402 (benchmarks/trl.py)
from workload import Workload  # noqa: E402

EPISODES, TURNS = (16, 32, 64, 128, 256, 512), (2, 4, 8, 16)
GROUP, CALLS = 8, 2
FLAT, LINEAR = 1.2, 1.25
"""Cost of a trajectory at the most episodes ÷ at the fewest; of a turn beyond the eighth ÷ of one before; at most."""
PARTS = {"rollout": ("rollout",), "training": ("train",), "check of the policy": ("check", "switch")}


def sizes(episodes: tuple[int, ...], turns: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """The sizes that are measured, by name."""
    more = {f"episodes {each}": {"groups": each // GROUP, "calls": CALLS} for each in episodes}
    longer = {f"turns {each}": {"groups": 16 // GROUP, "calls": each - 1} for each in turns}
    return {**more, **longer}


def measure(folder: Path, arms: dict[str, dict[str, int]], repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """The steps of each size."""
    limits = {"concurrent_episodes": max(EPISODES), "max_calls": 1000, "max_turns": 1000}
    side = gog_side.Side(folder, **limits)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    asyncio.run(side.run(forced.LocalTools()))
    for _ in range(repetitions):
        for name, arm in arms.items():
            side.resize(**arm)
            found[name].append(asyncio.run(side.run(forced.LocalTools())))
    return found


def costs(steps: list[dict[str, Any]], *parts: str) -> list[float]:
    """CPU milliseconds per trajectory of each step."""
    return [1e3 * sum(step["cpu"][part] for part in parts) / len(step["tokens"]) for step in steps]


def steepness_of(costs_by_turns: dict[int, float]) -> float:
    """Cost of one more turn in the second half of the range ÷ in the first half."""
    few, *_, many = sorted(costs_by_turns)
    middle = sorted(costs_by_turns)[-2]
    late = (costs_by_turns[many] - costs_by_turns[middle]) / (many - middle)
    early = (costs_by_turns[middle] - costs_by_turns[few]) / (middle - few)
    return round(late / early, 3)


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws both curves."""
    from gog_console.dashboards import drawing, palette

    pyplot = drawing.matplotlib_ready()
    colours = {"rollout": palette.BLUE, "training": palette.VIOLET, "check of the policy": palette.GREEN}
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6), dpi=drawing.DPI, facecolor=drawing.PAPER)
    for axis, (kind, label) in zip(axes, {"episodes": "concurrent episodes", "turns": "turns"}.items(), strict=True):
        names = [name for name in found if name.startswith(f"{kind} ")]
        places = [int(name.split()[1]) for name in names]
        for part, marks in PARTS.items():
            values = [statistics.median(costs(found[name], *marks)) for name in names]
            axis.plot(places, values, marker="o", markersize=4, linewidth=2, color=colours[part], label=part)
        axis.set(xlabel=label, ylim=(0, None), facecolor=drawing.CARD, xticks=places, xticklabels=places)
        axis.set_xscale("log" if kind == "episodes" else "linear", **({"base": 2} if kind == "episodes" else {}))
        axis.set_xticks(places, [str(place) for place in places])
        axis.minorticks_off()
        axis.grid(axis="y", color=drawing.GRID)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color(drawing.FAINT)
        axis.tick_params(colors=drawing.SOFT, length=0)
        axis.xaxis.label.set_color(drawing.SOFT)
    axes[0].set_title("CPU ms per trajectory, by episodes at once", loc="left", color=drawing.INK, fontsize=11)
    axes[1].set_title("CPU ms per trajectory, by its turns", loc="left", color=drawing.INK, fontsize=11)
    axes[0].legend(frameon=False, labelcolor=drawing.SOFT, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.62))
    figure.tight_layout()
    figure.savefig(path, facecolor=drawing.PAPER, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="up to 64 episodes and 4 turns, one repetition")
    parser.add_argument("--no-plot", action="store_true", help="leave docs/growth.png as it is")
    given = parser.parse_args()
    repetitions = 1 if given.small else given.repetitions
    arms = sizes(EPISODES[:3], TURNS[:2]) if given.small else sizes(EPISODES, TURNS)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        groups = 2 + repetitions * sum(arm["groups"] for arm in arms.values())
        work = Workload(groups=2, group_size=GROUP, calls=CALLS, turn_tokens=16, steps=-(-groups // 2))
        build.write(Path(scratch), work)
        found = measure(Path(scratch), arms, repetitions)
    table = {}
    for name, steps in found.items():
        row = {part: trl.spread(costs(steps, *marks)) for part, marks in PARTS.items()}
        table[name] = {**row, "all": trl.spread(costs(steps, *(mark for marks in PARTS.values() for mark in marks)))}
        cells = "".join(f"{part} {row[part]['median']:.1f} ms   " for part in PARTS)
        print(f"{name:13} {cells}")
    if not given.no_plot and not given.small:
        draw(found, HERE.parent / "docs" / "growth.png")
    first, *_, last = [row["all"]["median"] for name, row in table.items() if name.startswith("episodes")]
    goals = {f"cost of a trajectory among most episodes <= {FLAT} x among fewest": last <= FLAT * first}
    turns = {int(name.split()[1]): row["all"]["median"] for name, row in table.items() if name.startswith("turns")}
    steepness = None if given.small else steepness_of(turns)
    if steepness is not None:
        goals[f"later turns cost <= {LINEAR} x early ones"] = steepness <= LINEAR
    report = {"machine": trl.machine(), "repetitions": repetitions, "load": os.getloadavg()[0], **table,
              "flatness": round(last / first, 3), "steepness": steepness}  # fmt: skip
    return outcome.finish("growth_small" if given.small else "growth", report, goals)


if __name__ == "__main__":
    sys.exit(main())
