"""Why the volumes of pods cannot be mounted: a Secret, ConfigMap or claim that is missing. Only events report that."""

from __future__ import annotations

from collections.abc import Iterable

from gog_operator.api.meta import Reason
from gog_operator.cluster import paths, pods
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.kube import items
from gog_operator.plan.actions import Blocked

CREATING = ("ContainerCreating", "PodInitializing")
"""Reasons of a container that waits for its volumes, among other things."""


def blocked(api: TranslatedApi, namespace: str, found: Iterable[pods.Pod], prefix: str = "") -> Blocked | None:
    """Why the first pod that waits for its volumes does not get them; None if no event says why.

    Args:
        api: Client of the API server.
        namespace: Namespace of the pods.
        found: The pods.
        prefix: Prefix of the pods' names, which messages omit.
    """
    pod = next((each for each in found if pods.waiting(each) & set(CREATING)), None)
    if pod is None:
        return None
    chosen = f"involvedObject.uid={pod['metadata']['uid']},reason=FailedMount"
    events = items(api, paths.EVENTS.path(namespace), fields=chosen)
    message = next((str(each.get("message") or "") for each in events), "")
    if not message:
        return None
    reason = Reason.SECRET_MISSING if "secret " in message.lower() else Reason.PENDING
    return Blocked(reason, f"pod {pods.short_name(pod, prefix)}: {message}")
