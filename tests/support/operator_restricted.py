"""The Pod Security Standard `restricted` (and what it includes of `baseline`), as a function over a pod's spec.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/. The admission plugin of a real API server is
tested, too (test_build_apiserver.py); this check needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
VOLUMES = {
    *(
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
}
HANDLERS = ("startupProbe", "readinessProbe", "livenessProbe")


def violations(pod: Document) -> list[str]:
    """Violations of the profile in a pod's spec; empty if it passes."""
    return [*_pod(pod), *(f"{each['name']}: {what}" for each in _containers(pod) for what in _container(each, pod))]


def pods(document: Document) -> list[Document]:
    """Specs of the pods of a document."""
    spec = document.get("spec", {})
    if document["kind"] == "InferenceService":
        return [spec["predictor"]]
    if "tasks" in spec:
        return [task["template"]["spec"] for task in spec["tasks"]]
    return [spec["template"]["spec"]] if "template" in spec else []


def _pod(pod: Document) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']}: {', '.join(kinds - VOLUMES)}"
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls"


def _container(container: Document, pod: Document) -> Iterator[str]:
    own, whole = container.get("securityContext", {}), pod.get("securityContext", {})
    both = {**whole, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or not set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
        yield "runs as root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if own.get("procMount", "Default") != "Default" or both.get("windowsOptions", {}).get("hostProcess"):
        yield "procMount or hostProcess"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    if any("host" in container.get(name, {}).get("httpGet", {}) for name in HANDLERS):
        yield "a probe of another host"


def _containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", ()), *pod["containers"]]
