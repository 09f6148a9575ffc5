"""Embedding indexes in a store, and images in a bucket: verified, and moved once. The bucket is a real S3 server's."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image as PILImage
from support import s3
from support.encoders import Colours

from gog import images
from gog.errors import UserError
from gog.store import s3 as s3_backend
from gog_console import cli
from gog_tools.search import embeddings, index_command, index_file, index_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gallery(tmp_path):
    folder = tmp_path / "gallery"
    (folder / "deep").mkdir(parents=True)
    for number, colour in enumerate(np.random.default_rng(0).integers(0, 255, (6, 3))):
        PILImage.new("RGB", (20, 20), tuple(map(int, colour))).save(folder / "deep" / f"{number}.png")
    (folder / "metadata.jsonl").write_text('{"file_name": "deep/3.png", "title": "Three"}\n')
    (folder / "notes.txt").write_text("not fetched")
    return folder


@pytest.fixture
def build(monkeypatch, capfd):
    """build(*arguments): exit code and output of the command, whose encoder has no network."""

    def run(*arguments, encoder=None):
        monkeypatch.setattr(index_command.encoders, "load", lambda *_, **__: encoder or Colours())
        code = cli.main(["index", "build", "--encoder", "colours", *map(str, arguments)])
        return code, "".join(capfd.readouterr())

    return run


class Unused(Colours):
    """An encoder that must not be asked."""

    def encode(self, prepared):
        raise AssertionError("encodes an image that is in the index")


def titles(folder, gallery):
    (found,) = embeddings.Embeddings(folder, Colours()).search([images.read(gallery / "deep" / "3.png")], [2])
    return [hit.title for hit in found.hits]


def test_an_index_is_published_in_a_store_and_fetched_once(build, gallery, tmp_path):
    uri = (tmp_path / "store").as_uri()
    code, output = build(gallery, "--out", uri)
    assert code == 0 and "published as index/1" in output
    folder = index_store.fetch(uri, None)
    assert titles(folder, gallery)[0] == "Three"
    shutil.rmtree(tmp_path / "store" / "blobs")
    assert index_store.fetch(uri, None) == folder and titles(folder, gallery)[0] == "Three"


def test_an_index_that_has_not_changed_is_neither_built_nor_published_again(build, gallery, cache, tmp_path):
    uri = (tmp_path / "store").as_uri()
    build(gallery, "--out", uri)
    shutil.rmtree(cache)  # as on another machine
    code, output = build(gallery, "--out", uri, encoder=Unused())
    assert code == 0 and "is up to date" in output and "published as index/1" in output
    (gallery / "deep" / "0.png").unlink()
    assert "published as index/2" in build(gallery, "--out", uri)[1]
    assert index_file.read_manifest(index_store.fetch(uri, None)).images == 5


def test_an_index_of_another_encoder_in_a_store_is_replaced_only_when_that_is_asked_for(
    build, gallery, cache, tmp_path
):
    uri = (tmp_path / "store").as_uri()
    build(gallery, "--out", uri)
    shutil.rmtree(cache)
    code, output = build(gallery, "--out", uri, encoder=Colours("1"))
    assert code == 2 and "holds an index by the encoder colours-0" in output
    code, output = build(gallery, "--out", uri, "--replace", encoder=Colours("1"))
    assert code == 0 and "published as index/2" in output


def test_a_damaged_or_absent_index_in_a_store_is_refused_by_its_address(build, gallery, tmp_path):
    uri = (tmp_path / "store").as_uri()
    with pytest.raises(
        UserError, match=r"the store holds no index .`gog index build DIR --encoder MODEL --out file://"
    ):
        index_store.fetch(uri, None)
    build(gallery, "--out", uri)
    blob = max((tmp_path / "store" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(UserError, match="is corrupt"):
        index_store.fetch(uri, None)


def test_a_server_without_a_home_fetches_an_index_into_its_own_folder(build, gallery, tmp_path, monkeypatch):
    uri = (tmp_path / "store").as_uri()
    build(gallery, "--out", uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(gallery / "notes.txt" / "no folder"))
    folder = index_store.fetch(uri, None, tmp_path / "scratch")
    assert folder.is_relative_to(tmp_path / "scratch") and titles(folder, gallery)[0] == "Three"


def test_a_file_address_of_an_index_folder_is_that_folder(build, gallery, tmp_path):
    build(gallery, "--out", tmp_path / "index")
    assert index_store.fetch((tmp_path / "index").as_uri(), None) == tmp_path / "index"


def test_images_and_index_may_both_lie_in_a_bucket(build, gallery, gateway, tmp_path, monkeypatch):
    prefix = f"index-{tmp_path.name}"
    shutil.copytree(gallery, gateway.folder / s3.BUCKET / prefix / "photos")
    address = f"s3://{s3.BUCKET}/{prefix}"
    server = ["--endpoint-url", gateway.url, "--region", "us-east-1", "--path-style"]
    fetched, fetch = [], s3_backend.S3Backend.fetch_object
    monkeypatch.setattr(
        s3_backend.S3Backend,
        "fetch_object",
        lambda own, entry, path: (fetched.append(entry.key), fetch(own, entry, path)),
    )
    code, output = build(f"{address}/photos", "--out", f"{address}/index", *server)
    assert code == 0 and "published as index/1" in output, output
    assert sorted(fetched) == [*(f"deep/{number}.png" for number in range(6)), "metadata.jsonl"]
    folder = index_store.fetch(f"{address}/index", gateway.spec(prefix))
    assert titles(folder, gallery)[0] == "Three"

    fetched.clear()
    (gateway.folder / s3.BUCKET / prefix / "photos" / "deep" / "0.png").unlink()
    code, output = build(f"{address}/photos", "--out", f"{address}/index", *server)
    assert code == 0 and fetched == [] and "published as index/2" in output
    assert index_file.read_manifest(index_store.fetch(f"{address}/index", gateway.spec(prefix))).images == 5
