"""Rules of where a dataset is, and of the token that it is fetched with (gog_operator.api.rules)."""

from __future__ import annotations

import re
from typing import Any

from gog import hub, mounts
from gog_operator.api.rule import FORBIDDEN, Rule, has


def is_of_hub(data: Any) -> bool:
    """Whether a dataset is one of the Hugging Face Hub."""
    return has(data, "uri") and data.uri.startswith(hub.PREFIX)


def _is_volume(data: Any) -> bool:
    return has(data, "uri") and data.uri.startswith(mounts.PREFIXES)


RULES = (
    Rule(
        "[has(self.world), has(self.path), has(self.uri)].filter(given, given).size() == 1",
        "give exactly one of world and uri: the embedded world with data: {world: {}}, or a dataset with "
        "data: {uri: 's3://bucket/prefix'}",
    ),
    Rule(
        "!has(self.path)",
        "a pod has no folder of your machine: publish the dataset with gog move push FOLDER s3://bucket/prefix, and "
        "write data: {uri: 's3://bucket/prefix'}",
        ".path",
        FORBIDDEN,
        check=lambda data: not has(data, "path"),
        cluster=True,
    ),
    Rule(
        "!has(self.format) || (has(self.uri) && (self.uri.startsWith('hf://') || self.uri.startsWith('pvc://') || "
        "self.uri.startsWith('oci://')))",
        "a dataset in a store has gog's own format: convert it with gog move push FOLDER s3://bucket/prefix "
        "--format FORMAT",
        ".format",
        FORBIDDEN,
        check=lambda data: not has(data, "format") or is_of_hub(data) or _is_volume(data),
        cluster=True,
    ),
    Rule(
        "!has(self.uri) || self.uri.startsWith('s3://') || self.uri.startsWith('hf://') || "
        "self.uri.startsWith('pvc://') || self.uri.startsWith('oci://')",
        "should start with s3://, hf://datasets/, pvc:// or oci://, because a pod has no folder of your machine: publish "
        "the dataset with gog move push FOLDER s3://bucket/prefix",
        ".uri",
        check=lambda data: not has(data, "uri") or data.uri.startswith(("s3://", hub.PREFIX, *mounts.PREFIXES)),
        cluster=True,
    ),
    Rule(
        f"!has(self.uri) || !(self.uri.startsWith('pvc://') || self.uri.startsWith('oci://')) || "
        f"self.uri.matches('{mounts.PVC_FORM}') || self.uri.matches('{mounts.OCI_FORM}')",
        "should be pvc://claim/folder, or oci://registry/repository:tag[@digest][#folder]",
        ".uri",
        check=lambda data: (
            not _is_volume(data) or any(re.fullmatch(form, data.uri) for form in (mounts.PVC_FORM, mounts.OCI_FORM))
        ),
    ),
    Rule(
        f"!has(self.uri) || !self.uri.startsWith('hf://') || self.uri.matches('{hub.DATASET_FORM}')",
        "should be hf://datasets/org/name[@revision][/folder], a slash of the revision as %2F",
        ".uri",
        check=lambda data: not is_of_hub(data) or re.fullmatch(hub.DATASET_FORM, data.uri) is not None,
    ),
    Rule(
        "!has(self.secretName) || (has(self.uri) && self.uri.startsWith('hf://'))",
        "only a dataset at hf:// is fetched with HF_TOKEN: remove secretName; one at s3:// is read with "
        "store.secretName",
        ".secretName",
        FORBIDDEN,
        check=lambda data: not has(data, "secret_name") or is_of_hub(data),
    ),
)
ONE_TOKEN = Rule(
    "!has(self.model.secretName) || !has(self.data.secretName) || self.model.secretName == self.data.secretName",
    "a pod has one HF_TOKEN: name the Secret of model.secretName, whose token must reach both repositories",
    ".data.secretName",
    check=lambda spec: (
        not (has(spec.model, "secret_name") and has(spec.data, "secret_name"))
        or spec.model.secret_name == spec.data.secret_name
    ),
)
"""Of what has a model and a dataset."""
