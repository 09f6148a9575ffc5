"""Images by content, and the decoding of untrusted files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from support.builders import make_image

from gog import images, tool_api
from gog.errors import UserError
from gog.images import Image, ImageFolder


def save(image: PILImage.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def encode(image: Image, kind: str, **options: Any) -> bytes:
    return save(PILImage.fromarray(image.pixels), kind, **options)


def make_corners() -> np.ndarray:
    """48 x 32 pixels whose corners differ, smooth enough for a lossy format."""
    y, x = np.mgrid[0:32, 0:48]
    return np.stack([x * 5, y * 7, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def make_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it holds width x height pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


ENCODED = {kind: encode(make_image(), kind) for kind in images.FORMATS}


def test_the_hash_of_an_image_depends_on_its_pixels_only() -> None:
    image = make_image()
    small, large = encode(image, "PNG", compress_level=9), encode(image, "PNG", compress_level=0)
    assert small != large
    assert images.decode(small).hash == images.decode(large).hash == image.hash


def test_different_pixels_or_shapes_have_different_hashes() -> None:
    black = [Image(np.zeros(shape, np.uint8)) for shape in ((4, 9, 3), (9, 4, 3), (6, 6, 3))]
    assert len({image.hash for image in [*black, make_image(1), make_image(2)]}) == 5


def test_a_view_of_pixels_has_the_hash_of_its_copy() -> None:
    part = make_image().pixels[3:20, 5:25]
    assert Image(part).hash == Image(part.copy()).hash


def test_an_image_survives_its_encoding_for_a_tool() -> None:
    assert np.array_equal(tool_api.decode_image(tool_api.encode_image(make_image())).pixels, make_image().pixels)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_the_image_formats_of_the_web_are_decoded(kind: str) -> None:
    image = images.decode(ENCODED[kind])
    assert (image.width, image.height, image.pixels.dtype) == (40, 30, np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16"])
def test_every_pixel_mode_becomes_rgb(mode: str) -> None:
    assert images.decode(save(PILImage.new(mode, (5, 4)), "PNG")).pixels.shape == (4, 5, 3)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_an_ordinary_image_keeps_the_pixels_that_its_decoder_gives(kind: str) -> None:
    plain = PILImage.open(io.BytesIO(ENCODED[kind])).convert("RGB")
    assert np.array_equal(images.decode(ENCODED[kind]).pixels, np.asarray(plain))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", images.FORMATS)
def test_an_image_is_upright_whatever_its_orientation_mark(kind: str, orientation: int) -> None:
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90,  # stored turned left, shown turned back
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    upright = make_corners()
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    data = save(PILImage.fromarray(np.ascontiguousarray(turns[orientation](upright))), kind, exif=exif, quality=100)
    shown = images.decode(data).pixels
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright.astype(int)).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_orientation_mark_is_ignored() -> None:
    data = save(PILImage.fromarray(make_corners()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert images.decode(data).pixels.shape == make_corners().shape


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def palette(transparency: int | bytes) -> PILImage.Image:
    """Two pixels, entries 0 (red) and 1 (green) of a palette."""
    image = PILImage.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    image.info["transparency"] = transparency
    return image


def two(mode: str, *values: object) -> PILImage.Image:
    image = PILImage.new(mode, (2, 1))
    image.putdata(values)
    return image


@pytest.mark.parametrize(
    ("image", "options", "shown"),
    [
        (two("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)), {}, [RED, WHITE]),
        (two("RGBA", (255, 0, 0, 128), (0, 0, 0, 51)), {}, [(255, 127, 127), (204, 204, 204)]),
        (two("LA", (0, 255), (0, 0)), {}, [(0, 0, 0), WHITE]),
        (palette(1), {}, [RED, WHITE]),
        (palette(b"\0\xff"), {}, [WHITE, GREEN]),
        (two("RGB", RED, GREEN), {"transparency": RED}, [WHITE, GREEN]),
        (two("L", 7, 9), {"transparency": 7}, [WHITE, (9, 9, 9)]),
        (two("1", 0, 1), {}, [(0, 0, 0), WHITE]),
        (two("1", 0, 1), {"transparency": 0}, [WHITE, WHITE]),
    ],
    ids=["opaque", "half", "grey", "palette", "palette alpha", "colour key", "grey key", "bits", "bit key"],
)
def test_transparency_shows_white(image: PILImage.Image, options: dict, shown: list) -> None:
    assert images.decode(save(image, "PNG", **options)).pixels[0].tolist() == list(map(list, shown))


def test_transparency_shows_white_in_webp_too() -> None:
    data = save(two("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)), "WEBP", lossless=True, exact=True)
    assert images.decode(data).pixels[0].tolist() == [list(RED), list(WHITE)]


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    values = np.array([[0, 128, 256, 32768, 65407, 65535]], np.uint16)
    data = save(PILImage.fromarray(values), "PNG")
    assert images.decode(data).pixels[0].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 255, 255)]


def test_a_transparent_value_of_sixteen_bits_shows_white() -> None:
    data = save(PILImage.fromarray(np.array([[256, 512]], np.uint16)), "PNG", transparency=256)
    assert images.decode(data).pixels[0].tolist() == [[255] * 3, [2] * 3]


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_is_converted_to_the_colours_it_prints(progressive: bool) -> None:
    cyan, key = (255, 0, 0, 0), (0, 0, 0, 255)
    image = PILImage.new("CMYK", (32, 16), cyan)
    image.paste(key, (16, 0, 32, 16))
    shown = images.decode(save(image, "JPEG", quality=100, progressive=progressive)).pixels
    assert shown[8, 4].tolist() == pytest.approx([0, 255, 255], abs=4)
    assert shown[8, 28].tolist() == pytest.approx([0, 0, 0], abs=4)


def test_a_progressive_jpeg_shows_what_a_baseline_one_shows() -> None:
    image = PILImage.fromarray(make_corners())
    baseline, progressive = (images.decode(save(image, "JPEG", progressive=p)) for p in (False, True))
    assert np.array_equal(baseline.pixels, progressive.pixels)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "MPO"])
def test_the_first_image_of_several_counts(kind: str) -> None:
    first, second = PILImage.new("RGB", (16, 16), RED), PILImage.new("RGB", (16, 16), GREEN)
    data = save(first, kind, save_all=True, append_images=[second])
    assert images.decode(data).pixels[8, 8].tolist() == pytest.approx(RED, abs=4)


KINDS_OF_FILE = {
    "PNG": save(PILImage.fromarray(make_corners()), "PNG"),
    "PNG of a palette": save(PILImage.fromarray(make_corners()).quantize(8), "PNG"),
    "JPEG": save(PILImage.fromarray(make_corners()), "JPEG"),
    "progressive JPEG": save(PILImage.fromarray(make_corners()), "JPEG", progressive=True),
    "WEBP": save(PILImage.fromarray(make_corners()), "WEBP"),
    "lossless WEBP": save(PILImage.fromarray(make_corners()), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", KINDS_OF_FILE)
def test_a_whole_file_is_accepted_and_a_truncated_one_refused_by_name(kind: str, tmp_path: Path) -> None:
    whole, path = KINDS_OF_FILE[kind], tmp_path / "x.img"
    path.write_bytes(whole)
    images.read(path)
    for kept in (*range(0, len(whole), max(1, len(whole) // 40)), *range(len(whole) - 20, len(whole))):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError) as caught:
            images.read(path)
        assert caught.value.where == str(path)


def test_bytes_after_the_end_of_an_image_are_ignored(tmp_path: Path) -> None:
    for kind, whole in KINDS_OF_FILE.items():
        (tmp_path / "x").write_bytes(whole + b"\xff\xda" * 1_000)
        assert images.read(tmp_path / "x").hash == images.decode(whole).hash, kind


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    whole = save(PILImage.fromarray(make_corners()), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    hidden = b"\xff\x01\xff\xff"  # a marker without a length, which must not hide what follows
    (tmp_path / "x.jpg").write_bytes(whole[:-2] + hidden + last * 1_000 + whole[-2:])
    with pytest.raises(UserError, match=r"x\.jpg: \d+ scans \(at most 100 are accepted\)"):
        images.read(tmp_path / "x.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(UserError) as caught:
        images.decode(make_bomb(10_000, 8_000), where="page 3")
    assert str(caught.value) == "page 3: 10000 x 8000 pixels (at most 40,000,000 are accepted)"


def test_an_enormous_decompression_bomb_is_refused_too() -> None:
    with pytest.raises(UserError, match="not a readable image"):
        images.decode(make_bomb(60_000, 60_000))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"],
)
def test_bytes_that_are_not_an_image_are_refused(data: bytes) -> None:
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
def test_damage_to_a_file_raises_nothing_but_a_user_error(kind: str, data: st.DataObject) -> None:
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


def test_a_folder_stores_each_image_once_and_returns_it(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "images")
    names = [folder.add(image) for image in (make_image(1), make_image(2), make_image(1))]
    assert names == [make_image(1).hash, make_image(2).hash, make_image(1).hash]
    assert sorted(path.name for path in folder.root.iterdir()) == sorted({f"{name}.png" for name in names})
    assert np.array_equal(folder.get(names[0]).pixels, make_image(1).pixels)


def test_an_image_that_another_process_stored_is_not_written_again(tmp_path: Path) -> None:
    name = ImageFolder(tmp_path).add(make_image())
    written = (tmp_path / f"{name}.png").stat().st_mtime_ns
    ImageFolder(tmp_path).add(make_image())
    assert (tmp_path / f"{name}.png").stat().st_mtime_ns == written


def test_two_processes_can_store_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def overtaken(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        monkeypatch.setattr("os.getpid", lambda: 1)
        ImageFolder(tmp_path).add(make_image())  # the other process, between writing and renaming
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    ImageFolder(tmp_path).add(make_image())
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"]
