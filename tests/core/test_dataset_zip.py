"""A dataset as one file: the same bytes for the same folder, and nothing a stranger packed leaves its folder."""

from __future__ import annotations

import os
import stat
import threading
import zipfile

import pytest

from gog import dataset_zip, store
from gog.errors import UserError


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "dataset"
    (made / "images").mkdir(parents=True)
    (made / "train.jsonl").write_text("{}\n")
    (made / "images" / "a.png").write_bytes(bytes(range(256)) * 20)
    (made / ".marker").write_text("hidden")
    return made


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_comes_back_as_it_was_but_for_hidden_files(folder, tmp_path):
    assert dataset_zip.pack(folder, tmp_path / "d.zip") == 2
    back = dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back")
    assert contents(back) == {name: data for name, data in contents(folder).items() if name != ".marker"}


def test_a_bundle_is_of_its_content_not_of_its_day_or_place(folder, tmp_path):
    dataset_zip.pack(folder, tmp_path / "first.zip")
    os.utime(folder / "train.jsonl", (1, 1))
    (folder / "train.jsonl").chmod(0o600)
    moved = folder.rename(tmp_path / "elsewhere")
    dataset_zip.pack(moved, tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def entry(name, *, mode=stat.S_IFREG | 0o644, compress=zipfile.ZIP_STORED):
    made = zipfile.ZipInfo(name)
    made.external_attr, made.compress_type, made.create_system = mode << 16, compress, 3
    return made


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([(entry("../outside"), b"x")], "'../outside' is not a plain path"),
        ([(entry("/etc/passwd"), b"x")], "'/etc/passwd' is not a plain path"),
        ([(entry("a/../../b"), b"x")], "is not a plain path"),
        ([(entry("a\\..\\b"), b"x")], "is not a plain path"),
        ([(entry("link", mode=stat.S_IFLNK | 0o777), b"/etc/passwd")], "'link' is a link or a device"),
        ([(entry("bomb", compress=zipfile.ZIP_DEFLATED), b"0" * 10_000_000)], "'bomb' is compressed"),
        ([(entry("twice"), b"x"), (entry("twice"), b"y")], "a name occurs twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_not_safe_is_refused_before_anything_is_written(entries, sentence, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as made:
        for info, data in entries:
            made.writestr(info, data)
    with pytest.raises(UserError, match=sentence):
        dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "inner" / "back")
    assert list((tmp_path / "inner").iterdir()) == []


def test_files_that_claim_to_weigh_more_than_the_bundle_are_refused(folder, tmp_path, monkeypatch):
    dataset_zip.pack(folder, tmp_path / "d.zip")
    honest = zipfile.ZipFile.infolist

    def lying(self):
        found = honest(self)
        found[0].file_size = 1 << 40
        return found

    monkeypatch.setattr(zipfile.ZipFile, "infolist", lying)
    with pytest.raises(UserError, match="larger than it is"):
        dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back")


def test_a_torn_bundle_leaves_no_folder(folder, tmp_path):
    dataset_zip.pack(folder, tmp_path / "d.zip")
    data = bytearray((tmp_path / "d.zip").read_bytes())
    data[100] ^= 0xFF
    (tmp_path / "d.zip").write_bytes(data)
    with pytest.raises(UserError, match="not a dataset bundle"):
        dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_of_many_that_ask_for_a_folder_one_makes_it_and_the_others_wait(tmp_path):
    made, seen, together = [], [], threading.Barrier(4)

    def make(fresh):
        made.append(fresh)
        fresh.mkdir()
        (fresh / "whole").write_text("yes")

    def ask():
        together.wait()
        seen.append((dataset_zip.once(tmp_path / "shared" / "data", make) / "whole").read_text())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and seen == ["yes"] * 4


def test_a_folder_whose_making_failed_is_made_at_the_next_asking(tmp_path):
    def fail(fresh):
        fresh.mkdir()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        dataset_zip.once(tmp_path / "data", fail)
    assert dataset_zip.once(tmp_path / "data", lambda fresh: fresh.mkdir()).is_dir()


def test_a_dataset_in_a_store_is_fetched_and_the_newest_one(folder, tmp_path):
    place = store.open_store(f"file://{tmp_path}/store")
    for number in (1, 2):
        (folder / "train.jsonl").write_text(f"{number}\n")
        dataset_zip.pack(folder, tmp_path / "d.zip")
        place.publish(dataset_zip.KEY, number, {dataset_zip.FILE: tmp_path / "d.zip"})
    found = dataset_zip.fetch_dataset(f"file://{tmp_path}/store", None, tmp_path / "scratch" / "data")
    assert found == tmp_path / "scratch" / "data" and (found / "train.jsonl").read_text() == "2\n"


def test_a_plain_folder_is_its_own_dataset(folder, tmp_path):
    assert dataset_zip.fetch_dataset(f"file://{folder}", None, tmp_path / "scratch") == folder
    assert not (tmp_path / "scratch").exists()
