"""Servers for the tests: started once per session, started again where a test left one dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.killed_stage import judge  # noqa: F401
from support.photo_chain import photo_pool  # noqa: F401
from support.stage_chain import endpoints, make, tools_over, world  # noqa: F401
from support.vllm_servers import ENVIRONMENT, OPTIONS, Policy, Server

from gog.spec import ModelSpec
from gog_recipes.world import wide_tiny


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips these tests, with the remedy, where no vLLM is installed."""
    if not (ENVIRONMENT / "bin" / "vllm").is_file():
        skip = pytest.mark.skip(reason=f"no vLLM in {ENVIRONMENT}: run tests/vllm/setup, or set GOG_VLLM")
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Server]]]:
    """serve(model, count, *options): servers of a model, ready. All end with the session."""
    started: list[Server] = []
    folder = tmp_path_factory.mktemp("vllm")

    def begin(model: Path, count: int, *options: str) -> list[Server]:
        servers = [
            Server(model, folder / f"{len(started) + number}.log", (*OPTIONS, *options)) for number in range(count)
        ]
        started.extend(servers)
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        return servers

    yield begin
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads that vLLM takes on a CPU."""
    return wide_tiny.write(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="session")
def _replicas(serve: Callable[..., list[Server]], wide: Path) -> list[Server]:
    return serve(wide, 2, "--max-model-len", "1024")


@pytest.fixture
def replicas(_replicas: list[Server]) -> list[Server]:
    """Two servers of the wide tiny model, both ready."""
    for server in _replicas:
        server.start()
    for server in _replicas:
        server.wait()
    return _replicas


@pytest.fixture
def policy_of(tmp_path: Path) -> Iterator[Callable[[ModelSpec], Policy]]:
    """policy_of(model): a policy whose engines end with the test."""
    made: list[Policy] = []

    def made_of(spec: ModelSpec) -> Policy:
        made.append(Policy(spec, tmp_path / str(len(made))))
        return made[-1]

    yield made_of
    for each in made:
        each.close()


@pytest.fixture
def policy(wide: Path, policy_of: Callable[[ModelSpec], Policy]) -> Policy:
    """The wide tiny model with adapters."""
    return policy_of(ModelSpec(base=str(wide), family="tiny"))
