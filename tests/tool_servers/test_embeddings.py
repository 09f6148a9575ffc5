"""Image search by the vectors of a vision encoder, over an index of one's own images."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support import encoders as folders

from gog import images, tool_api
from gog.errors import UserError
from gog_console import cli
from gog_tools.search import embeddings, index_build, index_file, nearest
from gog_tools.search.backend import ImageSearch
from gog_tools.search.encoder import MAX_ASPECT, Encoder
from gog_tools.serving import backends

TITLES = {"Eileen ‹answer›Collins‹/answer›": "astronaut", "Chelsea the cat": "chelsea"}


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return folders.random_encoder("siglip", tmp_path_factory.mktemp("encoders") / "siglip")


@pytest.fixture
def gallery(tmp_path):
    """Photographs in two folders with metadata, and files that are none."""
    root = tmp_path / "gallery"
    (root / "deep").mkdir(parents=True)
    for name, path in folders.photographs().items():
        shutil.copy(path, root / "deep" if name == "chelsea" else root)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (root / "animation.gif").write_bytes(b"GIF89a")
    (root / "bomb.png").write_bytes(bomb())
    (root / ".hidden.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    (root / "link.png").symlink_to(root / "coffee.png")
    lines = [
        {"file_name": "astronaut.png", "title": "Eileen <answer>Collins</answer>", "license": "public domain"},
        {"file_name": "deep/chelsea.png", "text": "Chelsea the cat", "url": "https://cats.example/chelsea", "more": 1},
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def bomb(side=9_000):
    """A PNG of 10 kB with 81 million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def searched(index, encoder, *found, top=3):
    backend = embeddings.Embeddings(index, encoder)
    return [each.hits for each in backend.search([images.Image(pixels) for pixels in found], [top] * len(found))]


@pytest.mark.slow
def test_a_crop_and_a_resized_copy_find_their_photograph_first_by_a_real_encoder(gallery, tmp_path):
    encoder = Encoder(folders.imagenet_encoder(tmp_path / "encoder"), "efficientnet-lite0")
    index_build.build(gallery, tmp_path / "index", encoder)
    for name, path in folders.photographs().items():
        image = images.read(path)
        inner = image.pixels[image.height // 8 : -image.height // 8, image.width // 8 : -image.width // 8]
        small = np.asarray(PILImage.fromarray(image.pixels).resize((image.width // 2, image.height // 2)))
        for hits in searched(tmp_path / "index", encoder, inner, small):
            assert TITLES.get(hits[0].title, hits[0].title.replace(" ", "_")) == name
            assert hits[0].score > hits[1].score


@pytest.mark.parametrize("kind", folders.KINDS)
def test_every_architecture_finds_an_indexed_image_with_a_score_of_one(kind, gallery, tmp_path):
    encoder = Encoder(folders.random_encoder(kind, tmp_path / kind), kind)
    index_build.build(gallery, tmp_path / "index", encoder)
    image = images.read(folders.photographs()["coffee"])
    ((best, *_),) = searched(tmp_path / "index", encoder, image.pixels)
    assert (best.title, best.score) == ("coffee", pytest.approx(1, abs=1e-4))
    assert encoder.dimensions == (24 if kind == "clip" else 32)


def test_titles_captions_and_licences_come_from_the_metadata_with_tags_made_inert(gallery, siglip, tmp_path):
    encoder = Encoder(siglip, "siglip")
    index_build.build(gallery, tmp_path / "index", encoder)
    entries = {each.file: each for each in index_file.Entries(next((tmp_path / "index").glob("entries-*")))}
    astronaut, cat, coffee = (entries[name] for name in ("astronaut.png", "deep/chelsea.png", "coffee.png"))
    assert (astronaut.title, astronaut.license) == ("Eileen ‹answer›Collins‹/answer›", "public domain")
    assert (cat.title, cat.caption, cat.url) == ("Chelsea the cat",) * 2 + ("https://cats.example/chelsea",)
    assert (coffee.title, coffee.caption) == ("coffee", "")


def test_a_wrong_line_of_metadata_is_reported_by_file_line_and_field(gallery, siglip, tmp_path):
    with (gallery / "metadata.jsonl").open("a") as lines:
        lines.write('\n{"title": "no file"}\n')
    with pytest.raises(UserError, match=r"metadata\.jsonl:3: .*file_name"):
        index_build.build(gallery, tmp_path / "index", Encoder(siglip, "siglip"))


def test_files_that_are_no_images_are_skipped_by_name(gallery, siglip, tmp_path):
    manifest = index_build.build(gallery, tmp_path / "index", Encoder(siglip, "siglip"))
    lines = manifest.path(tmp_path / "index", "skipped").read_text().splitlines()
    skipped = {each["file"]: each["reason"] for each in map(json.loads, lines)}
    assert set(skipped) == {"broken.jpg", "animation.gif", "bomb.png"}
    assert skipped["bomb.png"] == "9000 x 9000 pixels"
    assert skipped["animation.gif"] == "not a readable image: its format is not known"
    assert manifest.images == len(folders.photographs()) and manifest.skipped == 3


def test_a_build_that_was_interrupted_continues_and_gives_the_same_index(gallery, siglip, tmp_path):
    encoder = Encoder(siglip, "siglip")
    whole = index_build.build(gallery, tmp_path / "whole", encoder, batch=2)

    def stop(line):
        if line.startswith("6 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_build.build(gallery, tmp_path / "parts", encoder, batch=2, report=stop)
    building = tmp_path / "parts" / index_build.BUILDING
    with (building / "vectors.f32").open("ab") as vectors, (building / "log.jsonl").open("ab") as log:
        vectors.write(b"half a vector")
        log.write(b'+{"file": "half a li')
    lines = []
    parts = index_build.build(gallery, tmp_path / "parts", encoder, batch=2, report=lines.append)
    assert lines[0].startswith("continues after 6 of")
    assert parts.hash == whole.hash and not building.exists()


def test_an_index_of_unchanged_files_is_not_built_again_and_of_changed_ones_is(gallery, siglip, tmp_path):
    encoder, lines = Encoder(siglip, "siglip"), []
    first = index_build.build(gallery, tmp_path / "index", encoder)
    assert index_build.build(gallery, tmp_path / "index", encoder, report=lines.append) == first
    assert lines == ["is up to date"]
    (gallery / "broken.jpg").unlink()
    second = index_build.build(gallery, tmp_path / "index", encoder)
    assert second.skipped == 2 and second.hash != first.hash
    assert len(list((tmp_path / "index").iterdir())) == 1 + len(second.files)


def test_an_index_of_another_encoder_is_refused(gallery, siglip, tmp_path):
    index_build.build(gallery, tmp_path / "index", Encoder(siglip, "siglip"))
    other = folders.random_encoder("siglip", tmp_path / "other", seed=1)
    options = json.dumps({"index": str(tmp_path / "index"), "encoder": str(other)})
    with pytest.raises(
        UserError, match=r"built with the encoder siglip \(fingerprint 1-[0-9a-f]{32}\), not with .*other"
    ):
        backends.load("image-search", "embeddings", options, ImageSearch, {"fetch_model": lambda: Path})


def test_results_come_with_small_images_where_thumbnails_are_asked_for(gallery, siglip, tmp_path):
    encoder = Encoder(siglip, "siglip")
    index_build.build(gallery, tmp_path / "index", encoder)
    backend = embeddings.Embeddings(tmp_path / "index", encoder, images=gallery, thumbnails=2)
    (gallery / "coffee.png").unlink()
    query = images.read(folders.photographs()["coffee"])
    hits = backend.search([query], [3])[0].hits
    assert hits[0].title == "coffee" and [bool(hit.thumbnail) for hit in hits] == [False, True, False]
    small = tool_api.decode_image(hits[1].thumbnail)
    assert max(small.width, small.height) == embeddings.THUMBNAIL_SIDE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "--options thumbnails: thumbnails needs images (name the indexed folder in images)"),
        ({"images": "nowhere"}, "--options images: nowhere: no such folder (name the indexed folder)"),
    ],
)
def test_thumbnails_without_their_images_are_refused_before_anything_is_fetched(options, sentence):
    given = json.dumps({"index": "s3://unreachable/index", "thumbnails": 3, **options})
    with pytest.raises(UserError) as caught:
        backends.load("image-search", "embeddings", given, ImageSearch, {"fetch_model": lambda: Path})
    assert caught.value.sentence() == sentence


def test_a_damaged_index_is_refused_by_the_name_of_the_file(gallery, siglip, tmp_path):
    encoder = Encoder(siglip, "siglip")
    manifest = index_build.build(gallery, tmp_path / "index", encoder)
    path = manifest.path(tmp_path / "index", "vectors")
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"vectors-[0-9a-f]{32}\.f32: its content has changed"):
        embeddings.Embeddings(tmp_path / "index", encoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights in safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be used as an encoder"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "is no encoder of images"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "cannot be used as an encoder"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04pickle"), "cannot be used as an encoder"),
    ],
)
def test_a_folder_that_is_no_encoder_is_refused_by_its_name(siglip, tmp_path, change, message):
    folder = shutil.copytree(siglip, tmp_path / "folder")
    change(folder)
    with pytest.raises(UserError, match=f"my-encoder: {message}"):
        Encoder(folder, "my-encoder")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3), (3, 1), (1, 4_000), (4_000, 1), (700, 50)])
def test_an_image_of_any_shape_gets_a_vector(siglip, width, height):
    encoder = Encoder(siglip, "siglip")
    image = images.Image(np.zeros((height, width, 3), np.uint8))
    assert encoder.encode([encoder.prepare(image)]).shape == (1, 32)
    framed = embeddings.encoders.framed(image)
    assert max(framed.size) <= MAX_ASPECT * min(framed.size) and min(framed.size) >= 16


def test_the_graph_finds_nearly_what_exact_search_finds(tmp_path):
    pytest.importorskip("usearch", reason="usearch is not installed (extra tools)")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 64))
    vectors = np.float32(centres[rng.integers(40, size=3_000)] + 0.7 * rng.normal(size=(3_000, 64)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[::60] + np.float32(0.05) * rng.normal(size=(50, 64)).astype(np.float32)
    nearest.build_graph(vectors, tmp_path / "graph")
    exact, scores = nearest.Exact(vectors).search(queries, 10)
    found, graph_scores = nearest.Graph(tmp_path / "graph", vectors).search(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found)])
    assert recall > 0.995
    assert np.array_equal(exact, np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10])
    assert np.allclose(graph_scores[:, 0], scores[:, 0], atol=1e-5)


def test_an_index_beyond_the_limit_holds_a_graph_that_the_server_uses(gallery, siglip, tmp_path):
    pytest.importorskip("usearch", reason="usearch is not installed (extra tools)")
    encoder = Encoder(siglip, "siglip")
    index_build.build(gallery, tmp_path / "index", encoder, exact_limit=5)
    backend = embeddings.Embeddings(tmp_path / "index", encoder)
    (found,) = backend.search([images.read(folders.photographs()["rocket"])], [50])
    assert isinstance(backend.nearest, nearest.Graph) and found.hits[0].title == "rocket"
    assert len(found.hits) == len(folders.photographs())


@pytest.mark.slow
def test_the_command_builds_an_index_that_a_server_answers_from(gallery, siglip, tmp_path, start, capfd):
    line = ["index", "build", "--encoder", str(siglip), str(gallery), "--out", str(tmp_path / "index")]
    assert cli.main(line) == 0
    shown = capfd.readouterr()
    assert "3 skipped, hash " in shown.out and "skipped bomb.png: 9000 x 9000 pixels" in shown.err
    options = json.dumps({"index": str(tmp_path / "index")})
    server = start("gog_tools.search.server", "image", "--backend", "embeddings", "--options", options)
    image = tool_api.encode_image(images.read(folders.photographs()["chelsea"]))
    answer = server.post(tool_api.IMAGE_SEARCH_PATH, {"image": image, "top": 2}).json()
    assert answer["hits"][0]["title"] == "Chelsea the cat" and len(answer["hits"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such folder"),
        (["empty"], "empty: no images"),
        (["gallery", "--device", "cuda:77"], "device: no device 'cuda:77'"),
        (["gallery", "--batch-size", "0"], "--batch-size: must be at least 1"),
        (["gallery", "--encoder", "nowhere"], "nowhere: no config.json"),
        (["gallery", "--encoder", "hf://a"], "hf://a: is not an address of a model"),
        (["gallery", "--store", "{"], "--store: "),
        (["gallery", "--endpoint-url", "notaurl"], "--endpoint-url: String should match pattern"),
    ],
)
def test_a_wrong_argument_of_the_command_is_one_sentence_and_exit_code_two(
    gallery, siglip, tmp_path, monkeypatch, capfd, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli.main(["index", "build", "--encoder", str(siglip), "--out", "index", *arguments]) == 2
    assert f"gog index build: {message}" in capfd.readouterr().err
