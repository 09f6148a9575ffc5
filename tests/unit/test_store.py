"""Checkpoints: published, read, published twice, and the pointer to the newest."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from builders import NEW, OLD, contents, publish

from gog import store as stores
from gog.errors import UserError
from gog.store import Store

# ---- publishing and reading


def test_what_was_published_is_read_back(store: Store) -> None:
    published = publish(store, 3, OLD, meta={"loss": 0.5}, parents=("curate/0",))
    found = store.latest("sft")
    assert found == published == store.resolve("sft/3") == store.resolve("sft")
    assert (found.ref, found.meta, found.parents) == ("sft/3", {"loss": 0.5}, ("curate/0",))
    assert contents(store, found) == OLD


def test_a_checkpoint_is_fetched_whole_into_a_new_folder(store: Store, tmp_path: Path) -> None:
    folder = store.fetch(publish(store, 3, OLD), tmp_path / "deep" / "copy")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == OLD
    assert [path.name for path in folder.parent.iterdir()] == ["copy"]


def test_a_checkpoint_without_files_is_a_checkpoint(store: Store, tmp_path: Path) -> None:
    assert list(store.fetch(publish(store, 0, {}), tmp_path / "copy").iterdir()) == []


def test_nothing_is_fetched_over_a_folder_that_exists(store: Store, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(UserError, match="exists already"):
        store.fetch(publish(store, 3, OLD), tmp_path / "copy")


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
def test_no_manifest_writes_outside_the_folder_it_is_fetched_into(store: Store, tmp_path: Path, name: str) -> None:
    honest = publish(store, 3, {"inside": b"x"})
    forged = honest.model_copy(update={"files": {name: honest.files["inside"]}})
    with pytest.raises(UserError, match="points outside its folder"):
        store.fetch(forged, tmp_path / "deep" / "copy")
    assert not (tmp_path / "deep" / "copy").exists() and not (tmp_path / "outside").exists()


def test_the_newest_step_is_the_largest_number(store: Store) -> None:
    for step in (2, 10, 9):
        publish(store, step, OLD)
    assert store.steps("sft") == [2, 9, 10]
    assert store.latest("sft").step == 10


def test_stages_do_not_see_each_other(store: Store) -> None:
    publish(store, 5, OLD, stage="sft")
    assert store.latest("grpo") is None and store.steps("grpo") == []


def test_equal_files_are_kept_once_under_their_hash(store: Store) -> None:
    publish(store, 1, {"a": b"same", "b": b"same"})
    publish(store, 2, {"a": b"same"})
    (blob,) = (store.root / "blobs").iterdir()
    assert blob.name == hashlib.blake2b(b"same", digest_size=32).hexdigest()


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("grpo", "no checkpoint of 'grpo' (run that stage first)"),
        ("sft/4", "no checkpoint sft/4 (has the stage run?)"),
        ("sft/newest", "'sft/newest' names no checkpoint (write stage or stage/step)"),
        ("sft/-1", "'sft/-1' names no checkpoint (write stage or stage/step)"),
    ],
)
def test_a_reference_to_nothing_says_what_to_do(store: Store, ref: str, sentence: str) -> None:
    publish(store, 3, OLD)
    with pytest.raises(UserError) as caught:
        store.resolve(ref)
    assert str(caught.value) == f"{store.root}: {sentence}"


def test_a_file_that_a_checkpoint_lacks_is_named_with_those_it_has(store: Store) -> None:
    with pytest.raises(UserError, match=r"checkpoint sft/3 has no 'x' \(it holds \['adapter.safetensors', "):
        store.open(publish(store, 3, OLD), "x")


# ---- twice


def test_publishing_a_step_again_with_the_same_content_is_a_success(store: Store) -> None:
    first = publish(store, 3, OLD, meta={"seconds": 1})
    assert publish(store, 3, OLD, meta={"seconds": 2}) == first
    assert store.latest("sft") == first


def test_publishing_a_step_with_other_content_is_an_error_and_changes_nothing(store: Store) -> None:
    first = publish(store, 3, OLD)
    with pytest.raises(UserError, match="checkpoint sft/3 exists with other content") as caught:
        publish(store, 3, NEW)
    assert caught.value.remedy == "two processes write the same stage, or the store belongs to another run"
    assert store.latest("sft") == first and contents(store, first) == OLD


@pytest.mark.parametrize("other", [OLD, NEW], ids=["the same", "other content"])
def test_of_two_processes_that_publish_a_step_at_once_one_commits(
    store: Store, monkeypatch: pytest.MonkeyPatch, other: dict[str, bytes]
) -> None:
    link, first = os.link, []

    def overtaken(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        first.append(publish(store, 3, other))  # the other process, just before this one commits
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", overtaken)
    if other is OLD:
        assert publish(store, 3, OLD) == first[0]
    else:
        with pytest.raises(UserError, match="exists with other content"):
            publish(store, 3, OLD)
    assert store.latest("sft") == first[0] and contents(store, first[0]) == other


def test_two_real_processes_may_publish_the_same_step(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)

    def work() -> None:
        barrier.wait()
        publish(store, 3, OLD)

    workers = [context.Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert contents(store, store.latest("sft")) == OLD
    assert not [path for path in store.root.rglob("*") if path.name.endswith(".tmp")]


# ---- the pointer


def pointer(store: Store) -> int:
    return int((store.root / "latest" / "sft").read_text())


def test_latest_never_goes_backwards(store: Store) -> None:
    publish(store, 6, OLD)
    publish(store, 5, OLD)
    assert (pointer(store), store.latest("sft").step) == (6, 6)


def test_latest_stays_where_it_was_when_the_newest_manifest_was_deleted(store: Store) -> None:
    publish(store, 6, OLD)
    (store.root / "manifests" / "sft" / "000000006.json").unlink()
    publish(store, 5, OLD)
    assert (pointer(store), store.latest("sft").step) == (6, 5)


def test_latest_that_was_left_behind_by_a_kill_catches_up(store: Store) -> None:
    publish(store, 1, OLD)
    publish(store, 2, OLD)
    (store.root / "latest" / "sft").write_text("1")
    assert store.latest("sft").step == 2
    publish(store, 1, OLD)
    assert pointer(store) == 2


def test_latest_never_goes_backwards_even_when_another_process_overtakes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, lock = os.replace, fcntl.flock

    def overtaken(source: str, target: Path) -> None:
        if Path(target).parent.name == "latest":
            monkeypatch.setattr(os, "replace", replace)
            monkeypatch.setattr(fcntl, "flock", lambda handle, _: lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB))
            with contextlib.suppress(UserError):  # it may not come between, and would have to wait
                publish(store, 6, NEW)
            monkeypatch.setattr(fcntl, "flock", lock)
            seen.append(pointer(store) if (store.root / "latest" / "sft").exists() else -1)
        replace(source, target)

    seen: list[int] = []
    monkeypatch.setattr(os, "replace", overtaken)
    publish(store, 5, OLD)
    assert seen and pointer(store) >= seen[0]
    assert store.latest("sft").step == 6
    publish(store, 6, NEW)
    assert pointer(store) == 6


@pytest.mark.parametrize("content", ["", "\n", "half past"])
def test_a_pointer_that_cannot_be_read_is_made_again(store: Store, content: str) -> None:
    publish(store, 5, OLD)
    (store.root / "latest" / "sft").write_text(content)
    assert store.latest("sft").step == 5
    publish(store, 5, OLD)
    assert pointer(store) == 5


# ---- opening


def test_a_store_is_made_where_it_is_wanted(tmp_path: Path) -> None:
    store = stores.open_store((tmp_path / "a b" / "ü#1").as_uri())
    assert store.root == tmp_path / "a b" / "ü#1" and store.root.is_dir()
    assert list(store.root.iterdir()) == []


def test_a_scheme_that_is_not_supported_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^s3://bucket/run: scheme 's3' is not supported yet \(use file:///folder\)$"):
        stores.open_store("s3://bucket/run")


def test_a_store_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match="name a folder that can be written"):
        stores.open_store((tmp_path / "taken").as_uri())
