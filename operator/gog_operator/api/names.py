"""Names of children: derived from the parent's name, and short enough for everything that is named after them.

A label and a pod's name hold 63 characters. A stage's pod is `<stage>-a<attempt>-trainer-<replica>-0`, which at four
digits each leaves 42 for the stage; a server's pods carry the label `isvc.<tool server>-predictor`, which leaves 48. A
longer name is cut and ends in a hash of the whole, so that two never collide.
"""

from __future__ import annotations

import hashlib
import random

LIMIT = 42
"""Longest name of a stage, in characters."""
SERVICE_LIMIT = 48
"""Longest name of a ToolServer."""
RUN_LIMIT = 40
"""Longest name of a run."""
MARK = 4
"""Characters of a job's name that distinguish the stage from an earlier one of its name."""
PRESET_LIMIT = 63
"""Longest name of a preset, from which no other name derives."""
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
"""A generated name ends as Kubernetes ends it: in five of these, without vowels or digits that look like letters."""


def longest(kind: str) -> int:
    """Longest name of an object of a kind, in characters."""
    return {"GoGRun": RUN_LIMIT, "GoGRuntime": PRESET_LIMIT, "ToolServer": SERVICE_LIMIT}.get(kind, LIMIT)


def longest_prefix(kind: str) -> int:
    """Longest `metadata.generateName` of an object of a kind, in characters."""
    return longest(kind) - _SUFFIX_LENGTH


def generated(prefix: str, rng: random.Random) -> str:
    """A name that starts with `metadata.generateName`."""
    return prefix + "".join(rng.choices(_SUFFIX, k=_SUFFIX_LENGTH))


def child(parent: str, suffix: str) -> str:
    """Name of a run's stage or ToolServer: `world-grpo`."""
    return bounded(f"{parent}-{suffix}")


def bounded(name: str, limit: int = LIMIT) -> str:
    """A name of at most `limit` characters."""
    if len(name) <= limit:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def job(stage: str, attempt: int, uid: str = "") -> str:
    """Name of an attempt's job, of its Service and of its ConfigMap.

    Args:
        stage: Name of the stage.
        attempt: Number of the attempt.
        uid: uid of the stage, so that a stage which is deleted and created again never meets its predecessor's job; empty
            on one machine, where jobs end with their run.
    """
    if not uid:
        return f"{bounded(stage)}-a{attempt}"
    digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
    mark = "".join(_SUFFIX[each % len(_SUFFIX)] for each in digest[:MARK])
    return f"{bounded(stage, LIMIT - MARK - 1)}-{mark}-a{attempt}"


def store_job(parent: str, command: str) -> str:
    """Name of a store job's Job and ConfigMap. parent: name of a run, or of an attempt's job."""
    return f"{bounded(parent, LIMIT + len('-a9999'))}-{command}"


def service(tool_server: str) -> str:
    """Name of a ToolServer's InferenceService."""
    return bounded(tool_server, SERVICE_LIMIT)
