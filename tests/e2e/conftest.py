"""The cluster of this machine, where one is up."""

from __future__ import annotations

import pytest
from support.installed_chart import LAST_SCRAPE_SECONDS, RUN, install
from support.kube import ApiServer


@pytest.fixture(scope="session")
def cluster() -> ApiServer:
    if not (RUN / "s3.env").is_file():
        pytest.skip("no cluster is up: `make e2e` or `make e2e-vllm` starts one")
    return ApiServer(RUN, 6443)


@pytest.fixture(scope="session")
def installed(cluster: ApiServer) -> ApiServer:
    """The cluster with the chart, a namespace for runs and the store's credentials."""
    monitoring = {"podMonitor": True, "prometheusRule": True, "lastScrapeSeconds": LAST_SCRAPE_SECONDS}
    install(cluster, "operator", "trainer", "tools", monitoring=monitoring)
    return cluster
