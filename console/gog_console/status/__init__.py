"""Displays of a run: live progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

from gog_console.status.base import Display
from gog_operator.api.objects import Object
from gog_operator.cluster.local import LocalCluster


def choose(cluster: LocalCluster, root: Object) -> Display:
    """The display that fits standard output."""
    if sys.stdout.isatty():
        from gog_console.status.live import LiveDisplay

        return LiveDisplay(cluster, root)
    from gog_console.status.plain import PlainDisplay

    return PlainDisplay(cluster, root)
