"""Work on images happens off the event loop, which must stay free for health checks and other requests."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gog import tool_api
from gog.images import Image
from gog.spec import PixelBounds
from gog_tools.policy import adapter_source
from gog_tools.policy import server as policy_server
from gog_tools.search import server as search_server

IMAGE = tool_api.encode_image(Image(np.zeros((20, 30, 3), np.uint8)))


def image_of(grey, height=20, width=30):
    """An image of one colour, in base64."""
    return tool_api.encode_image(Image(np.full((height, width, 3), grey, np.uint8)))


@pytest.fixture
def outside(monkeypatch):
    """The back ends of outside.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import outside

    yield outside
    sys.modules.pop("outside", None)


@pytest.fixture
def decoded_in(monkeypatch):
    """Names of the threads that decoded an image."""
    threads: list[str] = []
    decode = tool_api.decode_image

    def recorded(*arguments, **named):
        threads.append(threading.current_thread().name)
        return decode(*arguments, **named)

    monkeypatch.setattr(tool_api, "decode_image", recorded)
    return threads


def post(app, path, body):
    """Status of a POST to an application in this process."""
    coming = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent = []

    async def receive():
        return coming.pop() if coming else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [],
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def test_an_image_search_decodes_images_in_a_thread(outside, decoded_in):
    assert post(search_server.image_application(outside.Sizes()), tool_api.IMAGE_SEARCH_PATH, {"image": IMAGE}) == 200
    assert len(decoded_in) == 1 and decoded_in[0] != threading.current_thread().name


def test_a_policy_decodes_images_in_a_thread(outside, decoded_in, tmp_path):
    backend = outside.Parrot(tmp_path, "cpu", "float32", PixelBounds())
    policy = policy_server.Policy(backend, name="base", source=adapter_source.NoAdapters(), batch_size=4)
    url = f"data:image/png;base64,{IMAGE}"
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    app = policy_server.application(policy)
    assert post(app, tool_api.CHAT_PATH, {"messages": messages}) == 200
    assert len(decoded_in) == 1 and decoded_in[0] != threading.current_thread().name


def test_grounding_decodes_images_in_a_thread(outside, decoded_in):
    from gog_tools.grounding.model import GroundingModel  # takes seconds to import

    model = GroundingModel(outside.WholeImage("x"), batch_size=4, batch_wait=0)
    asyncio.run(model.predict({"instances": [{"image": IMAGE, "expression": "red"}]}))
    assert len(decoded_in) == 1 and decoded_in[0] != threading.current_thread().name


def test_images_are_decoded_while_a_batch_is_searched_but_only_so_many(decoded_in):
    from gog_tools.grounding.model import GroundingModel

    class Held:
        """Answers once it may; max_batch images at a time."""

        max_batch = 2

        def __init__(self):
            self.begun, self.go, self.batches = threading.Event(), threading.Event(), []

        def detect(self, images, expressions):
            self.begun.set()
            assert self.go.wait(30)
            self.batches.append(len(images))
            return [[] for _ in images]

    async def scenario():
        detector = Held()
        model = GroundingModel(detector, batch_size=4, batch_wait=0)
        body = {"instances": [{"image": image_of(number), "expression": "red"} for number in range(9)]}
        running = asyncio.create_task(model.predict(body))
        await asyncio.to_thread(detector.begun.wait, 30)
        while len(decoded_in) < 4:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        held = len(decoded_in)
        detector.go.set()
        answer = json.loads(await running)
        return held, detector.batches, answer

    held, batches, answer = asyncio.run(scenario())
    assert held == 4  # two that are searched, or wait for it, and two that follow
    assert sum(batches) == len(answer["predictions"]) == len(decoded_in) == 9
    assert max(batches) == 2


def predict(detector, instances, *, max_bytes=None):
    """The answer to instances of one request."""
    from gog_tools.grounding import decoded
    from gog_tools.grounding.model import GroundingModel

    async def scenario():
        model = GroundingModel(detector, batch_size=32, batch_wait=0.05)
        if max_bytes is not None:
            model.images = decoded.DecodedImages(max_bytes)
        return json.loads(await model.predict(json.dumps({"instances": instances}).encode()))

    return asyncio.run(scenario())


class Watched:
    """Finds nothing, and notes the images of each batch."""

    def __init__(self):
        self.batches = []

    def detect(self, images, expressions):
        self.batches.append(list(images))
        return [[] for _ in images]


def test_an_image_that_several_requests_show_is_decoded_once_while_one_of_them_holds_it(decoded_in):
    detector = Watched()
    shown = [{"image": image_of(number % 2), "expression": f"thing {number}"} for number in range(10)]
    assert len(predict(detector, shown)["predictions"]) == 10
    assert len(decoded_in) == 2 and len({id(each) for batch in detector.batches for each in batch}) == 2


def test_decoded_images_are_held_within_a_bound_of_bytes(decoded_in):
    detector = Watched()
    shown = [{"image": image_of(number, 100, 100), "expression": "x"} for number in range(12)]
    answer = predict(detector, shown, max_bytes=2 * 100 * 100 * 3)
    assert len(answer["predictions"]) == len(decoded_in) == 12
    assert max(map(len, detector.batches)) <= 3, "two, and one that was being decoded beside the second"


def test_an_image_that_cannot_be_read_is_refused_for_every_request_that_shows_it_and_frees_its_place(decoded_in):
    from kserve.errors import InvalidInput

    with pytest.raises(InvalidInput, match="image"):
        predict(Watched(), [{"image": "bm8gaW1hZ2U=", "expression": "x"}] * 3)
    assert len(predict(Watched(), [{"image": image_of(1), "expression": "x"}], max_bytes=1)["predictions"]) == 1
