"""What a person sees of a run: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys

from gog_operator.api.objects import Object
from gog_operator.cluster.local import LocalCluster
from gog_operator.display.base import Display


def choose(cluster: LocalCluster, root: Object) -> Display:
    if sys.stdout.isatty():
        from gog_operator.display.live import LiveDisplay

        return LiveDisplay(cluster, root)
    from gog_operator.display.plain import PlainDisplay

    return PlainDisplay(cluster, root)
