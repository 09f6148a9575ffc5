"""Writes the report of a run into its store: the same page and summary as in a run folder."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from gog import store
from gog_console import report, resources, run_span
from gog_console.report import gather
from gog_operator.store_jobs.config import Report

PAGE, NUMBERS = f"{report.FOLDER}/index.html", f"{report.FOLDER}/summary.json"


def write(config: Report, own: store.Store, now: datetime) -> dict[str, Any]:
    """Writes summary and page, replacing older ones.

    The page is written last, because its presence marks a complete report.

    Args:
        config: objects and events of the run.
        own: the run's store.
        now: the current time.

    Returns:
        {"report": URI of the page}.

    Raises:
        UserError: the objects or the store cannot be used.
        store.Unavailable: the store does not answer.
    """
    found, problems = resources.of_documents(config.objects)
    root = resources.root_of(found)
    data = gather.collect(found, own, now=now, name="run", problems=problems, events=list(config.events))
    rendered = report.render(data)
    own.put_object(NUMBERS, rendered.summary.encode(), "application/json")
    page = own.put_object(PAGE, rendered.html.encode(), "text/html; charset=utf-8")
    if root is not None:
        run_span.export(root, now, lambda line: print(line, file=sys.stderr))
    return {"report": page}
