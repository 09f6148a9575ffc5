"""Thumbnails of search results as images of the conversation."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image as PILImage
from support.builders import FakeTools, answer, make_episode, make_grounding, make_hits, make_image, play, run, think

from gog import prompts, thumbnails, tool_api, trajectory_zip
from gog.images import Image
from gog.observation_fit import Fitter
from gog.spec import AgentSettings, ThumbnailSettings
from gog.tool_types import FailureKind
from gog.trajectory import Observation, Result

TWO = {"thumbnails": ThumbnailSettings(count=2)}


def with_thumbnails(hits, *found):
    """Hits with these thumbnails: an image, a text as it is, or None."""
    given = (tool_api.encode_image(each) if isinstance(each, Image) else each or "" for each in found)
    return [hit.model_copy(update={"thumbnail": each}) for hit, each in zip(hits, given)]


def tools(*found, **fields):
    return FakeTools(hits=with_thumbnails(make_hits("a", "b", "c", "d"), *found, *[None] * 4), **fields)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    PILImage.fromarray(image.pixels).save(stream, kind, **options)
    return base64.b64encode(stream.getvalue()).decode()


def hostile():
    """Thumbnails that must not reach the model, by why."""
    wide = base64.b64encode(make_png(2_100, 2_000)).decode()
    png = tool_api.encode_image(make_image())
    return {
        "no base64": "!!!",
        "no image": base64.b64encode(b"<html>").decode(),
        "truncated": png[: len(png) // 2],
        "too many pixels": wide,
        "too many bytes": base64.b64encode(make_image(1, 700, 600).png).decode(),
        "another format": encoded(make_image(), "GIF"),
        "thin": tool_api.encode_image(make_image(2, 900, 1)),
    }


def make_png(width, height):
    stream = io.BytesIO()
    PILImage.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_by_default_the_model_reads_titles_and_sees_no_thumbnail():
    episode = make_episode([think("<img_search><img></img_search>"), answer()], tools(make_image(5)))
    found = play(episode)
    assert found.turns[0].observation.images == () and episode.session.shown == []
    assert prompts.IMAGE not in episode.session.observed[0]


def test_thumbnails_of_the_best_results_are_images_of_the_observation_with_their_number():
    first, second, third = (make_image(seed, 60, 50) for seed in (5, 6, 7))
    episode = make_episode(
        [think("<img_search><img></img_search>"), answer()], tools(first, None, second, third), **TWO
    )
    found = play(episode)
    seen = found.turns[0].observation
    assert seen.text.splitlines()[1:] == [f"1. a #1 {prompts.IMAGE}", "2. b", f"3. c #2 {prompts.IMAGE}", "4. d"]
    assert [image.hash for image in episode.session.shown] == list(seen.images) == [first.hash, second.hash]
    assert [result.thumbnail for result in seen.results] == [first.hash, "", second.hash, ""]
    assert [each.image.hash for each in episode.actions.shown.values()] == [first.hash, second.hash]
    assert set(episode.images) == {found.image, first.hash, second.hash} == trajectory_zip.shown(found)


def test_a_thumbnail_is_made_small_and_jpeg_and_webp_are_read():
    large = make_image(3, 500, 250)
    for kind in ("JPEG", "WEBP"):
        hits = with_thumbnails(make_hits("a"), encoded(large, kind))
        (found,) = thumbnails.decode([hits], ThumbnailSettings(count=1, side=100)).by_search
        assert (found[0].width, found[0].height) == (100, 50)


@pytest.mark.parametrize("why", hostile())
def test_a_thumbnail_that_cannot_be_shown_is_left_out_and_costs_the_policy_nothing(why):
    good = make_image(5)
    settings = {"thumbnails": ThumbnailSettings(count=2, max_bytes=1_000_000)}
    episode = make_episode([think("<img_search><img></img_search>"), answer()], tools(hostile()[why], good), **settings)
    found = play(episode)
    seen = found.turns[0].observation
    assert seen.images == (good.hash,) and not seen.failures and found.well_formed
    assert seen.text.endswith("\n(1 thumbnail could not be shown.)")


def test_unusable_thumbnails_are_tried_a_bounded_number_of_times():
    hits = with_thumbnails(make_hits(*map(str, range(50))), *["!!!"] * 49, make_image())
    decoded = thumbnails.decode([hits], ThumbnailSettings(count=2))
    assert decoded.by_search == ({},) and decoded.unusable == 2 * thumbnails.TRIES


def test_the_searches_of_several_candidates_share_the_thumbnails_best_results_first():
    hits = [with_thumbnails(make_hits("a", "b"), make_image(n), make_image(n + 1)) for n in (10, 20)]
    first, second = thumbnails.decode(hits, ThumbnailSettings(count=3)).by_search
    assert (set(first), set(second)) == ({0, 1}, {0})


def test_a_returned_image_is_searched_and_looked_into_by_its_number_like_a_candidate():
    turns = ["ring", "#2,#1", "#4", "#3: clasp", "<img>", "#9"]
    returned = make_image(5, 60, 50)
    box = tools(returned, grounding=make_grounding(2))
    episode = make_episode([*(think(f"<img_search>{each}</img_search>") for each in turns), answer()], box, **TWO)
    found = play(episode)
    gaze, again, inside, glance, never = (turn.observation for turn in found.turns[1:6])
    assert "#3" in gaze.text and "#4" in gaze.text and "#5" in again.text
    assert box.asked("imageSearch")[2] == returned.hash
    assert [(each.number, each.image, each.within) for each in inside.candidates] == [
        (number, returned.hash, 3) for number in (6, 7)
    ]
    assert "#8" in glance.text and never.text.endswith("The highest is #8.")


@pytest.mark.parametrize(("limit", "kept"), [(480, 2), (540, 0), (900, 4)])
def test_images_that_had_no_room_have_no_number(limit, kept):
    box = tools(*(make_image(seed) for seed in range(4)))
    settings = {"thumbnails": ThumbnailSettings(count=4), "max_turn_tokens": 30}
    episode = make_episode(
        [think("<img_search><img></img_search>"), answer()], box, limit=limit, image_tokens=60, **settings
    )
    found = play(episode)
    assert len(found.turns[0].observation.images) == kept
    assert list(episode.actions.shown) == list(range(1, kept + 1))


@pytest.mark.parametrize("gaze", ["direct", "off"])
def test_where_the_model_selects_nothing_returned_images_have_no_number(gaze):
    episode = make_episode(
        [think("<img_search>ring</img_search>"), answer()],
        tools(make_image(5), grounding=make_grounding(2)),
        gaze=gaze,
        **TWO,
    )
    seen = play(episode).turns[0].observation
    assert seen.text.splitlines()[1] == f"1. a {prompts.IMAGE}" and not episode.actions.shown


def test_the_tiny_model_sees_the_thumbnail_of_the_result_that_it_reads():
    episode = make_episode(
        ["<img_search><img></img_search>", answer()], tools(make_image(5), make_image(6)), style="terse", **TWO
    )
    assert play(episode).turns[0].observation.text == f"name a {prompts.IMAGE}"


def test_a_search_that_failed_shows_none():
    box = tools(make_image(5), failing={"imageSearch": FailureKind.TIMEOUT})
    seen = play(make_episode([think("<img_search><img></img_search>"), answer()], box, **TWO)).turns[0].observation
    assert seen.images == () and len(seen.failures) == 1


@pytest.mark.parametrize("limit", range(220, 700, 7))
def test_a_truncated_observation_shows_exactly_the_images_that_its_text_holds(limit):
    shown = [make_image(seed) for seed in range(3)]
    numbers = {place: place + 2 for place in range(3)}
    text = prompts.image_results(["w" * 30] * 6, style="full", thumbnails=numbers)
    hashes = tuple(image.hash for image in shown)
    results = tuple(Result(title="w", thumbnail=each) for each in hashes)
    session = make_episode([], limit=limit, image_tokens=20).session
    seen = Observation(text=text, tool="imageSearch", images=hashes, results=results)
    fitted = run(Fitter(session, "full", 30).fit(seen, shown, prompts.Notice()))
    if fitted is not None:
        kept = fitted.observation
        whole = kept.text.count(prompts.IMAGE)
        assert kept.text == text[: len(kept.text)] and "<|" not in kept.text.replace(prompts.IMAGE, "")
        assert kept.images == hashes[:whole] == tuple(image.hash for image in fitted.images)
        assert [result.thumbnail for result in kept.results] == [*hashes[:whole], *[""] * (3 - whole)]


def test_the_settings_bound_count_and_size():
    for wrong in ({"count": 11}, {"count": -1}, {"side": 5}, {"maxBytes": 10**9}, {"maxPixels": 10**9}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AgentSettings.model_validate({"thumbnails": wrong})
    assert AgentSettings().thumbnails.count == 0
