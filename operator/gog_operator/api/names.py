"""Names of children: told from their parent's, and short enough for everything made of them.

A label and a pod's name hold 63 characters. A stage's pod is `<stage>-a<attempt>-trainer-<replica>-0`, which at four
digits each leaves 42 for the stage; a server's pods carry the label `isvc.<endpoint>-predictor`, which leaves 48.
Longer names are cut and end in a hash of the whole, so that two never meet.
"""

from __future__ import annotations

import hashlib
import re

LIMIT = 42
SERVICE_LIMIT = 48


def child(parent: str, suffix: str) -> str:
    return bounded(f"{parent}-{suffix}")


def bounded(name: str, limit: int = LIMIT) -> str:
    if len(name) <= limit:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def job(stage: str, attempt: int) -> str:
    """Of the Volcano Job, its Service and its ConfigMap."""
    return f"{bounded(stage)}-a{attempt}"


def mover(parent: str, command: str) -> str:
    """Of the mover's Job and ConfigMap. parent: the name of a run, or of an attempt's job."""
    return f"{bounded(parent, LIMIT + len('-a9999'))}-{command}"


def service(endpoint: str) -> str:
    """Of the InferenceService."""
    return bounded(endpoint, SERVICE_LIMIT)


def kebab(role: str) -> str:
    """imageSearch -> image-search"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", role).lower()
