"""Displays of a run: live progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from gog_console.status.base import Display
from gog_operator.api.objects import Object
from gog_operator.cluster.local import LocalCluster


def choose(cluster: LocalCluster, root: Object, estimates: Mapping[str, float]) -> Display:
    """The display that fits standard output. estimates: seconds by store key, from `gog_console.estimate`."""
    if sys.stdout.isatty():
        from gog_console.status.live import LiveDisplay

        return LiveDisplay(cluster, root, estimates)
    from gog_console.status.plain import PlainDisplay

    return PlainDisplay(cluster, root, estimates)
