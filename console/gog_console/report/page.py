"""Puts the page together: one file that needs nothing else. Pure: Data -> text.

Safety is in the page itself: its policy allows no network, no script and no style but the two whose hashes it names.
What tools and models wrote travels as JSON that cannot close its element, and reaches the page as text only. So a
trajectory that holds `</script><script>…` is a trajectory that is read, not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from gog_console.report import (
    bars,
    charts,
    difficulty,
    notes,
    overview,
    results,
    selection,
    timeline,
    training,
    viewer_payload,
)
from gog_console.report.markup import Markup, tag
from gog_console.report.model import Data

ASSETS = resources.files("gog_console.report")
STYLES = ("style.css", "viewer.css")
COMPONENT = ("text.js", "trajectory.js", "sides.js", "filters.js", "rows.js", "viewer.js")
"""The viewer of trajectories, which `gog view` shows over another source."""
SCRIPTS = ("readout.js", *COMPONENT, "embedded.js")
PARTS = (
    ("result", "Result"),
    ("stages", "Stages"),
    ("sft", "SFT"),
    ("levels", "Levels"),
    ("grpo", "GRPO"),
    ("evaluation", "Evaluation"),
    ("behaviour", "Behaviour"),
    ("notes", "Notes"),
    ("trajectories", "Trajectories"),
)


def build(data: Data) -> str:
    """The page. Never raises for what data lacks."""
    sft, sft_charts = training.sft(data)
    grpo, grpo_charts = training.grpo(data)
    arms, arm_charts = training.arms(data)
    sections = [
        overview.header(data),
        _navigation(),
        overview.problems(data),
        overview.strip(data),
        timeline.section(data),
        sft,
        difficulty.section(data),
        grpo,
        arms,
        results.evaluation(data),
        results.behaviours(data),
        notes.notes(data),
    ]
    drawn = [*sft_charts, *grpo_charts, *arm_charts]
    viewer = viewer_payload.viewer(data.samples, data.images)
    opening = selection.featured(data.samples)
    payload = {
        "charts": {chart.id: charts.readings(chart) for chart in drawn},
        "featured": viewer_payload.identifier(opening) if opening else "",
        **viewer,
    }
    body = Markup(
        "".join(
            str(part) for part in [bars.hatch(), *sections, _trajectories(data, len(viewer["trajectories"]))] if part
        )
    )
    return _assemble(data.name, body, payload)


def embed(value: Any) -> str:
    """JSON that is inert inside HTML: no tag can open or close, no line separator ends a script, and an address is no link.

    >>> embed("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for plain, safe in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("://", ":\\/\\/")):
        text = text.replace(plain, safe)
    return text


def _assemble(title: str, body: Markup, payload: dict[str, Any]) -> str:
    """The template with its parts in place; each placeholder is replaced once, so contents are never searched."""
    style = "".join(asset(name) for name in STYLES)
    script = "".join(asset(name) for name in SCRIPTS)
    values = {
        "policy": f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'",
        "title": str(tag("title", f"{title} – run report")),
        "style": style,
        "body": str(body),
        "data": embed(payload),
        "script": script,
    }
    text = asset("template.html")
    pieces = []
    for name, value in values.items():
        before, _, text = text.partition(f"{{{{{name}}}}}")
        pieces += [before, value]
    return "".join([*pieces, text])


def _navigation() -> Markup:
    return tag("nav", [tag("a", name, href=f"#{part}") for part, name in PARTS])


def _trajectories(data: Data, shown: int) -> Markup:
    title = tag("h2", "Trajectories")
    if not shown:
        return tag("section", title, tag("p", "No trajectories are recorded yet.", class_="nothing"), id="trajectories")
    lead = (
        f"{shown} of {data.recorded:,} recorded, chosen to show every kind of outcome; `gog view` shows them all. "
        "Keys: j and k to move, g for the group, c to compare, / to search, ? for the rest."
    )
    return tag(
        "section",
        title,
        tag("p", lead, class_="lead"),
        tag("noscript", tag("p", "The viewer needs JavaScript; everything above does not.", class_="nothing")),
        tag("div", id="viewer"),
        id="trajectories",
    )


def asset(name: str) -> str:
    """Text of a style, script or template."""
    return ASSETS.joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
