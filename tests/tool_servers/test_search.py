"""Image search and text search."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gog import dataset, regions, tool_api
from gog import images as gog_images
from gog.images import Image
from gog_recipes.world import drawing, entities, scenes
from gog_tools.search.image_index import ImageIndex
from gog_tools.search.text_index import TextIndex

WORLD = entities.build(7)


@pytest.fixture(scope="module")
def images(world):
    return ImageIndex.read(world)


@pytest.fixture(scope="module")
def texts(world):
    return TextIndex.read(world)


def pages(index, query, top):
    """What a text index finds for one query."""
    (found,) = index.search([query], [top])
    return found.hits


def scenes_of(count, things, seed):
    rng = random.Random(seed)
    made = [scenes.draw_scene(rng, WORLD, rng.choice(("train", "test")), things or 3) for _ in range(count)]
    return [(scene, drawing.scene(scene.things, scene.background)) for scene in made]


def fraction_right(images, pairs):
    """Fraction of pairs (image, entity) whose first hit is the entity."""
    found = images.search([image for image, _ in pairs], [1] * len(pairs))
    return np.mean([each.hits[0].title == WORLD.names[entity] for each, (_, entity) in zip(found, pairs, strict=True)])


@pytest.mark.parametrize(("by", "side"), [(2, 28), (2, None), (0, 28), (0, None), (4, 28)])
def test_a_crop_finds_its_thing(images, by, side):
    pairs = [
        (regions.crop(image, drawing.box(thing), by=by, side=side), thing.entity)
        for scene, image in scenes_of(120, 3, seed=1)
        for thing in scene.things
    ]
    assert fraction_right(images, pairs) >= 0.95


def test_the_first_results_come_with_their_image_where_thumbnails_are_asked_for(images, world):
    entry = images.entries[4]
    query = gog_images.read(world / entry.image)
    (plain,), (found,) = (index.search([query], [3]) for index in (images, ImageIndex.read(world, thumbnails=2)))
    assert [bool(hit.thumbnail) for hit in found.hits] == [True, True, False]
    assert found.hits[0].title == entry.title and tool_api.decode_image(found.hits[0].thumbnail).hash == query.hash
    assert not any(hit.thumbnail for hit in plain.hits)


def test_a_scene_of_one_thing_finds_it(images):
    pairs = [(image, scene.wanted.entity) for scene, image in scenes_of(200, 1, seed=2)]
    assert fraction_right(images, pairs) >= 0.95


def test_a_scene_of_many_things_finds_the_largest(images):
    rng = random.Random(3)
    names = {True: 0, False: 0}
    for _ in range(60):
        small, large = rng.sample(list(WORLD.names), 2)
        if small.form != large.form:
            continue
        things = [drawing.Thing(small, 42, 42, 8), drawing.Thing(large, 70, 70, 10)]
        (found,) = images.search([drawing.scene(things, 40)], [1])
        names[found.hits[0].title == WORLD.names[large]] += 1
    assert names[True] >= 0.95 * sum(names.values())


def test_hits_come_best_first_and_at_most_as_many_as_requested(servers, images):
    _, image = scenes_of(1, 1, seed=4)[0]
    for top in (1, 5, 50):
        answer = servers.image_search.post(
            tool_api.IMAGE_SEARCH_PATH, {"image": tool_api.encode_image(image), "top": top}
        )
        hits = tool_api.SearchResponse.model_validate_json(answer.body).hits
        assert len(hits) == top
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert hits == images.search([image], [top])[0].hits


def test_an_image_of_one_colour_finds_nothing(servers):
    blank = Image(np.full((28, 28, 3), 77, np.uint8))
    answer = servers.image_search.post(tool_api.IMAGE_SEARCH_PATH, {"image": tool_api.encode_image(blank)})
    assert answer.json() == {"hits": []}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"image": "AAAA"}', b'{"image": "", "top": 0}', b'{"image": "", "a": 1}']
)
def test_a_callers_mistake_in_image_search_is_a_400_with_a_sentence(servers, body):
    answer = servers.image_search.post(tool_api.IMAGE_SEARCH_PATH, body)
    assert answer.status == 400 and answer.json()["error"]["message"]


def test_an_index_with_an_unreadable_image_is_refused(tmp_path, capsys):
    from gog_tools.search import server

    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "images.jsonl").write_text('{"image": "index/gone.png", "title": "x"}\n')
    assert server.main(["image", "--data", str(tmp_path)]) == 2
    assert "gone.png" in capsys.readouterr().err


def test_every_name_finds_its_page_first(texts):
    for name in entities.NAMES:
        hits = pages(texts, name, 3)
        assert hits[0].title == name and hits[0].text == entities.page(WORLD, name)


def test_a_title_that_is_the_query_comes_before_pages_that_repeat_it():
    repeating = [dataset.Document(title=f"t{i}", text="bridge bridge bridge bridge") for i in range(5)]
    index = TextIndex([*repeating, dataset.Document(title="The Bridge", text="nothing of it")])
    assert pages(index, "the bridge!", 2)[0].title == "The Bridge"


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        '"',
        "t001 AND (",
        "title:[* TO *]",
        "*:*",
        "~~",
        "\\",
        '+-!(){}[]^"~*?:\\/',
        "\x00\n\t",
        "🙂",
        "é" * 4_000,
    ],
)
def test_every_query_is_answered(servers, query):
    answer = servers.text_search.post(tool_api.TEXT_SEARCH_PATH, {"query": query})
    assert answer.status == 200
    tool_api.SearchResponse.model_validate_json(answer.body)


def test_special_characters_around_a_name_do_not_hide_it(texts):
    assert pages(texts, '  "T042"? (height)', 1)[0].title == "t042"


def test_words_that_occur_nowhere_find_nothing(servers):
    assert servers.text_search.post(tool_api.TEXT_SEARCH_PATH, {"query": "zebra"}).json() == {"hits": []}


def test_a_query_above_the_limit_is_a_400(servers):
    answer = servers.text_search.post(tool_api.TEXT_SEARCH_PATH, {"query": "x" * 4_001})
    assert answer.status == 400 and "query" in answer.json()["error"]["message"]
