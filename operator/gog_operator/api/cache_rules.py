"""Rules about where recorded answers are."""

from __future__ import annotations

import re

from gog import mounts
from gog.spec import recording_paths
from gog_operator.api.rule import Rule, has

RULES = (
    Rule(
        f"!has(self.path) || !self.path.startsWith('pvc://') || "
        f"(self.path.matches('{mounts.PVC_FORM}') && self.path.matches('^pvc://[^/]+/.'))",
        "should be a file, or one of a claim: pvc://claim/answers.sqlite",
        ".path",
        check=lambda cache: (
            not has(cache, "path")
            or not cache.path.startswith(mounts.PVC)
            or (re.fullmatch(mounts.PVC_FORM, cache.path) and re.match("pvc://[^/]+/.", cache.path)) is not None
        ),
    ),
    Rule(
        f"!has(self.path) || self.path.matches('{recording_paths.PREFIX_FORM}') || self.path.startsWith('pvc://') || "
        "!(self.path.contains('://') || self.path.endsWith('/'))",
        f"is no place of recorded answers: {recording_paths.REMEDY}",
        ".path",
        check=lambda cache: not has(cache, "path") or not recording_paths.fault(cache.path),
    ),
    Rule(
        "!has(self.path) || !self.path.startsWith('file://')",
        "should be s3://bucket/prefix or pvc://claim/answers.sqlite, because pods share no folder",
        ".path",
        check=lambda cache: not has(cache, "path") or not cache.path.startswith("file://"),
        cluster=True,
    ),
)
