"""Stores that fail under a stage: the attempt fails as one that is retried, and a later one loses no durable turn."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.killed_stage import SETTINGS, Run
from support.s3 import CREDENTIALS, IMPATIENT, Gateway

from gog import store
from gog.spec import GRPOConfig
from gog.store.s3 import S3Backend
from gog_recipes.grpo import GRPORecipe
from gog_recipes.runtime import config

Straight = Callable[[str, int], Run]
FAILED = 1


# ---- a volume


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """An empty volume at `store` of the test's folder."""
    place = tmp_path / "store"
    place.mkdir()
    if os.geteuid() or not mount("-t", "tmpfs", "-o", "size=64m", "gog-tests", place):
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def mount(*arguments: object) -> bool:
    return subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True).returncode == 0


def fill(place: Path) -> Path:
    """Fills a volume up to its last page, while others write to it."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(bytes(1 << 12)):
            continue
    return filler


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param("full", "the disk is full (free space, then `gog resume`", marks=pytest.mark.slow, id="full"),
        pytest.param("read-only", "cannot write: Read-only file system", marks=pytest.mark.exhaustive, id="read-only"),
    ],
)
def test_a_volume_that_fails_in_mid_episode(
    fault: str, sentence: str, volume: Path, chain: Path, make: Any, uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("grpo", 1), Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    process = run.started(1, until=lambda: len(run.journal(2)[0]) >= 3)
    if fault == "full":
        filler = fill(volume)
    else:
        while not mount("-o", "remount,ro", volume):  # refused while a file is being written
            assert process.poll() is None, run.log()
    assert run.code(process) == FAILED
    assert run.log().splitlines()[-1].startswith("failed: ") and sentence in run.log()
    if fault == "full":
        filler.unlink()
    else:
        assert run.code(run.start()) == FAILED, "it is tried again, and is still read-only"
        assert mount("-o", "remount,rw", volume)
    judged, tokens = run.journal(2)
    run.finish()
    assert len(judged) >= 3 and (run.result(), run.tensors()) == (straight.result(), straight.tensors())
    assert run.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens


# ---- a bucket


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """An S3 server of the test's own, whose clients give up soon."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    running = Gateway(tmp_path / "buckets").start()
    monkeypatch.setattr(store, "open_store", functools.partial(store.open_store, patience=IMPATIENT))
    yield running
    running.stop()


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def attempt(cfg: GRPOConfig) -> int:
    """Exit code of an attempt in this process."""

    def main() -> None:
        recipe = GRPORecipe(cfg)
        recipe.setup()
        asyncio.run(recipe.train())
        recipe.cleanup()

    with pytest.raises(SystemExit) as caught:
        config.exit_with(main)
    return int(str(caught.value.code))


@pytest.mark.slow
def test_a_bucket_that_is_away_in_mid_episode_and_when_the_next_attempt_resumes(
    server: Gateway,
    one_thread: None,
    chain: Path,
    make: Any,
    uninterrupted: Straight,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = server.spec("faults")
    source, bucket = store.Store(chain / "store"), store.open_store(spec)
    for stage in ("curate", "sft", "stratify"):
        store.copy(source, stage, bucket)
    cfg = make(GRPOConfig, tmp_path, **SETTINGS["grpo"] | {"store": spec.model_dump(mode="json")})
    puts: list[str] = []
    put = S3Backend.put

    def counted(self: S3Backend, key: str, data: bytes, content_type: str) -> None:
        puts.append(key)
        if len(puts) == 3:
            server.stop()
        put(self, key, data, content_type)

    monkeypatch.setattr(S3Backend, "put", counted)
    for _ in range(2):  # in mid-episode, and when it resumes
        assert attempt(cfg) == FAILED
        assert "not served within 5 s" in capsys.readouterr().err
    server.start()
    assert len(bucket.objects("journal/grpo/")) == 2
    assert attempt(cfg) == 0
    newest, straight = bucket.latest("grpo"), uninterrupted("grpo", 1)
    assert newest is not None and newest.step == 2
    assert {name: newest.files[name].hash for name in straight.tensors()} == straight.tensors()
