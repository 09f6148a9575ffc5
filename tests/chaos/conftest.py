"""A workshop for each test: `gog` as a process, with toys for stages and servers."""

from __future__ import annotations

import pytest
from support.operator_harness import Workshop


@pytest.fixture
def workshop(tmp_path):
    shop = Workshop(tmp_path)
    yield shop
    shop.close()
