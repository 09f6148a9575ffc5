"""The dataset of a run, which its stages and ToolServers share: made by a job of that very run, and of no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import support.operator_golden as golden
from support.memory_api import MemoryApi

from gog_operator.build import meta
from gog_operator.cluster import paths, store_jobs
from gog_operator.cluster.remote import RemoteCluster

MADE = {store_jobs.RESULT: json.dumps({"dataset": "data/1"})}
RUN = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "name": "world", "uid": golden.run().metadata.uid}


def stage(owner: dict[str, Any]) -> Any:
    spec = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": golden.STORE}
    return golden.thing("SFTStage", "world-sft", spec, ownerReferences=[owner])


@pytest.fixture
def cluster() -> RemoteCluster:
    """A namespace in which the run `world` has made its dataset."""
    api = MemoryApi()
    api.put(paths.JOBS, {"kind": "Job", "metadata": meta.head("world-data", golden.run(), "store-job", **MADE)})
    return RemoteCluster(api, "research", golden.PLATFORM)


def test_a_stage_reads_the_dataset_of_its_run(cluster):
    view = cluster.data(stage(RUN))
    assert (view.state, view.spec and view.spec.uri) == ("ready", golden.STORE["uri"])


@pytest.mark.parametrize(
    "owner", [RUN | {"uid": "uid-of-the-next"}, RUN | {"apiVersion": "example.org/v1"}], ids=["uid", "group"]
)
def test_the_dataset_of_a_deleted_run_or_of_another_group_s_is_none_of_the_stage_s(cluster, owner):
    """A run that is deleted and applied again, perhaps with another store, meets its predecessor's job for a while."""
    assert cluster.data(stage(owner)).state == "absent"
