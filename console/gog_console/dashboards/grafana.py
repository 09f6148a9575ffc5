"""Converts panels to Grafana's JSON. Pure.

No maintained library follows Grafana's versions, so the JSON is written directly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gog_console.dashboards import palette
from gog_console.dashboards.panels import Dashboard, Panel, Query, Row

Json = dict[str, Any]
SCHEMA = 39
"""Schema of Grafana 10; later versions migrate it."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
TYPES = {"lines": "timeseries", "number": "stat", "bars": "bargauge", "states": "state-timeline"}
UNITS = {
    "none": "none", "share": "percentunit", "seconds": "s", "bytes_per_second": "Bps", "bytes": "bytes", "per_second": "short",
    "dollars": "currencyUSD", "dollars_per_hour": "currencyUSD", "count": "short",
}  # fmt: skip


def dashboard(board: Dashboard) -> Json:
    return {
        "uid": f"gog-{board.name}",
        "title": board.title,
        "description": board.description,
        "tags": ["gog"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,  # shared cross-hair
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "title": "gog", "tags": ["gog"], "asDropdown": False, "includeVars": True,
             "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": ""}
        ],
        "templating": {"list": [_source(), *(_variable(*each) for each in board.variables.items())]},
        "annotations": {"list": []},
        "panels": list(_laid_out(board)),
    }  # fmt: skip


def _source() -> Json:
    return {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1}


def _variable(name: str, metric: str) -> Json:
    """A variable for label values. "All" also matches series without the label, such as those of one machine."""
    inside = metric if name == "namespace" else f'{metric}{{namespace=~"$namespace"}}'
    definition = f"label_values({inside}, {name})"
    return {
        "type": "query", "name": name, "label": name.capitalize(), "datasource": SOURCE, "definition": definition,
        "query": {"query": definition, "refId": "variable"}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _laid_out(board: Dashboard) -> Iterator[Json]:
    """Rows and panels with positions in Grafana's grid, which is 24 columns wide."""
    y, number = 0, 0
    for row in board.rows:
        number += 1
        yield {"type": "row", "id": number, "title": row.title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}  # fmt: skip
        for panel, place in places(row, y + 1):
            number += 1
            yield {"id": number, "gridPos": place, **_panel(panel)}
            y = max(y, place["y"] + place["h"])


def places(row: Row, top: int = 0) -> Iterator[tuple[Panel, dict[str, int]]]:
    """Each panel of a row with its position {x, y, w, h}; panels that do not fit wrap."""
    x, y, tallest = 0, top, 0
    for panel in row.panels:
        if x + panel.width > 24:
            x, y, tallest = 0, y + tallest, 0
        yield panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}
        x, tallest = x + panel.width, max(tallest, panel.height)


def _panel(panel: Panel) -> Json:
    return {
        "type": TYPES[panel.kind],
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(query, chr(ord("A") + i), panel) for i, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [*_colours(panel), *_band(panel)]},
        "options": _options(panel),
    }


def _target(query: Query, letter: str, panel: Panel) -> Json:
    return {"refId": letter, "datasource": SOURCE, "editorMode": "code", "expr": query.expr,
            "legendFormat": query.legend or "__auto", "instant": panel.instant, "range": not panel.instant}  # fmt: skip


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": UNITS[panel.unit],
        "color": {"mode": "thresholds" if panel.kind in ("number", "states") else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
        "custom": _custom(panel),
    }
    if panel.absent:
        defaults["noValue"] = panel.absent
    if panel.low is not None and panel.kind != "states":
        defaults["min"] = panel.low
    if panel.high is not None:
        defaults["max"] = panel.high
    if panel.states:
        words = {f"{value:g}": {"text": word, "color": colour, "index": i}
                 for i, (value, word, colour) in enumerate(panel.states)}  # fmt: skip
        defaults["mappings"] = [{"type": "value", "options": words}]
    return defaults


def _steps(panel: Panel) -> list[Json]:
    calm = palette.BLUE if panel.kind == "number" and panel.limit is None else palette.GREEN
    steps: list[Json] = [{"color": calm, "value": None}]
    if panel.limit is not None:
        steps.append({"color": palette.RED, "value": panel.limit})
    return steps


def _custom(panel: Panel) -> Json:
    if panel.kind == "states":
        return {"fillOpacity": 80, "lineWidth": 0}
    if panel.kind != "lines":
        return {}
    return {
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 2 if not panel.stacked else 1,
        "fillOpacity": 45 if panel.stacked else 6, "showPoints": "never", "spanNulls": False,
        "axisLabel": {"dollars_per_hour": "per hour", "per_second": "per second"}.get(panel.unit, ""),
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.limit is not None else "off"},
    }  # fmt: skip


def _options(panel: Panel) -> Json:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    if panel.kind == "number":
        return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "area", "textMode": "value"}
    if panel.kind == "bars":
        return {"reduceOptions": reduced, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True}
    if panel.kind == "states":
        return {"mergeValues": True, "showValue": "auto", "rowHeight": 0.7, "legend": legend}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _colours(panel: Panel) -> Iterator[Json]:
    for word, value in panel.colours.items():
        yield _override("byRegexp", rf"/\b{re.escape(word)}\b/", color={"mode": "fixed", "fixedColor": value})


def _band(panel: Panel) -> Iterator[Json]:
    """Overrides for a band: the upper series is filled down to the lower one. Grafana matches full series names."""
    if not panel.band:
        return
    above, below = (query.legend for query in panel.queries[1:3])
    edge = {"custom.lineWidth": 0, "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False}}
    yield _override("byName", above, **edge, **{"custom.fillOpacity": 20, "custom.fillBelowTo": below})
    yield _override("byName", below, **edge, **{"custom.fillOpacity": 0})


def _override(matcher: str, what: str, **properties: object) -> Json:
    return {
        "matcher": {"id": matcher, "options": what},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }
