"""The sample policy of a cluster's administrator names every field by which a tenant chooses a Secret or an image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gog_operator.api import crds
from gog_operator.api.objects import KINDS

POLICY = (Path(__file__).parents[2] / "manifests/samples/admission-policy.yaml").read_text()
CHOICES = re.compile(r"(?i)(secret(name)?|endpointSecrets|image|(trainer|tools)image|(secretRef|secretKeyRef).name)$")
PULLED = ("pods.[].imagePullSecrets.[].name", "pods.[].volumes.[].image.reference", "images.trainer", "images.tools")
COPIED = re.compile(r"endpoints\.\w+\.image|agent\.(trainer|tools)Image|agent\.(model|endpoints|tools)\..*")
"""Fields that are copied into the ToolServers that the operator creates, which the policy limits as well."""
WHOLE = re.compile(r"pods\.\[\]\.volumes\.\[\]\.(secret|image)")
"""Fields that hold another one that is listed here."""


def fields(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    yield ".".join(path)
    for name, each in (schema.get("properties") or {}).items():
        yield from fields(each, (*path, name))
    if schema.get("type") == "array":
        yield from fields(schema["items"], (*path, "[]"))


def chosen() -> list[str]:
    """Paths of the fields, of any kind."""
    found = {each for kind in KINDS.values() for each in fields(crds.schema(kind)["properties"]["spec"])}
    return sorted(each for each in found if (CHOICES.search(each) or each in PULLED) and not WHOLE.fullmatch(each))


def accessor(path: str) -> str:
    """How the policy reads a field: from the object, or from one of its patches or volumes."""
    *lists, last = path.split(".[].")
    parts = last.split(".")
    if lists:
        holder = lists[-1].rpartition(".")[2]
        return f".?{'.?'.join(parts)}" if holder != "imagePullSecrets" else "patch.?imagePullSecrets"
    return "object.spec.?" + ".?".join(parts)


@pytest.mark.parametrize("path", [each for each in chosen() if not COPIED.fullmatch(each)])
def test_the_sample_policy_limits_every_secret_and_image_that_a_tenant_may_name(path):
    assert f"{accessor(path)}.orValue(" in POLICY


@pytest.mark.parametrize("source", ["model.?base", "base", "data.?uri", "endpoints.?judge.?base"])
def test_the_sample_policy_limits_images_that_are_volumes_of_models_and_datasets(source):
    assert f"object.spec.?{source}.orValue(" in POLICY
