"""A Prometheus for a cluster, configured by the real Prometheus operator from the chart's own objects.

The operator turns PodMonitors and PrometheusRules into a configuration and rules. Both are taken from its Secret and
ConfigMap for a Prometheus on the host, because the cluster has no image of one. The host reaches pods by the bridge.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gog_console.dashboards.prometheus import Prometheus
from support import real_prometheus
from support.kube import ApiServer
from support.operator_builders import until

NAME = "watch"
EVERYTHING: dict[str, Any] = {}


@contextmanager
def scraping(cluster: ApiServer, namespace: str, folder: Path, *, targets: int, seconds: int) -> Iterator[Prometheus]:
    """A Prometheus that follows every PodMonitor and PrometheusRule.

    Args:
        cluster: to follow.
        namespace: of the Prometheus object.
        folder: for its files.
        targets: number of scrape configurations to wait for.
        seconds: between two scrapes.
    """
    selectors = ("podMonitorSelector", "podMonitorNamespaceSelector", "ruleSelector", "ruleNamespaceSelector")
    spec = {"replicas": 0, "scrapeInterval": f"{seconds}s", "evaluationInterval": f"{seconds}s"}
    metadata = {"name": NAME, "namespace": namespace}
    wanted = {"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": metadata}
    cluster.apply({**wanted, "spec": spec | dict.fromkeys(selectors, EVERYTHING)})
    until(lambda: len(generated(cluster, namespace).get("scrape_configs", ())) == targets, 60)
    configuration = generated(cluster, namespace)
    for each in configuration["scrape_configs"]:
        for found in each["kubernetes_sd_configs"]:
            found["kubeconfig_file"] = str(cluster.kubeconfig)
    configuration["rule_files"] = [str(path) for path in rules(cluster, namespace, folder)]
    with real_prometheus.serving(folder, yaml.safe_dump(configuration)) as prometheus:
        yield prometheus


def generated(cluster: ApiServer, namespace: str) -> dict[str, Any]:
    """The configuration that the operator has written; {} until it has."""
    output = cluster.kubectl("get", "secret", "-n", namespace, f"prometheus-{NAME}", "--ignore-not-found", "-o", "json")
    data = json.loads(output).get("data", {}) if output else {}
    packed = base64.b64decode(data.get("prometheus.yaml.gz", ""))
    text = gzip.decompress(packed).decode() if packed else "{}"
    return yaml.safe_load(text.replace("$(SHARD)", "0").replace("$(POD_NAME)", NAME))  # its pod's reloader would


def rules(cluster: ApiServer, namespace: str, folder: Path) -> list[Path]:
    output = cluster.kubectl("get", "configmap", "-n", namespace, f"prometheus-{NAME}-rulefiles-0", "-o", "json")
    paths = []
    for name, text in json.loads(output)["data"].items():
        paths.append(folder / name)
        paths[-1].write_text(text)
    return paths
