"""The photo world, made of cut-outs and photographs that are drawn here."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from gog import dataset, images
from gog.errors import UserError
from gog_recipes.photos import cutouts, detector, generate, scenes

WORDS = ("alba", "bruna", "clara", "densa", "fulva", "grisea")


def noise(size, seed, low=0, high=256):
    return Image.fromarray(np.random.default_rng(seed).integers(low, high, (size[1], size[0], 3), np.uint8))


def put(folder, stem, text, picture):
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{stem}.png")
    (folder / f"{stem}.txt").write_text(text, encoding="utf-8")


def cut(picture):
    """A disc of a picture on nothing."""
    alpha = Image.new("L", picture.size)
    ImageDraw.Draw(alpha).ellipse((4, 4, picture.width - 5, picture.height - 5), fill=255)
    picture = picture.convert("RGBA")
    picture.putalpha(alpha)
    return picture


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    root = tmp_path_factory.mktemp("stamps")
    for number, (kind, folders) in enumerate(cutouts.CLASSES.items()):
        for place, word in enumerate(WORDS):
            text = f"A {kind} {word}.\nde.utf8=Ein {kind.title()}{word}.\nfr.utf8=Un grand {word}.\nxx.utf8=x\n"
            put(root / folders[0], word, text, cut(noise((60, 40), 10 * number + place)))
    return root


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for number in range(4):
        noise((500, 400), 1000 + number, 40 * number, 40 * number + 60).save(root / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def world(stamps, photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "world"
    write(folder, stamps, photographs, generate.Sizes(train=24, test=12))
    return folder


def write(folder, stamps, photographs, sizes):
    generate.write(folder, cutouts.read(stamps), scenes.Photographs(photographs), sizes)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def questions(world, split):
    return dataset.read_questions(world, split)


def test_names_lose_their_articles_and_only_single_words_can_be_answers(stamps):
    found = {each.name: each for each in cutouts.read(stamps)}
    assert len(found) == len(cutouts.CLASSES) * len(WORDS)
    assert found["bird alba"].names == {"German": "Birdalba"}, (
        "a name of two words, and an unknown language, are left out"
    )


def test_drawings_and_descriptions_are_no_cutouts(tmp_path):
    root = tmp_path / "mirror"
    birds = root / "animals" / "birds"
    put(birds, "photo", "A robin.\n", cut(noise((60, 40), 1)))
    put(birds, "drawn", "A jay.\n", cut(Image.new("RGB", (60, 40), "red")))
    put(birds, "described", "A very small bird that sings in the night.\n", cut(noise((60, 40), 2)))
    put(birds, "again", "The robin.\n", cut(noise((60, 40), 3)))
    put(birds / "cartoon", "funny", "A duck.\n", cut(noise((60, 40), 4)))
    assert [each.name for each in cutouts.read(root)] == ["robin"]
    with pytest.raises(UserError, match="no cut-outs"):
        cutouts.read(tmp_path / "elsewhere")


def test_a_world_is_a_dataset_without_faults_and_the_same_each_time(world, stamps, photographs, tmp_path):
    dataset.check(world, ("train", "test"))
    again = tmp_path / "again"
    write(again, stamps, photographs, generate.Sizes(train=24, test=12))
    assert contents(again) == contents(world)
    with pytest.raises(UserError, match="is not empty"):
        write(again, stamps, photographs, generate.Sizes(train=1, test=1))


def test_cutouts_and_photographs_that_allow_no_world_are_refused(stamps, photographs, tmp_path):
    alone = tmp_path / "alone"
    for word in WORDS:
        put(alone / "animals" / "birds", word, "", cut(noise((60, 40), 1)))
    put(alone / "animals" / "birds", "robin", "A robin.\n", cut(noise((60, 40), 2)))
    with pytest.raises(UserError, match="robin: too few cut-outs"):
        write(tmp_path / "world", alone, photographs, generate.Sizes(train=1, test=1))
    put(alone / "animals" / "birds", "wren", "A wren.\n", cut(noise((60, 40), 3)))
    with pytest.raises(UserError, match="pictures in a row allow no question"):
        write(tmp_path / "world", alone, photographs, generate.Sizes(train=1, test=1))
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(3):
        (broken / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"jpg: cannot be read"):
        write(tmp_path / "world", stamps, broken, generate.Sizes(train=1, test=1))
    assert not (tmp_path / "world").exists()


def test_held_out_questions_are_about_things_that_no_training_question_shows(world):
    things = {
        split: {(each.evidence.model_extra or {})["entity"] for each in questions(world, split)}
        for split in ("train", "test")
    }
    assert things["train"] and things["test"] and not things["train"] & things["test"]


def test_the_answer_stands_on_the_page_of_the_thing_that_the_question_means(world):
    pages = {each.title: each.text for each in dataset.read_lines(world / dataset.CORPUS, dataset.Document)}
    kinds = set()
    for each in [*questions(world, "train"), *questions(world, "test")]:
        marks = each.evidence.model_extra or {}
        kinds.add(each.evidence.kind)
        if each.evidence.kind == "name":
            assert each.answers == (marks["entity"],)
        else:
            assert f"{marks['attribute']} {each.answers[0]}" in pages[marks["entity"]]
    assert kinds == {"name", "fact", "text"}


@pytest.mark.parametrize("seed", range(6))
def test_the_marked_box_holds_the_outermost_thing_of_its_class(seed, stamps, photographs):
    known, behind, rng = cutouts.read(stamps), scenes.Photographs(photographs), random.Random(seed)
    scene = generate.draw(rng, known, behind.crop(rng, behind.paths[0]))
    for position, (axis, direction) in generate.POSITIONS.items():
        found = generate.outermost(scene.things, axis, direction)
        if found is None:
            continue
        alike = [each for each in scene.things if each.cutout.kind == scene.things[0].cutout.kind]
        centres = [direction * (each.box[axis] + each.box[axis + 2]) for each in alike]
        assert centres[alike.index(found)] == max(centres), position


def test_a_box_is_tight_around_the_pixels_of_its_thing(stamps, photographs):
    known, behind, rng = cutouts.read(stamps), scenes.Photographs(photographs), random.Random(3)
    scene = scenes.compose(rng, behind.crop(rng, behind.paths[0]), known[:3])
    assert len(scene.things) == 3
    for number, thing in enumerate(scene.things, 1):
        rows, columns = np.nonzero(scene.mask == number)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(found, thing.box)).max() <= 2


def test_every_cutout_can_be_found_by_its_image_and_by_its_name(world, stamps):
    names = {each.name for each in cutouts.read(stamps)}
    index = list(dataset.read_lines(world / dataset.INDEX, dataset.IndexedImage))
    assert {each.title for each in index} == names
    rows = map(json.loads, (world / "index" / "images" / "metadata.jsonl").read_text().splitlines())
    assert {row["file_name"]: row["title"] for row in rows} == {
        each.image.rpartition("/")[2]: each.title for each in index
    }


def test_regions_are_what_is_connected_by_sides():
    mask = np.zeros((6, 8), bool)
    mask[0:2, 0:3] = mask[2, 3] = mask[4:6, 5:8] = True
    boxes = sorted((tuple(each.min(0)), tuple(each.max(0))) for each in detector.regions(mask))
    assert boxes == [((0, 0), (1, 2)), ((2, 3), (2, 3)), ((4, 5), (5, 7))]


def test_a_thing_has_the_box_and_the_class_of_its_cells():
    shares = np.full((1 + len(detector.KINDS), 72, 96), 0.01)
    shares[0] = 0.9
    shares[0, 12:24, 48:72], shares[1 + detector.KINDS.index("fish"), 12:24, 48:72] = 0.1, 0.8
    shares[0, 40:42, 10:12], shares[1, 40:42, 10:12] = 0.1, 0.8  # too small
    (found,) = detector.things(shares, 384, 288, [detector.KINDS.index("fish")])
    assert (found.box, found.label, found.score) == ((192.0, 48.0, 288.0, 96.0), "fish", pytest.approx(0.8))


def test_an_expression_ranks_things_by_the_classes_that_it_names(tmp_path):
    with pytest.raises(UserError, match=r"no detector\.safetensors"):
        detector.PhotoDetector(weights=str(tmp_path))
    save_file(detector.Divider().state_dict(), tmp_path / detector.WEIGHTS)
    made = detector.PhotoDetector(weights=str(tmp_path))
    made._network = lambda pixels: _logits(len(pixels))
    picture = images.Image(np.zeros((288, 384, 3), np.uint8))
    found = made.detect([picture] * 3, ["the two birds", "a fish", "anything"])
    assert [[each.label for each in some] for some in found[:2]] == [["bird", "fish"], ["fish", "bird"]]
    assert [each.score for each in found[1]] == [pytest.approx(1, abs=0.02), pytest.approx(0, abs=0.02)]
    assert [each.score for each in found[2]] == [pytest.approx(1, abs=0.02)] * 2


def _logits(count):
    made = torch.zeros(count, 1 + len(detector.KINDS), 72, 96)
    made[:, 0] = 5
    made[:, 1 + detector.KINDS.index("bird"), 0:10, 0:10] = 12
    made[:, 1 + detector.KINDS.index("fish"), 30:40, 30:40] = 11
    return made
