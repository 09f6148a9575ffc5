"""`gog operator`: reconciles custom resources; the command of the operator's pod."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from pathlib import Path

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SPARE = 3
"""Connections besides those of the workers: lease, resync, and one in reserve."""


def main(given: argparse.Namespace) -> int:
    from gog_operator import log_format, main
    from gog_operator.build.platform import Platform
    from gog_operator.cluster import admin_key, kube

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if given.log_format == "json":
        logging.getLogger().handlers[0].setFormatter(log_format.Json())
    home = OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.exists() else "default"
    api = kube.connect(given.workers + SPARE)
    platform = Platform.from_environment(os.environ)
    key = admin_key.ensure(api, given.lease_namespace or home, f"{given.lease_name}-key")
    settings = main.Settings(
        namespaces=(None,) if given.all_namespaces else tuple(dict.fromkeys(given.namespace or [home])),
        home=given.lease_namespace or home,
        lease=given.lease_name,
        platform=dataclasses.replace(platform, admin_key=key),
        workers=given.workers,
        resync=given.resync,
        port=given.port,
        metrics_port=given.metrics_port,
    )
    main.Operator(api, settings).run()
    return 0
