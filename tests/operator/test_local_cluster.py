"""One machine as a cluster, and stores outside of it."""

from __future__ import annotations

import pytest
from support import s3

from gog import store
from gog_operator.cluster.local import LocalCluster


@pytest.fixture
def elsewhere(tmp_path):
    """A second S3 server, with a bucket of the same name."""
    running = s3.Gateway(tmp_path / "elsewhere").start()
    yield running
    running.stop()


def test_one_address_at_two_servers_is_two_stores(gateway, elsewhere, tmp_path):
    here, there = gateway.spec("one-address"), elsewhere.spec("one-address")
    weights = tmp_path / "weights"
    weights.write_text("sft 7")
    store.open_store(there).publish("sft", 7, {"weights": weights}, meta={"complete": True})
    cluster = LocalCluster(tmp_path / "run")
    assert cluster.checkpoint(here, "sft") is None
    found = cluster.checkpoint(there, "sft")
    assert found is not None and found.ref == "sft/7"
