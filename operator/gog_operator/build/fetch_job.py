"""A run's sources -> the Job that fetches them into the model cache, once, before its first stage.

The Job alone mounts the claim for writing, and has the token of the Hub. It may take a day, and continues where an
earlier pod was killed.
"""

from __future__ import annotations

from typing import Any

from gog import hub
from gog_operator.api.objects import GoGRun
from gog_operator.build import children, pods, store_jobs
from gog_operator.build.platform import Platform

CACHE = "/mnt/gog/cache"
"""Where the Job mounts the claim."""
DEADLINE_SECONDS = 24 * 3600
"""Seconds that the Job may take."""
BACKOFF_LIMIT = 6
"""Retries of a failed pod: the Hub may be down for a while."""
FETCHED = (hub.PREFIX, "s3://")
"""Beginnings of addresses that are fetched."""

Document = dict[str, Any]


def claim(run: GoGRun, platform: Platform) -> str:
    """The claim that the run's sources are fetched into; empty where each pod fetches them."""
    return run.spec.model_cache.claim_name if run.spec.model_cache is not None else platform.model_cache


def wanted(run: GoGRun, platform: Platform) -> dict[str, str]:
    """Address of each source that is fetched, by what it is; empty without a cache."""
    if not claim(run, platform):
        return {}
    given = {"base": run.spec.model.base, "judge": children.judge(run).base, "data": run.spec.data.uri or ""}
    found = {what: address for what, address in given.items() if address.startswith(FETCHED)}
    if found.get("judge") == found.get("base"):
        found.pop("judge", None)
    return found


def job(name: str, run: GoGRun, platform: Platform) -> tuple[Document, Document]:
    """The ConfigMap and the Job. name: of both."""
    store = run.spec.store
    assert store is not None, "a run on a cluster names a store"
    config = {"store": store.as_given(), "root": CACHE}
    configmap, body = store_jobs.job(
        name,
        run,
        "fetch",
        config | wanted(run, platform),
        store,
        platform,
        scheduling=run.spec.scheduling,
        service_account=run.spec.service_account_name,
        patches=run.spec.pods,
    )
    body["spec"] |= {"activeDeadlineSeconds": DEADLINE_SECONDS, "backoffLimit": BACKOFF_LIMIT}
    pod = body["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    named = (run.spec.model.secret_name, run.spec.data.secret_name, children.judge(run).base_secret_name)
    tokens = [source for secret in sorted({each for each in named if each}) for source in pods.hub_token(secret)]
    store_jobs.serve_progress(body, platform)
    container["envFrom"] = [*container.get("envFrom", ()), *tokens]
    container["volumeMounts"].append({"name": "cache", "mountPath": CACHE})
    pod["volumes"].append({"name": "cache", "persistentVolumeClaim": {"claimName": claim(run, platform)}})
    return configmap, body
