"""Copying checkpoints from store to store, and fetching model folders from a plain bucket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import s3
from support.builders import NEW, OLD, contents, publish

from gog import store as stores
from gog.errors import UserError
from gog.store import Store
from gog.store import s3 as bucket


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture
def source(gateway: s3.Gateway, prefix: str) -> Store:
    return stores.open_store(gateway.spec(f"{prefix}/source"), s3.IMPATIENT)


@pytest.fixture
def target(gateway: s3.Gateway, prefix: str) -> Store:
    return stores.open_store(gateway.spec(f"{prefix}/target"), s3.IMPATIENT)


def test_inside_one_service_the_server_copies(source: Store, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    content = {"big": os.urandom(6 << 20), **OLD}
    manifest = publish(source, 3, content, meta={"reward": 1})
    with monkeypatch.context() as patch:
        for backend in (source.backend, target.backend):
            patch.setattr(backend.client, "send", lambda *_: pytest.fail("sent"))
            patch.setattr(backend.client, "receive", lambda *_: pytest.fail("received"))
        copied = stores.copy(source, "sft", target)
    assert (copied.ref, copied.meta, copied.files) == ("sft/3", {"reward": 1}, manifest.files)
    assert contents(target, target.latest("sft")) == content
    assert stores.copy(source, "sft/3", target) == copied


@pytest.mark.parametrize("way", ["out", "in"])
def test_files_copied_between_a_bucket_and_a_folder_are_verified(source: Store, tmp_path: Path, way: str) -> None:
    folder = stores.open_store((tmp_path / "store").as_uri())
    start, end = (source, folder) if way == "out" else (folder, source)
    publish(start, 3, NEW)
    stores.copy(start, "sft", end)
    assert contents(end, end.latest("sft")) == NEW


def test_a_corrupt_source_is_not_copied(gateway: s3.Gateway, prefix: str, source: Store, target: Store) -> None:
    manifest = publish(source, 3, OLD)
    path = gateway.folder / s3.BUCKET / prefix / "source" / manifest.files["adapter.safetensors"].key
    path.write_bytes(b"OLD")
    with pytest.raises(UserError, match="corrupt"):
        stores.copy(source, "sft", target)
    assert target.latest("sft") is None


def test_ancestors_are_copied_on_request(source: Store, target: Store) -> None:
    publish(source, 1, OLD, stage="curate")
    publish(source, 1, OLD, stage="sft", parents=("curate/1",))
    publish(source, 9, NEW, stage="grpo", parents=("sft/1",))
    stores.copy(source, "grpo", target)
    assert target.stages() == ["grpo"]
    stores.copy(source, "grpo", target, parents=True)
    assert target.stages() == ["curate", "grpo", "sft"]


# ---- base models


FILES = {"config.json": b"{}", "model.safetensors": b"w" * 100, "merges.txt": b"", "sub/tokenizer.json": b"[]"}


def put(store: Store, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        store.put_object(name, content)


def test_a_model_folder_is_fetched_without_its_pickles(
    gateway: s3.Gateway, source: Store, prefix: str, tmp_path: Path
) -> None:
    put(source, {**FILES, "pytorch_model.bin": b"pickle", "optimizer.pt": b"pickle"})
    spec = gateway.spec("elsewhere")
    folder = stores.fetch_prefix(spec, f"s3://{s3.BUCKET}/{prefix}/source", tmp_path / "deep" / "base", s3.IMPATIENT)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == FILES


@pytest.mark.parametrize(
    ("files", "held"),
    [({}, "nothing"), ({"pytorch_model.bin": b"p", "config.json": b""}, "config.json, pytorch_model.bin")],
)
def test_a_prefix_without_safetensors_is_refused(
    gateway: s3.Gateway, source: Store, prefix: str, tmp_path: Path, files: dict[str, bytes], held: str
) -> None:
    put(source, files)
    with pytest.raises(UserError, match=rf"no safetensors \(found: {held}\)"):
        stores.fetch_prefix(gateway.spec("x"), f"s3://{s3.BUCKET}/{prefix}/source", tmp_path / "base", s3.IMPATIENT)
    assert not (tmp_path / "base").exists()


def test_a_corrupt_model_file_is_refused_and_no_folder_appears(
    gateway: s3.Gateway, source: Store, prefix: str, tmp_path: Path
) -> None:
    put(source, FILES)
    path = gateway.folder / s3.BUCKET / prefix / "source" / "model.safetensors"
    with path.open("r+b") as stream:
        stream.write(b"W")
    with pytest.raises(UserError, match="gone, changed or corrupt"):
        stores.fetch_prefix(gateway.spec("x"), f"s3://{s3.BUCKET}/{prefix}/source", tmp_path / "base", s3.IMPATIENT)
    assert not (tmp_path / "base").exists()
