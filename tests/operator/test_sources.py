"""Sources as volumes of pods, and what a user reads when a pod waits for one."""

from __future__ import annotations

import json

import pytest
import support.operator_golden as golden

from gog import mounts
from gog_operator.build import sources
from gog_operator.build.sources import Source

BASE = Source("base", "pvc://models/qwen", "spec.model.base")


def test_a_claim_is_mounted_read_only_at_its_folder():
    made = sources.of([BASE], {})
    assert made.volumes == [{"name": "source-base", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}]
    assert made.mounts == [{"name": "source-base", "mountPath": "/mnt/gog/base", "readOnly": True, "subPath": "qwen"}]
    assert json.loads(made.environment[mounts.VARIABLE]) == {"pvc://models/qwen": "/mnt/gog/base"}


def test_an_image_is_mounted_as_a_volume():
    made = sources.of([Source("data", "oci://registry/pool:1", "spec.data.uri")], {})
    assert made.volumes == [
        {"name": "source-data", "image": {"reference": "registry/pool:1", "pullPolicy": "IfNotPresent"}}
    ]


def test_what_was_fetched_before_is_found_under_the_address_of_the_manifest():
    made = sources.of([Source("base", "hf://org/m", "spec.model.base")], {"hf://org/m": "pvc://cache/m-1"})
    assert made.mounts[0]["subPath"] == "m-1"
    assert json.loads(made.environment[mounts.VARIABLE]) == {"hf://org/m": "/mnt/gog/base"}


def test_what_a_pod_fetches_itself_is_no_volume():
    assert sources.of([Source("base", "hf://org/m", "spec.model.base")], {}) == sources.Mounted()


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('0/1 nodes are available: persistentvolumeclaim "models" not found.', "create it, or correct the name"),
        ("0/3 nodes are available: 3 node(s) had volume node affinity conflict.", "nodeSelector of the volume's zone"),
        ("0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity.", "all zones reach"),
        ("pod has unbound immediate PersistentVolumeClaims.", "StorageClass that the cluster has"),
        ('Multi-Attach error for volume "pvc-1"', "ReadOnlyMany or ReadWriteMany"),
    ],
)
def test_a_claim_that_pods_wait_for_is_named_with_its_field_and_a_remedy(message, remedy):
    text = sources.explained(message, [BASE], {})
    assert text.startswith("spec.model.base: pvc://models/qwen: ") and remedy in text and message in text


def test_recorded_answers_are_written_to_their_claim_and_only_read_by_a_strict_replay():
    for mode, is_read in (("record", False), ("replay-or-live", False), ("replay-strict", True)):
        stage = golden.stage(tools={"cache": {"mode": mode, "path": "pvc://answers/run/a.sqlite"}})
        (volume,), (mount,) = (made := sources.of(sources.of_stage(stage), {})).volumes, made.mounts
        assert volume["persistentVolumeClaim"] == {"claimName": "answers", "readOnly": is_read}
        assert (mount["subPath"], mount["readOnly"]) == ("run", is_read)
        file = mounts.file("pvc://answers/run/a.sqlite", made.environment)
        assert str(file) == "/mnt/gog/answers/a.sqlite"


def test_another_claim_and_another_trouble_are_not_blamed_on_a_source():
    assert sources.explained('persistentvolumeclaim "other" not found', [BASE], {}) == ""
    assert sources.explained("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", [BASE], {}) == ""


def test_an_image_that_cannot_be_pulled_is_named_with_its_field():
    source = Source("base", "oci://registry/model:1", "spec.model.base")
    text = sources.explained('Failed to pull image "registry/model:1": not found: ErrImagePull', [source], {})
    assert text.startswith("spec.model.base: oci://registry/model:1 cannot be pulled")
