"""Adapters that arrive beside a vLLM: whole or not at all, under names that never change, and again after its restart."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gog import adapters, store, tool_transport
from gog.errors import UserError
from gog.tool_types import CallError
from gog_recipes.rollout.vllm_delivery import Receiver
from gog_tools.policy.arrivals import FILES, KEPT, Arrivals
from gog_tools.policy.receiver import Follower
from gog_tools.serving.errors import RequestError


def adapter(folder: Path, value: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    (folder / adapters.CONFIG).write_text(json.dumps({"r": 8, "target_modules": ["q_proj"]}))
    save_file({"a": np.full(4, value, np.float32)}, folder / adapters.WEIGHTS)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in FILES}


def send(arrivals: Arrivals, name: str, source: Path) -> Path:
    for file in FILES:
        arrivals.append(name, file, 0, (source / file).read_bytes())
    return arrivals.commit(name, hashes(source))


def test_an_adapter_that_arrives_in_parts_appears_with_the_sender_s_bytes(tmp_path):
    arrivals, source = Arrivals(tmp_path / "there"), adapter(tmp_path / "one")
    whole = (source / adapters.WEIGHTS).read_bytes()
    assert arrivals.append("v-1", adapters.WEIGHTS, 0, whole[:10]) == 10
    assert arrivals.append("v-1", adapters.WEIGHTS, 10, whole[10:]) == len(whole)
    arrivals.append("v-1", adapters.CONFIG, 0, (source / adapters.CONFIG).read_bytes())
    assert arrivals.names() == {}
    assert hashes(arrivals.commit("v-1", hashes(source))) == hashes(source)
    assert list(arrivals.names()) == ["v-1"]


def test_a_part_that_leaves_a_gap_is_refused_and_the_first_part_begins_anew(tmp_path):
    arrivals = Arrivals(tmp_path / "there")
    arrivals.append("v-1", adapters.WEIGHTS, 0, b"abc")
    with pytest.raises(RequestError, match="3 bytes have arrived") as refused:
        arrivals.append("v-1", adapters.WEIGHTS, 5, b"f")
    assert refused.value.status == 409
    assert arrivals.append("v-1", adapters.WEIGHTS, 0, b"xy") == 2


def test_an_adapter_whose_bytes_are_not_those_that_were_sent_does_not_appear(tmp_path):
    arrivals, source = Arrivals(tmp_path / "there"), adapter(tmp_path / "one")
    arrivals.append("v-1", adapters.CONFIG, 0, (source / adapters.CONFIG).read_bytes())
    arrivals.append("v-1", adapters.WEIGHTS, 0, b"torn")
    with pytest.raises(RequestError, match="not the ones that were sent"):
        arrivals.commit("v-1", hashes(source))
    assert arrivals.names() == {}


def test_a_name_never_stands_for_other_weights(tmp_path):
    arrivals, one, other = Arrivals(tmp_path / "there"), adapter(tmp_path / "one"), adapter(tmp_path / "other", 2.0)
    assert send(arrivals, "v-1", one) == send(arrivals, "v-1", one)
    with pytest.raises(RequestError, match="stands for other weights"):
        send(arrivals, "v-1", other)


def test_what_is_no_adapter_is_refused(tmp_path):
    arrivals, source = Arrivals(tmp_path / "there"), adapter(tmp_path / "one")
    (source / adapters.WEIGHTS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError):
        send(arrivals, "v-1", source)
    assert arrivals.names() == {}


@pytest.mark.parametrize("name", ["..", ".parts", "a/b", "", "x" * 101])
def test_a_name_leads_nowhere_else(tmp_path, name):
    with pytest.raises(RequestError, match="no name of an adapter"):
        Arrivals(tmp_path).append(name, adapters.CONFIG, 0, b"{}")


def test_the_oldest_adapters_make_room(tmp_path):
    arrivals = Arrivals(tmp_path / "there")
    for number in range(KEPT + 2):
        send(arrivals, f"v-{number}", adapter(tmp_path / str(number), float(number)))
    assert list(arrivals.names()) == [f"v-{number}" for number in range(2, KEPT + 2)]


def test_a_trainer_delivers_a_version_once_and_other_ranks_wait_for_it(start, tmp_path):
    folder = tmp_path / "adapters"
    server = start("gog_tools.policy.server", "--runtime", "receiver", "--folder", str(folder), GOG_API_KEY="secret")
    source = adapter(tmp_path / "trained")

    async def run() -> None:
        async with tool_transport.open_session() as session:
            receiver = Receiver(server.url, session, 30.0, key="secret")
            with pytest.raises(CallError, match="has not arrived yet"):
                await dataclasses.replace(receiver, deadline_seconds=0.5).deliver("run-1", tmp_path / "elsewhere")
            waiting = asyncio.create_task(receiver.deliver("run-1", tmp_path / "elsewhere"))
            await asyncio.sleep(0.2)
            path = await receiver.deliver("run-1", source)
            assert await waiting == path
            assert path == str(folder / "run-1") and hashes(Path(path)) == hashes(source)
            assert await receiver.deliver("run-1", tmp_path / "elsewhere") == path
            await receiver.remove("run-1")
            assert os.listdir(folder) == [".parts"]
            with pytest.raises(UserError, match=r"receiverPort.*takes no adapters"):
                await Receiver(server.url, session, 30.0, key="wrong").deliver("run-1", source)

    asyncio.run(run())


class ToyVLLM(ThreadingHTTPServer):
    """Lists and loads adapters."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.loaded: dict[str, str] = {}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ToyVLLM

    def do_GET(self) -> None:
        self._answer({"data": [{"id": name} for name in ("base", *self.server.loaded)]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.loaded[body["lora_name"]] = body["lora_path"]
        self._answer({})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def vllm():
    server = ToyVLLM()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def follower(tmp_path, trained, vllm):
    spec = store.open_store(json.loads(trained)["uri"])
    version = tmp_path / "version"
    version.write_text("")
    return Follower(Arrivals(tmp_path / "adapters", lambda: spec), version, vllm.url)


def test_a_server_without_a_version_is_ready(follower):
    follower.step()
    assert follower.is_ready


def test_a_version_is_fetched_loaded_and_loaded_again_after_a_restart(follower, vllm, tmp_path):
    follower.version.write_text("grpo/120")
    follower.step()
    assert follower.is_ready and vllm.loaded == {"grpo-120": str(tmp_path / "adapters" / "grpo-120")}
    vllm.loaded.clear()
    follower.step()
    assert follower.is_ready and "grpo-120" in vllm.loaded


def test_a_version_that_cannot_be_fetched_leaves_a_new_pod_unready_and_an_old_one_ready(follower, vllm):
    follower.version.write_text("grpo/999")
    with pytest.raises(UserError, match="grpo/999"):
        follower.step()
    assert not follower.is_ready
    follower.version.write_text("grpo/120")
    follower.step()
    follower.version.write_text("grpo/999")
    with pytest.raises(UserError):
        follower.step()
    assert follower.is_ready and "grpo-120" in vllm.loaded


def test_a_vllm_that_is_down_makes_the_pod_unready(follower, vllm):
    follower.version.write_text("grpo/120")
    follower.step()
    vllm.shutdown()
    vllm.server_close()
    with pytest.raises(OSError):
        follower.step()
    assert not follower.is_ready
