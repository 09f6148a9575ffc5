"""Checkpoints are whole or absent after kills, full disks, flipped bits and missing permissions."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import NEW, OLD, contents, publish, source_files

from gog.errors import UserError
from gog.store import Blob, Manifest, Store, hashing

OPERATIONS = ("open", "mkdir", "fsync", "replace", "rename", "link", "unlink", "write")


# ---- corruption


def remedy(store: Store) -> str:
    path = Path(store.where) / "manifests" / "sft" / "000000003.json"
    return f"delete {path}, then `gog resume`: the run resumes from the checkpoint before it"


def blob_of(store: Store, manifest: Manifest) -> Path:
    return Path(store.where) / manifest.files["adapter.safetensors"].key


@pytest.mark.parametrize("damaged", [b"OLD", b"ol", b"older", b""], ids=["a flipped bit", "short", "long", "empty"])
def test_a_corrupt_blob_is_detected_before_it_is_used(store: Store, tmp_path: Path, damaged: bytes) -> None:
    manifest = publish(store, 3, OLD)
    blob_of(store, manifest).write_bytes(damaged)
    sentence = (
        f"'adapter.safetensors' of checkpoint sft/3 is corrupt ({remedy(store).replace('delete', 'delete it and')})"
    )
    with pytest.raises(UserError) as caught:
        store.open(manifest, "adapter.safetensors")
    assert str(caught.value) == f"{blob_of(store, manifest)}: {sentence}"
    with pytest.raises(UserError, match="is corrupt"):
        store.fetch(manifest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_missing_blob_is_detected(store: Store) -> None:
    manifest = publish(store, 3, OLD)
    blob_of(store, manifest).unlink()
    with pytest.raises(UserError, match=r"'adapter\.safetensors' of checkpoint sft/3 is missing") as caught:
        store.open(manifest, "adapter.safetensors")
    assert caught.value.remedy == remedy(store)


@pytest.mark.parametrize("damaged", [b"OLD", b"ol"], ids=["a flipped bit", "short"])
def test_publishing_a_step_again_repairs_its_corrupt_blob(store: Store, damaged: bytes) -> None:
    blob_of(store, publish(store, 3, OLD)).write_bytes(damaged)
    assert contents(store, publish(store, 3, OLD)) == OLD


@pytest.mark.parametrize("content", [b"", b"{", b'{"stage": "sft"}', b"\xff"])
def test_a_manifest_that_cannot_be_read_is_refused_with_its_name(store: Store, content: bytes) -> None:
    publish(store, 3, OLD)
    path = Path(store.where) / "manifests" / "sft" / "000000003.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="manifest is not valid") as caught:
        store.latest("sft")
    assert (caught.value.where, caught.value.remedy) == (str(path), remedy(store))


@pytest.mark.parametrize("digest", ["../../etc/passwd", "A" * 64, "a" * 63])
def test_a_manifest_names_blobs_by_hash_only(digest: str) -> None:
    with pytest.raises(ValueError, match="hash"):
        Blob(hash=digest, size=1)


# ---- killed, full, forbidden


class PowerCut(BaseException):
    """The process was killed: nothing runs after it, not even clean-up."""


@contextlib.contextmanager
def dying_at(operation: int) -> Iterator[list[str]]:
    """Kills the process just before its file operation of this number; yields the operations that it did."""
    made: list[str] = []
    dead = False

    def mortal(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal dead
            dead = dead or len(made) == operation
            if dead:
                raise PowerCut
            made.append(name)
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, mortal(name, getattr(os, name)))
        patch.setattr(hashing, "blob_of", mortal("hash", hashing.blob_of))
        with contextlib.suppress(PowerCut):
            yield made


def test_a_kill_between_any_two_file_operations_leaves_no_half_visible_checkpoint(tmp_path: Path) -> None:
    steps = []
    for operation in range(1000):
        store = Store(tmp_path / f"store{operation}")
        publish(store, 1, OLD)
        sources = source_files(tmp_path, NEW)
        with dying_at(operation) as made:
            store.publish("sft", 2, sources)

        found = Store(Path(store.where)).latest("sft")  # what a new process sees
        assert contents(store, found) == (OLD if found.step == 1 else NEW)
        assert pointer(store) in (1, 2)
        steps.append(found.step)

        assert store.publish("sft", 2, sources).step == 2  # and what it does again succeeds
        assert contents(store, store.latest("sft")) == NEW and pointer(store) == 2
        if len(made) < operation:
            break
    assert steps == sorted(steps) and set(steps) == {1, 2}
    assert {"open", "mkdir", "fsync", "replace", "link", "unlink", "hash"} <= set(made)


def pointer(store: Store) -> int:
    return int((Path(store.where) / "latest" / "sft").read_text())


def test_a_kill_while_fetching_leaves_no_half_filled_folder(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, 1, OLD)
    for operation in range(1000):
        folder = tmp_path / f"copy{operation}"
        with dying_at(operation) as made:
            store.fetch(manifest, folder)
        if folder.exists():
            assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == OLD
        if len(made) < operation:
            break
    assert folder.exists() and operation > 4


def test_blobs_are_on_disk_before_the_manifest_names_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "link", lambda *paths: (order.append("link"), link(*paths))[1])
    publish(store, 1, OLD)
    # each of the two blobs: its bytes, its folder; the manifest's bytes; the commit; the manifest's folder
    assert order[:7] == ["fsync"] * 5 + ["link", "fsync"]


@pytest.mark.parametrize("operation", ["fsync", "replace", "link", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_and_nothing_committed_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch, operation: str, code: int
) -> None:
    publish(store, 1, OLD)
    sources = source_files(Path(store.where).parent, NEW)
    with monkeypatch.context() as patch:
        patch.setattr(os, operation, refuse(code))
        with pytest.raises(UserError) as caught:
            store.publish("grpo", 1, sources)
    assert str(caught.value) == (
        f"{store.where}: the disk is full (free space, then `gog resume`; nothing committed is lost)"
    )
    assert contents(store, store.latest("sft")) == OLD
    assert contents(store, store.publish("grpo", 1, sources)) == NEW


def test_a_disk_that_fills_up_while_fetching_is_reported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = publish(store, 1, OLD)
    monkeypatch.setattr("shutil.copyfile", refuse(errno.ENOSPC))
    with pytest.raises(UserError, match="the disk is full"):
        store.fetch(manifest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_store_that_cannot_be_written_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EROFS))
    with pytest.raises(UserError) as caught:
        publish(store, 1, OLD)
    assert (caught.value.what, caught.value.remedy) == (
        "cannot write: Read-only file system",
        "name a folder that can be written",
    )


def refuse(code: int) -> Callable[..., None]:
    def operation(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return operation
