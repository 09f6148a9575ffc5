"""A dataset as one zip: the same bytes for the same folder, nothing lost, and no stranger's zip writes outside."""

from __future__ import annotations

import os
import stat
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


def test_a_folder_comes_back_without_hidden_files(folder, tmp_path):
    assert dataset_zip.pack(folder, tmp_path / "d.zip") == 2
    back = dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back")
    assert contents(back) == {name: data for name, data in contents(folder).items() if name != ".marker"}


def test_the_zip_depends_on_the_content_only(folder, tmp_path):
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
def test_an_unsafe_zip_is_refused_before_anything_is_written(entries, sentence, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as made:
        for info, data in entries:
            made.writestr(info, data)
    with pytest.raises(UserError, match=sentence):
        dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "inner" / "back")
    assert list((tmp_path / "inner").iterdir()) == []


def test_files_that_claim_to_be_larger_than_the_zip_are_refused(folder, tmp_path, monkeypatch):
    dataset_zip.pack(folder, tmp_path / "d.zip")
    honest = zipfile.ZipFile.infolist

    def lying(self):
        found = honest(self)
        found[0].file_size = 1 << 40
        return found

    monkeypatch.setattr(zipfile.ZipFile, "infolist", lying)
    with pytest.raises(UserError, match="larger than the zip"):
        dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back")


def test_a_torn_zip_leaves_no_folder(folder, tmp_path):
    dataset_zip.pack(folder, tmp_path / "d.zip")
    data = bytearray((tmp_path / "d.zip").read_bytes())
    data[100] ^= 0xFF
    (tmp_path / "d.zip").write_bytes(data)
    with pytest.raises(UserError, match="not a packed dataset"):
        dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def packed(folder, tmp_path, *needed):
    """What comes back of a folder, by name."""
    dataset_zip.pack(folder, tmp_path / "d.zip", needed)
    return contents(dataset_zip.unpack(tmp_path / "d.zip", tmp_path / "back"))


def test_a_linked_folder_is_packed_as_what_it_links_to(folder, tmp_path):
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    (folder / "linked.txt").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert packed(folder, tmp_path).keys() == {"train.jsonl", "images/a.png", "linked.txt"}


def test_a_hidden_file_that_is_needed_is_packed(folder, tmp_path):
    (folder / ".images").mkdir()
    (folder / ".images" / "b.png").write_bytes(b"b")
    (folder / ".images" / "c.png").write_bytes(b"c")
    assert packed(folder, tmp_path, "./.images/b.png").keys() == {"train.jsonl", "images/a.png", ".images/b.png"}


def test_a_needed_file_that_is_missing_is_named_and_no_zip_appears(folder, tmp_path):
    with pytest.raises(UserError, match=r"'images/b\.png': cannot read: No such file"):
        dataset_zip.pack(folder, tmp_path / "d.zip", ["images/b.png"])
    assert not (tmp_path / "d.zip").exists()


@pytest.mark.parametrize("name", ["images\\b.png", os.fsdecode(b"b\xff.png")])
def test_a_name_that_could_not_be_unpacked_is_refused(folder, tmp_path, name):
    (folder / name).write_bytes(b"b")
    with pytest.raises(UserError, match=r"rename the file"):
        dataset_zip.pack(folder, tmp_path / "d.zip")


def test_names_in_any_script_are_packed(folder, tmp_path):
    name = "images/北京\u3000図 1\u200d.png"
    (folder / name).write_bytes(b"b")
    assert name in packed(folder, tmp_path)


def test_a_link_to_a_folder_above_itself_is_refused_by_name(folder, tmp_path):
    (folder / "images" / "loop").symlink_to(folder)
    with pytest.raises(UserError, match=r"images/loop: links to a folder above itself \(remove the link\)"):
        dataset_zip.pack(folder, tmp_path / "d.zip")


def test_a_dataset_in_a_store_is_fetched_and_the_newest_one(folder, tmp_path):
    place = store.open_store(f"file://{tmp_path}/store")
    for number in (1, 2):
        (folder / "train.jsonl").write_text(f"{number}\n")
        dataset_zip.pack(folder, tmp_path / "d.zip")
        place.publish(dataset_zip.KEY, number, {dataset_zip.FILE: tmp_path / "d.zip"})
    found = dataset_zip.fetch_dataset(f"file://{tmp_path}/store", None, tmp_path / "scratch" / "data")
    assert found.parent == tmp_path / "scratch" and (found / "train.jsonl").read_text() == "2\n"


def test_a_plain_folder_is_its_own_dataset(folder, tmp_path):
    assert dataset_zip.fetch_dataset(f"file://{folder}", None, tmp_path / "scratch") == folder
    assert not (tmp_path / "scratch").exists()
