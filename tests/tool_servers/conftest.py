"""Tool servers as real processes on loopback, all started at once; a test waits for a server when it first uses it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.browser import browser, page  # noqa: F401

from gog import adapters as lora
from gog import spec
from gog import store as stores
from gog_recipes.world import generate

DEADLINE = 180.0
EVERY_FAILURE = {"rate": 1.0, "kinds": ["timeout", "429", "5xx", "malformed", "empty"], "seed": 3}
TRAINED: dict[str, tuple[str, ...]] = {
    "sft/180": (),
    "stratify/1": ("sft/180",),
    "grpo/120": ("sft/180", "stratify/1"),
    "grpo/240": ("sft/180", "stratify/1"),
    "grpo-no-gaze/120": ("sft/180", "stratify/1"),
}
TINY = Path(str(resources.files("gog_recipes.world"))) / "tiny"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server process; `url` waits until it is ready."""

    process: subprocess.Popen[str]
    ready_file: Path
    key: str = ""
    _url: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        if not self._url:
            wait_until(self.ready_file.exists, process=self.process)
            self._url = json.loads(self.ready_file.read_text())["url"]
        return self._url

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, headers)

    def get(self, path: str) -> Answer:
        return self.request("GET", path, None, {})

    def request(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=DEADLINE)
        with contextlib.closing(connection):
            own = {"authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request(method, path, data, {"content-type": "application/json", **own, **headers})
            response = connection.getresponse()
            answer_headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answer_headers, response.read())

    def stop(self) -> tuple[int, str]:
        """Exit code and stderr after a SIGTERM."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, errors


def wait_until(condition: Callable[[], bool], *, process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


def launch(folder: Path, *arguments: str, **options: str) -> Server:
    """`python -m arguments` with a ready file in `folder`."""
    ready = folder / f"ready-{len(list(folder.iterdir()))}.json"
    (folder / f"{ready.name}.started").touch()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments, "--ready-file", str(ready)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **options},
    )
    return Server(process, ready)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "dataset"
    generate.write(folder, spec.WorldSpec(train=60, test=60))
    return folder


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A named pipe: a reader waits until another process has opened it for writing and closed it."""
    path = tmp_path_factory.mktemp("gate") / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of LoRA adapters for the tiny model: `one` and `two` with random weights, and some bad ones."""
    root = tmp_path_factory.mktemp("adapters")
    for number, name in enumerate(("one", "two")):
        write_adapter(root / name, seed=number)
    write_adapter(root / "wide", seed=3, hidden=80)
    write_adapter(root / "partial", seed=6, layers=1)
    write_adapter(root.parent / "elsewhere", seed=4)
    lora.join([root / "one", root / "two"], root / "joined")
    (root / "link").symlink_to(root.parent / "elsewhere")
    write_adapter(root / "pickled", seed=5)
    (root / "pickled" / "adapter_model.safetensors").rename(root / "pickled" / "adapter_model.bin")
    return root


def write_adapter(folder: Path, *, seed: int, rank: int = 4, hidden: int = 96, layers: int | None = None) -> None:
    """Writes an adapter as peft does, on the query projections of all or the first layers."""
    rng = np.random.default_rng(seed)
    layers = layers or json.loads((TINY / "config.json").read_text())["text_config"]["num_hidden_layers"]
    weights = {}
    for layer in range(layers):
        prefix = f"base_model.model.model.language_model.layers.{layer}.self_attn.q_proj"
        weights[f"{prefix}.lora_A.weight"] = rng.normal(size=(rank, hidden)).astype(np.float32)
        weights[f"{prefix}.lora_B.weight"] = rng.normal(size=(hidden, rank)).astype(np.float32)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": r".*language_model.*\.q_proj"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture
def trained(tmp_path: Path) -> str:
    """A store, as --store takes it, with the checkpoints of a run of the tiny model: SFT, GRPO, and an arm."""
    opened = stores.open_store((tmp_path / "store").as_uri())
    for number, (ref, parents) in enumerate(TRAINED.items()):
        files = {}
        if not ref.startswith("stratify"):
            write_adapter(tmp_path / f"made-{number}", seed=10 + number)
            files = {path.name: path for path in (tmp_path / f"made-{number}").iterdir()}
        stage, step = ref.split("/")
        opened.publish(stage, int(step), files, parents=parents)
    return json.dumps({"uri": (tmp_path / "store").as_uri()})


@dataclass
class Servers:
    grounding: Server
    image_search: Server
    text_search: Server
    judge: Server
    failing: Server
    policy: Server


@pytest.fixture(scope="session")
def servers(world: Path, gate: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    data = ("--data", str(world))
    failures = ("--failures", json.dumps(EVERY_FAILURE), "--timeout-seconds", "0.05")
    started = Servers(
        policy=launch(folder, "gog_tools.policy.server", "--base", "tiny", "--adapters", str(adapters)),
        grounding=launch(
            folder, "gog_tools.grounding.server", "--backend", "gate_detector:GateDetector", GATE=str(gate)
        ),
        image_search=launch(folder, "gog_tools.search.server", "image", *data),
        text_search=launch(folder, "gog_tools.search.server", "text", *data),
        judge=launch(folder, "gog_tools.judge.server", *data),
        failing=launch(folder, "gog_tools.judge.server", *failures),
    )
    yield started
    for server in vars(started).values():
        server.process.kill()
        server.process.communicate()


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers, and kills them at the end."""
    started: list[Server] = []

    def begin(*arguments: str, **options: str) -> Server:
        started.append(launch(folder, *arguments, **options))
        return started[-1]

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server for one test."""
    with starting(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts a server for the tests of a module."""
    with starting(tmp_path_factory.mktemp("once")) as begin:
        yield begin


@pytest.fixture
def held(gate: Path) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`with held():` begins once a process waits at the gate and opens the gate at its end."""

    @contextlib.contextmanager
    def holding() -> Iterator[None]:
        writers: list[int] = []

        def a_reader_waits() -> bool:
            try:
                writers.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        wait_until(a_reader_waits)
        try:
            yield
        finally:
            os.close(writers[0])

    return holding


@pytest.fixture(name="wait_until", scope="session")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until
