"""The steps to a v1beta1 on a real API server, with conversion strategy None: what was written comes back from each version."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.operator_builders import for_cluster, until

from gog_operator.api import crds
from gog_operator.api.objects import KINDS

pytestmark = pytest.mark.apiserver

GROUP = "next.gog.dev"
"""A group of the test's own, because a stored version cannot be withdrawn from a definition that others use."""
ALPHA, BETA = "v1alpha1", "v1beta1"
SAMPLES = sorted((Path(__file__).parents[2] / "manifests/samples").glob("*.yaml"))
PRECISE = for_cluster(
    name="precise",
    stages={
        "sft": {"learningRate": 3e-5, "clipGradNorm": 1, "optimizer": {"betas": [0.9, 0.999], "weightDecay": 1e-12}},
        "grpo": {"learningRate": 2e-06, "klCoef": 0.001, "temperature": 1.0, "clip": 0.2, "clipHigh": 0.28},
    },
    tools={"backoffSeconds": 0.05, "usdPerCall": 0.0123456789012345, "budget": {"usd": 1e6}},
    endpoints={"judge": {"failures": {"rate": 0.1}}},
)
"""A run with the numbers whose representation might change."""


def definition(kind: str, *, storage: str, served: tuple[str, ...]) -> dict[str, Any]:
    crd = crds.definition(KINDS[kind])
    plural = crd["spec"]["names"]["plural"]
    (present,) = crd["spec"]["versions"]
    versions = [
        {**copy.deepcopy(present), "name": name, "storage": name == storage, "served": name in served}
        for name in (ALPHA, BETA)
    ]
    names = {key: each for key, each in crd["spec"]["names"].items() if key not in ("shortNames", "categories")}
    spec = {**crd["spec"], "group": GROUP, "names": names, "versions": versions, "conversion": {"strategy": "None"}}
    return {**crd, "metadata": {"name": f"{plural}.{GROUP}"}, "spec": spec}


def objects() -> list[dict[str, Any]]:
    """Every sample of our kinds, and a run with precise numbers, in the test's group."""
    samples = [yaml.safe_load(path.read_text()) for path in SAMPLES]
    found = [each for each in [*samples, PRECISE] if each["kind"] in KINDS]
    return [{**each, "apiVersion": f"{GROUP}/{ALPHA}"} for each in found]


class Versions:
    """The definitions on a server, in one step of the plan after another."""

    def __init__(self, server: Any) -> None:
        self.server, self.namespace = server, server.namespace("versions")

    def define(self, *, storage: str, served: tuple[str, ...]) -> None:
        self.server.apply(*(definition(kind, storage=storage, served=served) for kind in KINDS))
        names = [f"crd/{definition(kind, storage=storage, served=served)['metadata']['name']}" for kind in KINDS]
        self.server.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        for version in served:
            until(
                lambda version=version: (
                    "gogruns" in self.kubectl("get", "--raw", f"/apis/{GROUP}/{version}", check=False)
                )
            )

    def kubectl(self, *args: str, **more: Any) -> str:
        text: str = self.server.kubectl("-n", self.namespace, *args, **more)
        return text

    def read(self, body: dict[str, Any], version: str) -> dict[str, Any]:
        place = f"{body['kind'].lower()}s.{version}.{GROUP}"
        found: dict[str, Any] = json.loads(self.kubectl("get", place, body["metadata"]["name"], "-o", "json"))
        return found

    def replace(self, body: dict[str, Any]) -> None:
        self.kubectl("replace", "-f", "-", input=json.dumps(body))


@pytest.fixture(scope="module")
def versions(api_server: Any) -> Iterator[Versions]:
    made = Versions(api_server)
    yield made
    api_server.kubectl(
        "delete", "crd", *(definition(kind, storage=ALPHA, served=(ALPHA,))["metadata"]["name"] for kind in KINDS)
    )


def test_every_object_survives_the_way_to_another_storage_version_unchanged(versions):
    versions.define(storage=ALPHA, served=(ALPHA, BETA))
    written = {}
    for body in objects():
        versions.kubectl("create", "--validate=strict", "-f", "-", input=json.dumps(body))
        written[body["kind"], body["metadata"]["name"]] = versions.read(body, ALPHA)
    for body in objects():
        one = written[body["kind"], body["metadata"]["name"]]
        other = versions.read(body, BETA)
        assert other == {**one, "apiVersion": f"{GROUP}/{BETA}"}, "served by v1beta1, stored as v1alpha1"
        versions.replace(other)
        assert unversioned(versions.read(body, ALPHA)) == unversioned(one), "a client of v1beta1 changes nothing"
    versions.define(storage=BETA, served=(ALPHA, BETA))
    for body in objects():
        versions.replace(versions.read(body, BETA))
    for kind in KINDS:
        name = definition(kind, storage=BETA, served=(BETA,))["metadata"]["name"]
        patch = json.dumps({"status": {"storedVersions": [BETA]}})
        versions.kubectl("patch", "crd", name, "--subresource=status", "--type=merge", "-p", patch)
    versions.define(storage=BETA, served=(BETA,))
    for body in objects():
        assert unversioned(versions.read(body, BETA)) == unversioned(written[body["kind"], body["metadata"]["name"]])


def unversioned(body: dict[str, Any]) -> tuple[Any, int]:
    """Spec and generation, which stand for what a user wrote."""
    return body["spec"], body["metadata"]["generation"]


def test_the_numbers_of_a_spec_are_those_that_were_written(versions):
    versions.define(storage=BETA, served=(BETA,))
    body = {**PRECISE, "apiVersion": f"{GROUP}/{BETA}", "metadata": {"name": "precise-too"}}
    versions.kubectl("create", "-f", "-", input=json.dumps(body))
    read = versions.read(body, BETA)["spec"]
    for section in ("stages", "tools", "endpoints"):
        assert read[section] == PRECISE["spec"][section]
