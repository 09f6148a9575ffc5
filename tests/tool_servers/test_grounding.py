"""The grounding server and the embedded world's detector."""

from __future__ import annotations

import base64
import random
import threading

import numpy as np
import pytest

from gog import dataset, images, tool_api
from gog.errors import UserError
from gog.images import Image
from gog_recipes.world import drawing, entities, scenes
from gog_tools.grounding import world_detector
from gog_tools.grounding.backend import Detector
from gog_tools.search import segmentation
from gog_tools.serving import backends

WORLD = entities.build(7)


def draw(count, seed):
    """Scenes and their images."""
    rng = random.Random(seed)
    made = [
        scenes.draw_scene(rng, WORLD, rng.choice(("train", "test")), rng.randint(1, drawing.GRID)) for _ in range(count)
    ]
    return [(scene, drawing.scene(scene.things, scene.background)) for scene in made]


def request(server, *pairs):
    instances = [{"image": tool_api.encode_image(image), "expression": expression} for image, expression in pairs]
    return server.post(tool_api.GROUNDING_PATH, {"instances": instances})


def test_things_are_found_to_the_pixel_and_named_right():
    wrong = total = 0
    for scene, image in draw(150, seed=1):
        seen = {thing.box: (thing.colour, thing.form) for thing in world_detector.recognise(image.pixels)}
        assert seen.keys() == {drawing.box(thing) for thing in scene.things}
        for thing in scene.things:
            total += 1
            wrong += seen[drawing.box(thing)] != (thing.entity.colour, thing.entity.form)
    assert wrong <= 0.01 * total


def test_the_best_scored_candidate_is_right_about_half_the_time():
    right, several = 0, [(scene, image) for scene, image in draw(500, seed=2) if len(scene.things) > 1]
    for scene, image in several:
        (found,) = world_detector.WorldDetector().detect([image], [scene.wanted.entity.expression])
        right += found[0].box == drawing.box(scene.wanted)
    assert 0.42 < right / len(several) < 0.6


def test_candidates_share_colour_or_form_with_the_expression():
    for scene, image in draw(50, seed=3):
        wanted = scene.wanted.entity
        (found,) = world_detector.WorldDetector().detect([image], [f"the {wanted.expression}!"])
        alike = [t for t in scene.things if t.entity.colour == wanted.colour or t.entity.form == wanted.form]
        assert {item.box for item in found} == {drawing.box(thing) for thing in alike}
        assert all(0 <= item.score <= 1 for item in found)
        assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)


def test_the_same_question_gets_the_same_scores_and_another_gets_others():
    _, image = next(pair for pair in draw(50, seed=4) if len(pair[0].things) == 4)
    detect = world_detector.WorldDetector().detect
    words = "red green blue yellow purple white"
    assert detect([image], [words]) == detect([image], [words])
    assert detect([image], [words]) != detect([image], [f"{words} thing"])


@pytest.mark.parametrize("expression", ["", "   ", "zebra", "<answer>#1</answer>", "\x00", "é" * 1_000])
def test_an_expression_that_names_nothing_finds_nothing(expression):
    _, image = draw(1, seed=5)[0]
    assert world_detector.WorldDetector().detect([image], [expression]) == [[]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (7, 3), (113, 57), (700, 900)])
def test_images_of_any_shape_can_be_segmented(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for pixels in (np.zeros_like(noise), noise):
        view = segmentation.segment(pixels)
        assert len(view.boxes) <= segmentation.MAX_THINGS
        for x0, y0, x1, y1 in view.boxes:
            assert 0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]


def test_a_thing_that_touches_the_border_is_found():
    pixels = np.full((60, 80, 3), 40, np.uint8)
    pixels[:21, 59:] = (220, 40, 40)
    (thing,) = world_detector.recognise(pixels)
    assert (thing.box, thing.colour, thing.form) == ((59, 0, 80, 21), "red", "square")


def test_the_datasets_evidence_is_found_over_http(servers, world):
    for question in [q for q in dataset.read_questions(world, "test") if q.evidence.region][:20]:
        answer = request(servers.grounding, (images.read(world / question.image), question.evidence.expression))
        (prediction,) = tool_api.GroundingResponse.model_validate_json(answer.body).predictions
        assert question.evidence.region in {item.box for item in prediction.detections}
        assert answer.headers["content-type"] == "application/json"


def test_many_instances_are_answered_in_order(servers):
    pairs = [(image, scene.wanted.entity.expression) for scene, image in draw(20, seed=6)]
    predictions = request(servers.grounding, *pairs).json()["predictions"]
    for (image, expression), prediction in zip(pairs, predictions, strict=True):
        alone = request(servers.grounding, (image, expression)).json()["predictions"][0]
        assert prediction == alone


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"instances": []}',
        b'{"instances": "x"}',
        b'{"instances": [{"image": "!", "expression": "red"}]}',
        b'{"instances": [{"image": "", "expression": "red"}]}',
        b'{"instances": [{"image": "R0lGODlhAQABAAAAACw=", "expression": "red"}]}',
        b'{"instances": [{"image": "AAAA", "expression": "red", "more": 1}]}',
    ],
)
def test_a_callers_mistake_is_a_400_with_a_sentence(servers, body):
    answer = servers.grounding.post(tool_api.GROUNDING_PATH, body)
    assert answer.status == 400 and answer.json()["error"]


def test_one_unreadable_image_does_not_fail_other_requests(servers):
    """Although they share a batch."""
    good = base64.b64encode(Image(np.zeros((28, 28, 3), np.uint8)).png).decode()
    statuses = {}

    def send(name, image):
        body = {"instances": [{"image": image, "expression": "red"}]}
        statuses[name] = servers.grounding.post(tool_api.GROUNDING_PATH, body).status

    threads = [threading.Thread(target=send, args=(i, good if i else "AAAA")) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {0: 400, 1: 200, 2: 200, 3: 200, 4: 200, 5: 200}


def test_health_answers_while_a_prediction_runs(servers, held):
    image, server, answers = Image(np.zeros((28, 28, 3), np.uint8)), servers.grounding, []
    request_thread = threading.Thread(target=lambda: answers.append(request(server, (image, "wait"))))
    assert server.url
    request_thread.start()
    with held():
        assert server.get("/healthz").status == 200
        assert server.get("/v1/models/grounding").json() == {"name": "grounding", "ready": True}
        assert server.get("/v2/models/grounding/ready").status == 200
        assert not answers
    request_thread.join(30)
    assert answers[0].status == 200


def test_a_broken_back_end_is_a_500_and_the_next_request_is_served(servers):
    image = Image(np.zeros((28, 28, 3), np.uint8))
    broken = request(servers.grounding, (image, "break"))
    assert broken.status == 500 and "out of memory" in broken.json()["error"]
    assert request(servers.grounding, (image, "red")).status == 200


def test_no_caller_can_unload_the_model(servers):
    assert servers.grounding.post("/v2/repository/models/grounding/unload", {}).status == 404
    assert servers.grounding.get("/v1/models/grounding").json()["ready"] is True


def test_the_world_is_a_back_end_by_name():
    assert isinstance(backends.load("grounding", "world", "{}", Detector, {}), world_detector.WorldDetector)


def test_an_unknown_back_end_is_refused():
    with pytest.raises(UserError, match=r"no_such_module.*world"):
        backends.load("grounding", "no_such_module:Thing", "{}", Detector, {})
