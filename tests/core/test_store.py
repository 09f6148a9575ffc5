"""Checkpoints: publishing, reading, publishing twice, and the pointer to the newest; in a folder and in a bucket."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from support import s3
from support.builders import NEW, OLD, contents, publish

from gog import store as stores
from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store import Store


@dataclass(frozen=True)
class Place:
    """Where a store is."""

    spec: StoreSpec
    """Its address and options."""
    folder: Path
    """Its files; versitygw keeps objects as files too."""

    def open(self) -> Store:
        return stores.open_store(self.spec, s3.IMPATIENT)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(StoreSpec(uri=(tmp_path / "store").as_uri()), tmp_path / "store")
    gateway = request.getfixturevalue("gateway")
    prefix = f"{tmp_path.parent.name}-{tmp_path.name}/run"
    return Place(gateway.spec(prefix), gateway.folder / s3.BUCKET / prefix)


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


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


def test_stages_are_independent(store: Store) -> None:
    publish(store, 5, OLD, stage="sft")
    assert store.latest("grpo") is None and store.steps("grpo") == []


def test_equal_files_are_kept_once_under_their_hash(store: Store, place: Place) -> None:
    publish(store, 1, {"a": b"same", "b": b"same"})
    publish(store, 2, {"a": b"same"})
    (blob,) = (place.folder / "blobs").iterdir()
    assert blob.name == blake3(b"same").hexdigest()


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("grpo", "no checkpoint of 'grpo' (run that stage first)"),
        ("sft/4", "no checkpoint sft/4 (has the stage run?)"),
        ("sft/newest", "'sft/newest' names no checkpoint (write stage or stage/step)"),
        ("sft/-1", "'sft/-1' names no checkpoint (write stage or stage/step)"),
    ],
)
def test_a_reference_to_nothing_is_refused_with_a_remedy(store: Store, ref: str, sentence: str) -> None:
    publish(store, 3, OLD)
    with pytest.raises(UserError) as caught:
        store.resolve(ref)
    assert str(caught.value) == f"{store.where}: {sentence}"


def test_a_file_that_is_not_in_a_checkpoint_is_named_with_those_that_are(store: Store) -> None:
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
def test_one_of_two_concurrent_publications_of_a_step_commits(store: Store, other: dict[str, bytes]) -> None:
    first: list[Any] = []
    patch = pytest.MonkeyPatch()

    def overtaken(key: str, data: bytes) -> bool:
        patch.undo()
        first.append(publish(store, 3, other))  # the other process, just before this one commits
        return store.backend.put_if_absent(key, data)

    patch.setattr(store.backend, "put_if_absent", overtaken)
    if other is OLD:
        assert publish(store, 3, OLD) == first[0]
    else:
        with pytest.raises(UserError, match="exists with other content"):
            publish(store, 3, OLD)
    assert store.latest("sft") == first[0] and contents(store, first[0]) == other


@pytest.mark.parametrize("other", [OLD, NEW], ids=["the same", "other content"])
def test_two_real_processes_may_publish_the_same_step(place: Place, other: dict[str, bytes]) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)

    def work(content: dict[str, bytes]) -> None:
        own = place.open()
        barrier.wait()
        try:
            publish(own, 3, content)
        except UserError:
            raise SystemExit(2) from None

    workers = [context.Process(target=work, args=(content,)) for content in (OLD, other)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ended = sorted(worker.exitcode or 0 for worker in workers)
    assert ended == [0, 0] if other is OLD else ended == [0, 2]
    found = contents(place.open(), place.open().latest("sft"))
    assert found in (OLD, other)
    assert not [path for path in place.folder.rglob("*") if path.name.endswith(".tmp")]


# ---- in pieces


def test_one_rank_commits_what_several_staged(place: Place, tmp_path: Path) -> None:
    staged = {}
    for rank in range(2):
        (tmp_path / str(rank)).write_text(f"shard {rank}")
        staged |= place.open().stage_blobs({f"shard{rank}": tmp_path / str(rank)})
    leader = place.open()
    assert leader.latest("sft") is None
    assert contents(leader, leader.commit("sft", 1, staged)) == {"shard0": b"shard 0", "shard1": b"shard 1"}


def test_a_file_that_was_not_staged_is_not_committed(store: Store) -> None:
    forged = {"shard": stores.Blob(hash="0" * 64, size=3)}
    with pytest.raises(UserError, match="'shard' of checkpoint sft/1 is missing"):
        store.commit("sft", 1, forged)
    assert store.latest("sft") is None


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_checkpoint_with_a_non_finite_number_in_its_meta_is_not_committed(store: Store, number: float) -> None:
    with pytest.raises(ValueError, match=r"^meta\.settings\.clip_grad_norm is not a finite number$"):
        publish(store, 1, OLD, meta={"settings": {"clip_grad_norm": number}})
    assert store.latest("sft") is None


def test_a_check_finds_a_corrupt_file(store: Store, place: Place) -> None:
    manifest = publish(store, 1, OLD)
    store.check(manifest)
    (place.folder / manifest.files["adapter.safetensors"].key).write_bytes(b"longer")
    with pytest.raises(UserError, match="corrupt"):
        store.check(manifest)


# ---- plain objects


def test_a_plain_object_can_be_written_again(store: Store, place: Place) -> None:
    assert store.get_object("report/index.html") is None
    store.put_object("report/index.html", b"one", "text/html")
    address = store.put_object("report/index.html", b"two", "text/html")
    assert store.get_object("report/index.html") == b"two" == (place.folder / "report/index.html").read_bytes()
    assert address == f"{store.where}/report/index.html"


@pytest.mark.parametrize("key", ["blobs/x", "manifests/sft/1", "latest/sft", "report/../latest/sft", "/etc/passwd"])
def test_a_plain_object_cannot_touch_a_checkpoint(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no key for a plain object"):
        store.put_object(key, b"")


# ---- the pointer


def pointer(place: Place) -> int:
    return int((place.folder / "latest" / "sft").read_text())


def test_latest_never_goes_backwards(store: Store, place: Place) -> None:
    publish(store, 6, OLD)
    publish(store, 5, OLD)
    assert (pointer(place), store.latest("sft").step) == (6, 6)


def test_objects_below_a_folder_are_listed_by_key_and_deleted_together(store: Store) -> None:
    for key in ("journal/grpo/b", "journal/grpo/a", "journal/grpo-2/a"):
        store.put_object(key, b"12")
    assert [(entry.key, entry.size) for entry in store.objects("journal/grpo/")] == [
        ("journal/grpo/a", 2),
        ("journal/grpo/b", 2),
    ]
    store.delete_objects("journal/grpo/")
    assert store.objects("journal/grpo/") == [] and len(store.objects("journal/")) == 1
    store.delete_objects("journal/absent/")


@pytest.mark.parametrize("folder", ["blobs/", "manifests/grpo/", "../", "/etc/"])
def test_objects_of_checkpoints_or_outside_the_store_are_not_deleted(store: Store, folder: str) -> None:
    with pytest.raises(ValueError, match="no key for a plain object"):
        store.delete_objects(folder)


def test_latest_does_not_move_when_the_newest_manifest_is_deleted(store: Store, place: Place) -> None:
    publish(store, 6, OLD)
    (place.folder / "manifests" / "sft" / "000000006.json").unlink()
    publish(store, 5, OLD)
    assert (pointer(place), store.latest("sft").step) == (6, 5)


def test_the_next_publication_advances_a_pointer_that_a_kill_left_behind(store: Store, place: Place) -> None:
    publish(store, 1, OLD)
    publish(store, 2, OLD)
    store.backend.put("latest/sft", b"1", "text/plain")
    assert store.latest("sft").step == 2
    publish(store, 1, OLD)
    assert pointer(place) == 2


def test_a_checkpoint_that_a_listing_lacks_is_found_by_the_pointer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, 1, OLD)
    publish(store, 2, NEW)
    entries = list(store.backend.entries("manifests/sft/"))
    monkeypatch.setattr(store.backend, "entries", lambda _: iter(entries[:1]))
    assert store.steps("sft") == [1] and store.latest("sft").step == 2


def test_latest_never_goes_backwards_when_another_process_overtakes(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap: Callable[..., bool] = store.backend.swap
    swapped: list[bool] = []

    def overtaken(*arguments: Any) -> bool:
        if not swapped:
            swapped.append(True)
            publish(place.open(), 6, NEW)  # the other process, between this one's reading and writing
        swapped.append(swap(*arguments))
        return swapped[-1]

    monkeypatch.setattr(store.backend, "swap", overtaken)
    publish(store, 5, OLD)
    assert swapped == [True, False]
    assert (pointer(place), store.latest("sft").step) == (6, 6)


@pytest.mark.parametrize("content", ["", "\n", "half past"])
def test_an_unreadable_pointer_is_replaced(store: Store, place: Place, content: str) -> None:
    publish(store, 5, OLD)
    store.backend.put("latest/sft", content.encode(), "text/plain")
    assert store.latest("sft").step == 5
    publish(store, 5, OLD)
    assert pointer(place) == 5


# ---- opening


def test_the_folder_of_a_store_is_created(tmp_path: Path) -> None:
    store = stores.open_store((tmp_path / "a b" / "ü#1").as_uri())
    assert store.where == str(tmp_path / "a b" / "ü#1")
    assert list((tmp_path / "a b" / "ü#1").iterdir()) == []


def test_a_scheme_that_is_not_supported_is_refused_by_name() -> None:
    sentence = r"^ftp://host/run: scheme 'ftp' is not supported \(use file:///folder or s3://bucket/prefix\)$"
    with pytest.raises(UserError, match=sentence):
        stores.open_store("ftp://host/run")


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match="name a folder that can be written"):
        stores.open_store((tmp_path / "taken").as_uri())
