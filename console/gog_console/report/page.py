"""Assembles the page: one file without dependencies. Pure: Data -> text.

The page is safe against its content. Its content security policy allows no network, and only the script and the style
whose hashes it names. Text of tools and models is embedded as JSON that cannot close its element and is inserted as text
only, so a trajectory that contains `</script><script>…` is displayed, not executed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from gog import actions
from gog_console.dashboards import palette
from gog_console.report import (
    bars,
    charts,
    curation,
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
COMPONENT = ("text.js", "trajectory.js", "compare.js", "filters.js", "rows.js", "viewer.js")
"""Scripts of the trajectory viewer, which `gog view` uses with another data source."""
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
    """Renders the page. Missing data never raises."""
    sft, sft_charts = training.sft(data)
    grpo, grpo_charts = training.grpo(data)
    arms, arm_charts = training.arms(data)
    sections = [
        overview.header(data),
        _navigation(),
        overview.problems(data),
        overview.strip(data),
        timeline.section(data),
        curation.section(data),
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
    return assemble(f"{data.name} – run report", body, payload, component() + asset("embedded.js"))


def embed(value: Any) -> str:
    """JSON that is inert inside HTML: it cannot open or close a tag or end a script, and its URLs are not links.

    >>> embed("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for plain, safe in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("://", ":\\/\\/")):
        text = text.replace(plain, safe)
    return text


def component() -> str:
    """The scripts of the trajectory viewer, which find the agent's tags in a constant."""
    tags = f"const CONTROL_TAGS = {embed(actions.CONTROL_TAGS)};\n"
    return tags + "".join(asset(name) for name in COMPONENT)


def assemble(title: str, body: Markup, payload: dict[str, Any], script: str = "") -> str:
    """Fills the template; each placeholder is replaced once, so inserted content is never searched for placeholders.

    Args:
        title: of the page
        body: its content
        payload: what its scripts read
        script: besides that of tooltips
    """
    style = "".join(asset(name) for name in STYLES) + parts_style()
    script = asset("tooltip.js") + script
    values = {
        "policy": f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'",
        "title": str(tag("title", title)),
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


def parts_style() -> str:
    """Colours of the parts of a step, the same as on dashboards."""
    return "".join(f".part-{name} {{ --k: {colour}; }}\n" for name, colour in palette.PARTS.items())


def _navigation() -> Markup:
    return tag("nav", [tag("a", name, href=f"#{part}") for part, name in PARTS])


def _trajectories(data: Data, shown: int) -> Markup:
    title = tag("h2", "Trajectories")
    if not shown:
        return tag("section", title, tag("p", "No trajectories are recorded yet.", class_="nothing"), id="trajectories")
    lead = (
        f"{shown} of {data.recorded:,} recorded, selected to show every kind of outcome; `gog view` shows all of them. "
        "Keys: j and k to move, g for the group, c to compare, / to search, ? for all keys."
    )
    return tag(
        "section",
        title,
        tag("p", lead, class_="lead"),
        tag("noscript", tag("p", "The viewer needs JavaScript; the rest of the page does not.", class_="nothing")),
        tag("div", id="viewer"),
        id="trajectories",
    )


def asset(name: str) -> str:
    """Text of a style, script or template."""
    return ASSETS.joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
