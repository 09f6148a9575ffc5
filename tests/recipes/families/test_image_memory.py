"""Features and images are bounded by bytes, patches exist during a pass only, and images are prepared off the loop."""

from __future__ import annotations

import tempfile
import threading

import numpy as np
import pytest
import torch

from gog.errors import UnreadableImage
from gog.images import Image
from gog_recipes.models.family import Patches, Resized
from gog_recipes.models.image_spool import ImageSpool
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import config


class Processor:
    """One token per pixel; records which thread resizes."""

    def __init__(self):
        self.threads, self.cut = [], 0

    def grid(self, width, height):
        return (1, height, width)

    def resize(self, image):
        self.threads.append(threading.get_ident())
        return Resized(image.pixels, self.grid(image.width, image.height))

    def rows(self, resized):
        self.cut += 1
        return resized.pixels.reshape(-1, 3).astype(np.float32)

    def image_tokens(self, grid):
        return grid[1] * grid[2]

    def patches(self, image):
        return Patches(self.rows(self.resize(image)), self.grid(image.width, image.height))


def tower(rows, grids):
    return rows * 2


def image(seed, side=8):
    return Image(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def expected(shown):
    return torch.from_numpy(shown.pixels.reshape(-1, 3).astype(np.float32)) * 2


BYTES = 8 * 8 * 3 * 4
"""Of one image's features."""


def test_features_are_dropped_beyond_their_bytes_and_made_again():
    vision, shown = Vision(tower, Processor(), feature_bytes=3 * BYTES), [image(seed) for seed in range(10)]
    for each in shown:
        vision.add([each])
        vision[each.hash]
    assert vision.held_bytes <= 3 * BYTES and vision.encoded == 10
    for each in shown:
        torch.testing.assert_close(vision[each.hash], expected(each))
    assert vision.held_bytes <= 3 * BYTES and vision.encoded > 10


def test_a_batch_that_is_larger_than_the_cache_is_whole():
    vision, shown = Vision(tower, Processor(), feature_bytes=2 * BYTES), [image(seed) for seed in range(6)]
    vision.add(shown)
    hashes = [each.hash for each in (*shown, shown[0])]
    torch.testing.assert_close(vision.features(hashes), torch.cat([expected(each) for each in (*shown, shown[0])]))
    assert vision.encoded == 6 and vision.held_bytes <= 2 * BYTES
    assert vision.features([]) is None


def test_the_least_recently_used_features_are_dropped_first():
    vision, shown = Vision(tower, Processor(), feature_bytes=2 * BYTES), [image(seed) for seed in range(3)]
    for each in (*shown[:2], shown[0], shown[2]):
        vision.add([each])
        vision[each.hash]
    assert vision.encoded == 3
    vision[shown[0].hash]
    assert vision.encoded == 3
    vision[shown[1].hash]
    assert vision.encoded == 4


@pytest.fixture
def two_images_on_disk(monkeypatch):
    monkeypatch.setattr("gog_recipes.models.vision.ImageSpool", lambda _: ImageSpool(0, 400))  # of 192 bytes each


def test_an_image_whose_file_was_deleted_is_kept_again_although_its_features_are_known(two_images_on_disk):
    vision, (first, second, third) = Vision(tower, Processor(), feature_bytes=BYTES), [image(n) for n in range(3)]
    for each in (first, second):
        vision.add([each])
        vision[each.hash]
    vision[first.hash]
    vision.add([third, first])  # the third takes the file of the first, whose features are known
    vision[third.hash]
    torch.testing.assert_close(vision[first.hash], expected(first))


def test_an_image_that_waits_and_whose_file_was_deleted_does_not_fail_the_pass_of_another(two_images_on_disk):
    vision, shown = Vision(tower, Processor()), [image(seed) for seed in range(3)]
    vision.add(shown)
    torch.testing.assert_close(vision[shown[2].hash], expected(shown[2]))
    assert vision.encoded == 2


class Shards:
    """A divided tower; records what all ranks do at once."""

    def __init__(self, needed_elsewhere=False):
        self.needed_elsewhere, self.calls = needed_elsewhere, []

    def gather(self):
        self.calls.append("gather")

    def release(self):
        self.calls.append("release")

    def any(self, mine):
        self.calls.append("ask")
        return mine or self.needed_elsewhere

    def agree(self, error):
        self.calls.append("agree")
        if error is not None:
            raise error


GATHERED = ["ask", "gather", "release", "agree"]


def test_a_divided_tower_is_gathered_for_a_batch_only_if_a_rank_must_encode_an_image():
    shards, shown = Shards(), image(0)
    vision = Vision(tower, Processor(), shards=shards)
    vision.add([shown])
    assert vision.features([]) is None and shards.calls == ["ask"]
    torch.testing.assert_close(vision.features([shown.hash]), expected(shown))
    assert shards.calls == ["ask", *GATHERED]
    vision.features([shown.hash])  # known by now
    shards.needed_elsewhere = True
    vision.features([shown.hash])
    assert shards.calls == ["ask", *GATHERED, "ask", *GATHERED]


def test_a_tower_that_is_gathered_for_a_rollout_encodes_without_the_other_ranks():
    shards, shown = Shards(), image(0)
    vision = Vision(tower, Processor(), shards=shards)
    vision.add([shown])
    vision.gather()
    vision.features([shown.hash])
    vision.release()
    vision.release()
    assert shards.calls == ["gather", "release"]


def test_a_tower_is_divided_again_and_the_ranks_are_asked_when_an_image_fails():
    shards, shown = Shards(), image(0)
    vision = Vision(tower, Processor(), shards=shards)

    def torn():
        raise OSError("torn")

    vision.expect(shown, torn)
    with pytest.raises(OSError, match="torn"):
        vision.features([shown.hash])
    assert shards.calls == GATHERED


def test_an_expected_image_is_read_when_it_is_needed_and_not_kept():
    reads, shown, processor = [], image(1), Processor()
    vision = Vision(tower, processor)
    vision.expect(shown, lambda: reads.append(1) or shown)
    assert vision.grid(shown.hash) == (1, 8, 8) and not reads and not processor.threads
    torch.testing.assert_close(vision[shown.hash], expected(shown))
    vision[shown.hash]
    assert len(reads) == 1


def test_patches_are_cut_when_a_pass_runs_and_not_before():
    processor, shown = Processor(), [image(seed) for seed in range(3)]
    vision = Vision(tower, processor)
    vision.add(shown)
    assert processor.cut == 0
    vision[shown[0].hash]
    assert processor.cut == 3


def test_images_beyond_the_memory_lie_in_files_and_the_oldest_are_deleted():
    spool, shown = ImageSpool(400, 600), [image(seed) for seed in range(6)]  # 192 bytes each
    for each in shown:
        spool.put(each.hash, each.pixels)
    kept = [each.hash in spool for each in shown]
    assert kept == [False, True, True, True, True, True]
    for each in shown[1:]:
        np.testing.assert_array_equal(spool.get(each.hash), each.pixels)
    with pytest.raises(
        UnreadableImage, match=f"{shown[0].hash} cannot be read: its file was deleted, because 600 bytes"
    ):
        spool.get(shown[0].hash)


def deleted(path):
    path.unlink()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path):
    path.write_bytes(b"")


def changed(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("damage", [deleted, cut_off, emptied, changed])
def test_a_file_that_was_deleted_or_damaged_from_outside_is_named_with_the_remedy(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool, shown = ImageSpool(0), image(0)
    spool.put(shown.hash, shown.pixels)
    [path] = tmp_path.rglob("*.npy")
    damage(path)
    with pytest.raises(UnreadableImage, match=rf"{path}: .*\(the next attempt makes it again; .*TMPDIR"):
        spool.get(shown.hash)


def test_a_stage_whose_image_cannot_be_read_again_fails_in_one_line_and_is_retried(capsys):
    def main():
        raise UnreadableImage("ab12", "/tmp/ab12.npy: No such file or directory")

    with pytest.raises(SystemExit) as caught:
        config.exit_with(main)
    assert caught.value.code == config.FAILED
    assert capsys.readouterr().err.startswith(
        "failed: the resized image ab12 cannot be read: /tmp/ab12.npy: No such file"
    )
