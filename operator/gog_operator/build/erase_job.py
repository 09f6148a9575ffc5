"""A run that is being deleted -> the Job that erases its artifacts, with the credentials that the run had.

The Job belongs to the run, whose finalizer is removed after it, so that it disappears with the run.
"""

from __future__ import annotations

from typing import Any

from gog_operator.api.objects import GoGRun
from gog_operator.build import store_jobs
from gog_operator.build.platform import Platform

Document = dict[str, Any]


def job(name: str, run: GoGRun, platform: Platform) -> tuple[Document, Document]:
    """The ConfigMap and the Job. name: of both."""
    store, created = run.spec.store, run.metadata.creation_timestamp
    assert store is not None, "a run on a cluster names a store"
    assert created is not None, "the server has created it"
    config = {
        "store": store.as_given(),
        "run": run.name,
        "uid": run.metadata.uid,
        "since": created.isoformat(),
    }
    configmap, body = store_jobs.job(
        name,
        run,
        "erase",
        config,
        store,
        platform,
        scheduling=run.spec.scheduling,
        service_account=run.spec.service_account_name,
        patches=run.spec.pods,
    )
    store_jobs.serve_progress(body, platform)
    return configmap, body
