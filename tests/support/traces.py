"""Configurations and counts of traces."""

from __future__ import annotations

from gog import metrics
from gog.spec import StageConfig
from gog.tracing import ids

STAGE = ids.root("uid").child("grpo", 1)


def spans(outcome):
    return metrics.definitions.TRACE_SPANS.labels(outcome)._value.get()


def config(endpoint, **settings):
    body = {"model": {"base": "tiny"}, "data": {"path": "/d"}, "store": {"uri": "file:///s"}, "stage": "grpo"}
    return StageConfig.model_validate(body | {"traces": {"endpoint": endpoint, **settings}})


def log_nothing(line):
    raise AssertionError(line)
