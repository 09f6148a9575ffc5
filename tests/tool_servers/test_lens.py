"""Image search through Google Lens: crops are published for one search, in a real S3 server, and thumbnails come back."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image as PILImage
from support import s3
from support.vendors import KEY, Answer, Vendors

from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog.store import publisher
from gog.store.backend import Entry, Unavailable
from gog.store.faults import Refusal
from gog_tools.search import lens
from gog_tools.search.backend import ImageSearch
from gog_tools.serving import backends, errors

gateway, _gateway = s3.gateway, s3._gateway
IMAGE = Image(np.full((60, 90, 3), 200, np.uint8))


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setenv("SERPAPI_API_KEY", KEY)
    with Vendors() as running:
        yield running


@pytest.fixture
def store(gateway, request):
    return {
        "uri": f"s3://{s3.BUCKET}/lens-{abs(hash(request.node.name))}",
        "endpoint_url": gateway.url,
        "path_style": True,
        "region": "us-east-1",
    }


@pytest.fixture
def load(world, store, request):
    def create(**options):
        near = {"allow": ["127.0.0.1/32"], "ports": [world.port], **options.pop("thumbnails", {})}
        given = {"url": f"{world.url}/serpapi", "store": store, "thumbnails": near, **options}
        made = backends.load("image-search", "serpapi-lens", json.dumps(given), ImageSearch, {})
        request.addfinalizer(made.close)
        return made

    return create


@pytest.fixture
def objects(gateway, store):
    """Names of the objects below the store's address."""
    folder = gateway.folder / s3.BUCKET / store["uri"].rpartition("/")[2]
    return lambda: [path.name for path in folder.rglob("*") if path.is_file()]


def ask(backend, image=IMAGE, top=5):
    (found,) = backend.search([image], [top])
    return found


def test_the_vendor_fetches_the_pixels_and_the_object_is_deleted(load, world, objects):
    found = ask(load(), top=3)
    assert [hit.title for hit in found.hits] == ["Match 0", "Match 1", "Match 2"]
    assert (found.cost_usd, found.vendor, found.calls) == (0.015, "serpapi", 1)
    (asked,) = world.of("serpapi")
    sent = PILImage.open(io.BytesIO(asked.fetched))
    assert sent.size == (90, 60) and abs(int(np.asarray(sent)[0, 0, 0]) - 200) < 5 and not sent.getexif()
    assert not objects()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked.query["url"])
    assert caught.value.code == 404


def test_an_address_is_unguessable_expires_and_differs_each_time(load, world):
    backend = load(publish_seconds=60)
    ask(backend), ask(backend)
    first, second = (each.query["url"] for each in world.of("serpapi"))
    assert first.partition("?")[0] != second.partition("?")[0] and "X-Amz-Expires=60" in first
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(first.partition("?")[0])
    assert caught.value.code == 403


@pytest.mark.parametrize("answer", [Answer(503, "down", "text/html"), Answer(429, {"error": "run out of searches"})])
def test_the_object_is_deleted_when_the_search_fails(load, world, objects, answer):
    backend = load()
    world.fail("serpapi", answer)
    with pytest.raises(errors.RequestError) as caught:
        ask(backend)
    assert not objects() and caught.value.charge.calls == 1 and KEY not in caught.value.message


def test_what_a_killed_process_left_behind_is_deleted_by_the_next(load, objects, monkeypatch):
    backend = load()
    backend._publisher._backend.put(f"{publisher.FOLDER}left.jpg", b"x", "image/jpeg")
    load()
    assert objects() == ["left.jpg"]  # perhaps still in use
    entries = backend._publisher._backend.entries
    late = datetime.now(UTC) - timedelta(hours=2)
    aged = lambda self, prefix: (Entry(each.key, each.size, late) for each in entries(prefix))  # noqa: E731
    monkeypatch.setattr("gog.store.s3.S3Backend.entries", aged)
    load()
    assert not objects()


def test_a_bucket_that_is_gone_is_a_failure_that_may_pass(load, world, monkeypatch):
    backend = load()
    monkeypatch.setattr(backend._publisher._backend, "bucket", "none")
    backend._publisher._backend.client.bucket = "missing-bucket"
    with pytest.raises(errors.Unavailable, match="cannot be published"):
        ask(backend)
    assert not world.of("serpapi")


def test_an_upload_that_got_no_answer_is_deleted_too(load, world, objects, monkeypatch):
    backend = load()
    put = backend._publisher._backend.put

    def unanswered(*given):
        put(*given)
        raise Unavailable("the answer is lost")

    monkeypatch.setattr(backend._publisher._backend, "put", unanswered)
    with pytest.raises(errors.Unavailable, match="cannot be published: the answer is lost"):
        ask(backend)
    assert not objects() and not world.of("serpapi")


def test_an_upload_that_is_refused_is_a_failure_of_the_bucket_and_nothing_is_searched(load, world, monkeypatch):
    backend = load()

    def refuse(operation, key, **parameters):
        raise Refusal(404, "NoSuchKey", "gone")

    monkeypatch.setattr(backend._publisher._backend.client, "call", refuse)
    with pytest.raises(errors.Unavailable, match="cannot be published"):
        ask(backend)
    assert not world.of("serpapi")


def test_a_search_that_did_not_succeed_is_not_charged(load, world):
    backend = load()
    world.fail("serpapi", Answer(200, {"search_metadata": {"status": "Error"}, "error": "try again"}))
    with pytest.raises(errors.Unavailable) as caught:
        ask(backend)
    assert (caught.value.charge.cost_usd, caught.value.charge.calls) == (0, 1)


def test_an_image_is_made_smaller_before_it_is_published(load, world):
    ask(load(max_side=64), Image(np.zeros((300, 600, 3), np.uint8)))
    assert PILImage.open(io.BytesIO(world.of("serpapi")[0].fetched)).size == (64, 32)


def test_the_type_of_search_and_its_language_reach_the_vendor(load, world):
    found = ask(load(type="exact_matches", language="de", country="at"))
    query = world.of("serpapi")[0].query
    assert (query["engine"], query["type"], query["hl"], query["country"]) == (
        "google_lens",
        "exact_matches",
        "de",
        "at",
    )
    assert found.hits == []  # the fake has visual matches only


# ---- thumbnails


def test_thumbnails_come_back_as_images_by_choice(load, world):
    assert [hit.thumbnail for hit in ask(load(), top=2).hits] == ["", ""] and not world.of("thumbnail")
    hits = ask(load(thumbnails={"count": 2, "side": 20}), top=3).hits
    shown = [tool_api.decode_image(hit.thumbnail) for hit in hits[:2]]
    assert [(each.width, each.height) for each in shown] == [(20, 15), (20, 15)] and hits[2].thumbnail == ""


def bomb(side):
    """A PNG of a few kilobytes and side * side pixels."""
    stream = io.BytesIO()
    PILImage.new("1", (side, side)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, bomb(6_000), "image/png"),
        Answer(200, b"no image", "image/png"),
        Answer(200, b"<svg/>", "image/svg+xml"),
        Answer(200, b"\xff\xd8" + b"x" * 2_000_000, "image/jpeg"),
        Answer(404, b"", "image/png"),
        Answer(302, b"", headers={"location": "http://169.254.169.254/latest"}),
        Answer(200, zlib.compress(bytes(50_000_000)), "image/png", {"content-encoding": "deflate"}),
    ],
)
def test_a_hostile_thumbnail_is_left_out(load, world, answer):
    backend = load(thumbnails={"count": 2})
    world.fail("thumbnail", answer)
    hits = ask(backend, top=2).hits
    assert sorted(bool(hit.thumbnail) for hit in hits) == [False, True]


def test_a_large_image_is_not_decoded_as_a_thumbnail():
    assert lens.thumbnail(bomb(1_001), 100) == "" and lens.thumbnail(bomb(900), 100)
    assert base64.b64decode(lens.thumbnail(bomb(900), 100)).startswith(b"\x89PNG")


# ---- wrong configuration


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"type": "shopping"}, "type"),
        ({"store": {"uri": "file:///tmp"}}, "s3://"),
        ({"store": {"uri": "ftp://x"}}, "store.uri"),
        ({"publish_seconds": 1}, "publish_seconds"),
        ({"public_endpoint": "host:9000"}, "public_endpoint"),
        ({"key_variable": "UNSET_API_KEY"}, "UNSET_API_KEY"),
        ({"thumbnails": {"count": 99}}, "thumbnails.count"),
    ],
)
def test_a_wrong_option_is_refused_at_start_by_name(load, options, field):
    with pytest.raises(UserError) as caught:
        load(**options)
    assert field in caught.value.sentence()


def test_a_bucket_that_does_not_exist_is_refused_at_start(load, store):
    with pytest.raises(UserError, match="no such bucket"):
        load(store={**store, "uri": "s3://missing-bucket/x"})


def test_another_public_endpoint_is_what_the_vendor_is_given(load, world):
    backend = load(public_endpoint="http://127.0.0.1:9")
    with pytest.raises(errors.RequestError):  # the fake cannot fetch from there
        ask(backend)
    assert world.of("serpapi")[0].query["url"].startswith("http://127.0.0.1:9/")
