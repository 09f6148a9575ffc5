"""Images by content, and images from strangers."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from support.builders import make_image

from gog import images, tool_api
from gog.errors import UserError
from gog.images import Image, ImageFolder


def encode(image: Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PILImage.fromarray(image.pixels).save(stream, kind, **options)
    return stream.getvalue()


def make_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it holds width x height pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


ENCODED = {kind: encode(make_image(), kind) for kind in images.FORMATS}


def test_an_image_is_named_by_its_pixels_however_it_was_encoded() -> None:
    image = make_image()
    small, large = encode(image, "PNG", compress_level=9), encode(image, "PNG", compress_level=0)
    assert small != large
    assert images.decode(small).hash == images.decode(large).hash == image.hash


def test_other_pixels_and_other_shapes_have_other_names() -> None:
    black = [Image(np.zeros(shape, np.uint8)) for shape in ((4, 9, 3), (9, 4, 3), (6, 6, 3))]
    assert len({image.hash for image in [*black, make_image(1), make_image(2)]}) == 5


def test_a_cut_out_part_has_the_name_of_its_copy() -> None:
    part = make_image().pixels[3:20, 5:25]
    assert Image(part).hash == Image(part.copy()).hash


def test_an_image_survives_the_wire() -> None:
    assert np.array_equal(tool_api.decode_image(tool_api.encode_image(make_image())).pixels, make_image().pixels)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_the_formats_of_the_web_are_read(kind: str) -> None:
    image = images.decode(ENCODED[kind])
    assert (image.width, image.height, image.pixels.dtype) == (40, 30, np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16"])
def test_every_kind_of_pixel_becomes_red_green_blue(mode: str) -> None:
    stream = io.BytesIO()
    PILImage.new(mode, (5, 4)).save(stream, "PNG")
    assert images.decode(stream.getvalue()).pixels.shape == (4, 5, 3)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(UserError) as caught:
        images.decode(make_bomb(10_000, 8_000), where="page 3")
    assert str(caught.value) == "page 3: 10000 x 8000 pixels (at most 40,000,000 are accepted)"


def test_an_enormous_bomb_is_refused_too() -> None:
    with pytest.raises(UserError, match="not a readable image"):
        images.decode(make_bomb(60_000, 60_000))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(UserError) as caught:
        images.decode(data, where="thumbnail")
    assert caught.value.where == "thumbnail"
    assert caught.value.what.startswith("not a readable image")
    assert caught.value.remedy == "give one of PNG, JPEG, WEBP"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match="not a readable image"):
        images.decode(encode(make_image(), kind))


@given(st.sampled_from(images.FORMATS), st.data())
def test_no_damage_to_a_file_is_more_than_a_user_error(kind: str, data: st.DataObject) -> None:
    spoilt = bytearray(ENCODED[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    del spoilt[data.draw(st.integers(0, len(spoilt))) :]
    try:
        image = images.decode(bytes(spoilt))
    except UserError:
        return
    assert image.pixels.shape[2] == 3


@pytest.mark.parametrize("text", ["", "hello", "!!!!", "aGVsbG8="])
def test_base64_that_holds_no_image_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="image: not a readable image"):
        tool_api.decode_image(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        images.read(tmp_path / "none.png")
    assert str(caught.value) == f"{tmp_path / 'none.png'}: cannot read image: No such file or directory"


def test_a_folder_keeps_each_image_once_and_gives_it_back(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "images")
    names = [folder.add(image) for image in (make_image(1), make_image(2), make_image(1))]
    assert names == [make_image(1).hash, make_image(2).hash, make_image(1).hash]
    assert sorted(path.name for path in folder.root.iterdir()) == sorted({f"{name}.png" for name in names})
    assert np.array_equal(folder.get(names[0]).pixels, make_image(1).pixels)


def test_a_folder_that_another_process_filled_is_not_written_again(tmp_path: Path) -> None:
    name = ImageFolder(tmp_path).add(make_image())
    written = (tmp_path / f"{name}.png").stat().st_mtime_ns
    ImageFolder(tmp_path).add(make_image())
    assert (tmp_path / f"{name}.png").stat().st_mtime_ns == written


def test_two_processes_may_write_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def overtaken(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        monkeypatch.setattr("os.getpid", lambda: 1)
        ImageFolder(tmp_path).add(make_image())  # the other process, between writing and renaming
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    ImageFolder(tmp_path).add(make_image())
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"]
