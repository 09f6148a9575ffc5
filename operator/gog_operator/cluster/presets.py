"""Reads GoGRuntimes: one by name, when something is created for a run that names it. Nothing else of them is read."""

from __future__ import annotations

from gog_operator.api.meta import Reason
from gog_operator.api.presets import GoGRuntime
from gog_operator.cluster import documents, paths
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.interface import Refused

REMEDY = "ask an administrator to create it, or name another: kubectl get gogruntimes"


def get(api: TranslatedApi, name: str) -> GoGRuntime:
    """The preset of that name.

    Raises:
        Refused: there is none, the operator may not read it, or it is not valid. Callers try again later.
    """
    try:
        body = api.find(paths.RUNTIMES.path(None, name))
    except Refused as refusal:
        message = (
            f"spec.runtime: GoGRuntime {name} cannot be read: {refusal.message} (set presets.enabled of the chart)"
        )
        raise Refused(Reason.RUNTIME_MISSING, message) from None
    if body is None:
        raise Refused(Reason.RUNTIME_MISSING, f"spec.runtime: there is no GoGRuntime {name} ({REMEDY})")
    try:
        return documents.parse(GoGRuntime, body)
    except documents.Unreadable as error:
        raise Refused(Reason.RUNTIME_MISSING, f"spec.runtime: {error.sentence}") from None
