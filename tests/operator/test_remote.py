"""Runs on a real API server: the operator's passes, and actors in place of Volcano, KServe and kubelets."""

from __future__ import annotations

import pytest
from remote_workshop import Workplace

pytestmark = pytest.mark.apiserver


@pytest.fixture
def place(api_server):
    return Workplace(api_server)


def test_a_run_goes_from_a_manifest_to_complete(place):
    place.apply()
    place.until(lambda: place.condition("GoGRun", "world", "Complete"))
    stages = place.stages()
    assert [each["status"]["checkpoint"] for each in stages] == [f"{key}/10" for key in place.KEYS]
    assert all(each["status"]["attempt"] == 1 for each in stages)
