"""`gog dashboards`: writes Grafana dashboards and Prometheus rules, or draws the dashboards from a Prometheus server."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from gog.errors import unwritable
from gog_console.dashboards import boards, rules

RULES = "rules.yaml"


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir)
    if given.prometheus:
        files = drawn(given.prometheus, time.time(), given.hours)
    else:
        files = {name: text.encode() for name, text in boards.files().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if not given.prometheus:
            Path(given.rules or folder / RULES).write_text(rules.text(), encoding="utf-8")
    except OSError as error:
        raise unwritable(error, error.filename or folder) from None
    print(f"{', '.join(files)} in {folder}")
    return 0


def drawn(url: str, now: float, hours: float) -> dict[str, bytes]:
    """PNG images of the dashboards over the last hours of a Prometheus server: {file name: bytes}."""
    from gog_console.dashboards import images, prometheus

    return images.of_all(prometheus.Prometheus(url), now - hours * 3600, now)
