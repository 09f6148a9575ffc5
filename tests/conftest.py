"""What every test shares: repeatable property tests, small enough for two cores; temporary folders; an empty store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import hypothesis.configuration
import pytest
from support.operator_harness import Harness
from support.s3 import _gateway, gateway  # noqa: F401

from gog import store as stores
from gog.store import Store

pytest_plugins = [
    "support.reaper",  # nothing outlives the session
    "support.workers",  # the order of files for several workers; failures are printed at once
    "support.kube",  # the fixture api_server
    "support.fault_shards",  # --fault-shard
    "support.real_structures",  # the fixtures real_base, real_tokenizer, photographs
]

hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")  # else beside the sources

hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Puts temporary folders, which recipes and killed servers leave behind, into pytest's own, which is removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder of the test's own."""
    return stores.open_store((tmp_path / "store").as_uri())


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """`gog` as a process, with toy programs as stages and servers."""
    made = Harness(tmp_path)
    yield made
    made.close()
