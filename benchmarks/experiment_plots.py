"""The plots of the page of results, as SVG: differences with their intervals, and rewards by step. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from experiment_claims import Found, Outcome

STYLE = 'font-family="system-ui, sans-serif" font-size="12" fill="#333"'
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#0a7ea4")


TICK = 0.2
"""Between two marks of an axis of differences; a tenth of it where all are small."""
LETTER = 6
"""Width of a letter of labels, on average."""
WIDTH, HEIGHT, LEFT, TOP = 560, 260, 40, 10
"""Of the frame of curves, and what is left of it and above."""


def forest(made: Sequence[Outcome]) -> str:
    """Every difference with its interval, as SVG."""
    if not made:
        return _svg(400, 40, [f'<text x="10" y="25" {STYLE}>nothing measured yet</text>'])
    left = 24 + LETTER * max(len(each.comparison.text) for each in made)
    width, step, top = 330, 20, 34
    bounds = (min(0.0, *(each.found.low for each in made)), max(0.0, *(each.found.high for each in made)))
    apart = TICK if bounds[1] - bounds[0] > 2 * TICK else TICK / 10
    first = math.floor(bounds[0] / apart)
    last = max(first + 1, math.ceil(bounds[1] / apart))  # all differences may be 0
    scale, height = width / ((last - first) * apart), top + step * len(made) + 24

    def place(value: float) -> float:
        return left + scale * (value - first * apart)

    parts = []
    for number in range(first, last + 1):
        x, shade = place(number * apart), "#ddd" if number else "#888"
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 14}" y2="{height - 24}" stroke="{shade}"/>',
            f'<text x="{x:.1f}" y="14" text-anchor="middle" {STYLE}>{100 * number * apart:g}</text>',
        ]
    for number, each in enumerate(made):
        y, colour = top + step * number, {"s": COLOURS[2], "r": COLOURS[1]}.get(each.verdict[0], COLOURS[5])
        low, mean, high = (place(value) for value in (each.found.low, each.found.mean, each.found.high))
        parts += [
            f'<text x="{left - 12}" y="{y + 4}" text-anchor="end" {STYLE}>{_escaped(each.comparison.text)}</text>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{mean:.1f}" cy="{y}" r="4" fill="{colour}"/>',
            f'<text x="{left + width + 56}" y="{y + 4}" text-anchor="end" {STYLE}>{100 * each.found.mean:+z.1f}</text>',
        ]
    note = "difference in points of accuracy, 95 % interval; green: higher, red: lower, grey: undecided"
    parts.append(f'<text x="{left + width}" y="{height - 6}" text-anchor="end" {STYLE}>{note}</text>')
    return _svg(left + width + 66, height, parts)


def common_seeds(found: Found, names: Sequence[str]) -> list[str]:
    """Seeds that all of the named experiments have that were measured, in order."""
    each = [set(found[name]["seeds"]) for name in names if name in found]
    return sorted(set.intersection(*each), key=int) if each else []


def curves(found: Found, labels: Mapping[str, str]) -> str:
    """Mean reward by step, over the seeds that all have and smoothed over five steps, as SVG.

    Args:
        found: the results.
        labels: how an experiment is named at its curve; those that were not measured are left out.
    """
    seeds = common_seeds(found, list(labels))
    rewards = {
        name: [found[name]["seeds"][seed]["steps"]["reward_mean"] for seed in seeds] for name in labels if name in found
    }
    lines = {name: line for name, each in rewards.items() if (line := _curve(each))}
    values = [value for line in lines.values() for value in line] or [0.0, 1.0]
    low, high = math.floor(10 * min(values)), math.ceil(10 * max(values))  # in tenths
    high = max(high, low + 1)

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - (10 * value - low) / (high - low))

    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>']
    for tenth in range(low, high + 1):
        at = y(tenth / 10)
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" {STYLE}>{tenth / 10:g}</text>')
    by_end = sorted(lines, key=lambda name: -lines[name][-1])  # labels in the order of the ends of their curves
    for number, name in enumerate(lines):
        line, colour = lines[name], COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{LEFT + WIDTH * at / max(1, len(line) - 1):.1f},{y(value):.1f}" for at, value in enumerate(line)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place, style = 24 + 16 * by_end.index(name), STYLE.replace("#333", colour)
        parts.append(f'<text x="{LEFT + WIDTH + 12}" y="{place}" {style}>{_escaped(labels[name])}</text>')
    longest = max((len(line) for line in lines.values()), default=0)
    axis = f"step of GRPO, 1 to {longest}" if longest else "step of GRPO"
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="{HEIGHT + 28}" text-anchor="middle" {STYLE}>{axis}</text>')
    room = 24 + LETTER * max((len(labels[name]) for name in lines), default=0)
    return _svg(LEFT + WIDTH + room, HEIGHT + 40, parts)


def _curve(seeds: Sequence[Sequence[float | None]]) -> list[float]:
    """Mean over seeds, then over five steps."""
    length = min((len(each) for each in seeds), default=0)
    means = []
    for at in range(length):
        values = [value for each in seeds if (value := each[at]) is not None]
        means.append(sum(values) / len(values) if values else math.nan)
    windows = [[value for value in means[max(0, at - 2) : at + 3] if not math.isnan(value)] for at in range(length)]
    return [sum(window) / len(window) for window in windows if window]


def _escaped(label: str) -> str:
    return label.replace("&", "&amp;").replace("<", "&lt;")


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    background = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        + "\n".join([background, *parts])
        + "\n</svg>\n"
    )
