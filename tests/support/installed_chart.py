"""The chart on the cluster of this machine, installed as by a user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from support.kube import CLUSTER, ROOT, ApiServer

RUN = Path(os.environ.get("GOG_CLUSTER_RUN", CLUSTER / "run"))
"""State of the cluster that is up."""
SYSTEM, NAMESPACE = "gog-system", "research"
"""Namespaces of the operator and of runs."""
LAST_SCRAPE_SECONDS = 15


def images(*names: str) -> dict[str, str]:
    """Images that `tests/e2e/prepare` builds."""
    return {name: f"localhost/gog-{name}:{os.environ.get('TAG', 'test')}" for name in names}


def install(cluster: ApiServer, *images_of: str, minutes: int = 3, **values: Any) -> None:
    """Namespaces of the restricted level, the chart, and the store's credentials where runs are.

    Args:
        cluster: the cluster.
        images_of: programs whose images are set.
        minutes: to wait for the operator.
        values: further ones of the chart.
    """
    for name in (SYSTEM, NAMESPACE):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    given = {"watch": {"namespaces": [NAMESPACE]}, "images": images(*images_of), **values}
    line = [CLUSTER / "bin/helm", "upgrade", "--install", "gog", str(ROOT / "charts/gog"), "-n", SYSTEM, "-f", "-"]
    done = subprocess.run(
        [*line, "--wait", f"--timeout={minutes}m"],
        input=yaml.safe_dump(given),
        text=True,
        capture_output=True,
        env=os.environ | {"KUBECONFIG": str(RUN / "admin.kubeconfig")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = dict(line.split("=", 1) for line in (RUN / "s3.env").read_text().split())
    keys = {name: kept[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gog-s3", "namespace": NAMESPACE}}
    cluster.apply({**secret, "stringData": keys})
