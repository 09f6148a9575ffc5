"""The tools and the judge over real HTTP, served in this process by handlers that fail in many ways."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from support.builders import FakeSession, answer, gaze, ground, make_image, make_question, text_search
from support.loopback import (
    HITS,
    WORKING,
    Handler,
    Provider,
    detections,
    reset,
    responds,
    search,
    verdict,
    with_toolbox,
)

from gog import behaviour, images, metrics, regions, tool_api
from gog.agent import Episode
from gog.spec import AgentSettings
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply
from gog.trajectory import Trajectory


def test_crops_reach_the_provider_as_bytes() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        image = make_image()
        found = (await tools.ground(image, "red ring")).unwrap()
        await tools.search_image(found.crops[1])
        (sent,) = provider.requests["imageSearch"]
        assert set(sent) == {"image", "top"}
        received = tool_api.decode_image(sent["image"])
        assert np.array_equal(received.pixels, image.pixels[8:22, 18:32])  # the box and 2 pixels around it
        (asked,) = provider.requests["grounding"]
        assert tool_api.decode_image(asked["instances"][0]["image"]).hash == image.hash

    with_toolbox({}, use)


def test_a_request_of_several_pieces_arrives_whole_and_again_when_it_is_retried() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)  # 120 kB as PNG

    async def use(tools: Toolbox, provider: Provider) -> None:
        (await tools.search_image(images.Image(noise))).unwrap()
        for sent in provider.requests["imageSearch"]:
            assert np.array_equal(tool_api.decode_image(sent["image"]).pixels, noise)
        assert len(provider.requests["imageSearch"]) == 2

    with_toolbox({"imageSearch": [responds(b"", 500), responds(HITS)]}, use)


def test_a_request_with_an_image_joined_in_equals_the_serialised_one() -> None:
    image = images.Image(np.random.default_rng(0).integers(0, 255, (300, 301, 3), dtype=np.uint8))

    def request(text: str) -> tool_api.GroundingRequest:
        instance = tool_api.GroundingInstance(image=text, expression='a "image":"ring')
        return tool_api.GroundingRequest(instances=[instance])

    serialised = request(tool_api.encode_image(image)).model_dump_json().encode()
    assert tool_api.with_image(request(""), image) == serialised


def test_detections_outside_the_image_or_too_small_are_not_offered() -> None:
    async def use(tools: Toolbox, provider: Provider) -> list[regions.Box]:
        return [item.box for item in (await tools.ground(make_image(), "ring")).unwrap().candidates]

    wild = detections((-5, -5, 12, 12), (0, 0, 12, 12), (30, 20, 90, 90), (9, 9, 3, 3), (5, 5, 6, 6))
    assert with_toolbox({"grounding": [responds(wild)]}, use) == [(0, 0, 12, 12), (30, 20, 40, 30)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_makes_an_answer_malformed(number: str) -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        return await tools.ground(make_image(), "ring")

    body = f'{{"predictions": [{{"detections": [{{"box": [0, 0, {number}, 9], "score": 1}}]}}]}}'
    reply = with_toolbox({"grounding": [responds(body.encode())]}, use, attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED


def test_no_detection_is_an_empty_answer_and_no_failure() -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        return await tools.ground(make_image(), "unicorn")

    reply = with_toolbox({"grounding": [responds(detections())]}, use)
    assert reply.failure is None and reply.unwrap().candidates == ()


@pytest.mark.parametrize("predictions", [[], [{"detections": []}] * 2])
def test_an_answer_for_another_number_of_images_is_malformed(predictions: list) -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        return await tools.ground(make_image(), "ring")

    reply = with_toolbox({"grounding": [responds({"predictions": predictions})]}, use, attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED


def test_an_expression_or_query_is_cut_to_the_length_that_servers_accept() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        assert (await tools.ground(make_image(), "ring " * 1000)).failure is None
        assert (await tools.search_text("ring " * 5000)).failure is None
        assert len(provider.requests["grounding"][0]["instances"][0]["expression"]) == 1000
        assert len(provider.requests["textSearch"][0]["query"]) == 4000

    with_toolbox({}, use)


def test_the_same_pixels_are_searched_once_for_all_episodes() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        again = images.decode(make_image(1).png)
        await asyncio.gather(*(tools.search_image(image) for image in (make_image(1), again, make_image(1))))
        assert (await tools.search_image(again)).cached
        await tools.search_image(make_image(2))
        assert len(provider.requests["imageSearch"]) == 2

    with_toolbox({}, use)


def test_the_same_box_of_the_same_image_is_cropped_once() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        first, second = [(await tools.ground(make_image(), "ring")).unwrap() for _ in range(2)]
        assert first.crops[0] is second.crops[0]

    with_toolbox({}, use)


def test_a_search_that_returns_more_than_was_requested_is_cut() -> None:
    many = responds({"hits": [{"title": str(number)} for number in range(1000)]})
    assert [hit.title for hit in search([many], top=3).unwrap()] == ["0", "1", "2"]


def test_titles_and_texts_of_results_are_cut_to_the_length_that_a_client_reads() -> None:
    long = responds({"hits": [{"title": "t" * 5_000, "text": "x" * 200_000, "url": "https://a.example/"}]})
    (hit,) = search([long], top=3).unwrap()
    assert (len(hit.title), len(hit.text)) == (tool_api.MAX_HIT_TITLE, tool_api.MAX_HIT_TEXT)
    assert hit.url == "https://a.example/"


def test_the_limits_bound_results_requested_and_candidates_shown() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        assert len((await tools.ground(make_image(), "ring")).unwrap().candidates) == 1
        await tools.search_text("ring")
        assert provider.requests["textSearch"] == [{"query": "ring", "top": 3}]

    with_toolbox({}, use, top=3, max_candidates=1)


# ---- the judge


def play_all(handlers: Mapping[str, Sequence[Handler]], count: int, **limits: Any) -> list[Trajectory]:
    """`count` episodes at once: ground, gaze, read, answer; each about an image and with a query of its own."""

    async def use(tools: Toolbox, provider: Provider) -> list[Trajectory]:
        episodes = [
            Episode(
                make_question(f"q{number}"),
                make_image(number),
                FakeSession([ground(), gaze(1), text_search(f"query {number}"), answer()]),
                tools,
                AgentSettings(),
                "full",
            )
            for number in range(count)
        ]
        return list(await asyncio.gather(*(episode.run() for episode in episodes)))

    return with_toolbox(handlers, use, **limits)


def test_an_episode_over_http_grounds_gazes_reads_and_answers() -> None:
    (trajectory,) = play_all({}, 1)
    assert (trajectory.stop, trajectory.tool_calls, trajectory.failures) == ("answer", 3, ())
    assert behaviour.classify(trajectory) == "mixed"
    assert [turn.observation.attempts for turn in trajectory.turns[:3]] == [1, 1, 1]


def test_with_5_percent_failures_every_trajectory_finishes_and_failures_are_reported() -> None:
    kinds = [responds(b"", 500), responds(b"", 429), responds(b"garbage"), reset]

    def flaky(good: Handler) -> list[Handler]:
        return [kinds[number // 20 % 4] if number % 20 == 7 else good for number in range(1000)]

    before = total_attempts()
    trajectories = play_all({tool: flaky(WORKING[tool][0]) for tool in WORKING}, 100)
    attempts = total_attempts() - before
    failed = sum(count for outcome, count in attempts.items() if outcome != "ok")
    lost = sum(len(trajectory.failures) for trajectory in trajectories)

    assert [trajectory.stop for trajectory in trajectories] == ["answer"] * 100
    assert all(trajectory.well_formed for trajectory in trajectories)
    assert set(attempts) == {"ok", "server_error", "rate_limited", "malformed", "connection"}
    assert 0.04 < failed / attempts.total() < 0.06
    assert lost <= failed * 0.1  # the others were recovered by a retry
    assert attempts["ok"] == 300 - lost
    assert sum(turn.observation.attempts for item in trajectories for turn in item.turns[:3]) == attempts.total()


def test_with_everything_failing_every_trajectory_still_finishes() -> None:
    trajectories = play_all({tool: [responds(b"", 500)] for tool in WORKING}, 10, attempts=1)
    assert {trajectory.stop for trajectory in trajectories} == {"answer"}
    assert {failure.kind for trajectory in trajectories for failure in trajectory.failures} == {"server_error"}


def total_attempts() -> Counter[str]:
    """Attempts by outcome so far, over every tool."""
    outcomes = Counter[str]()
    for table in metrics.attempts_by_outcome().values():
        outcomes.update(table)
    return outcomes


def test_a_tool_receives_its_own_key_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT_SEARCH_GOG_API_KEY", " open sesame\n")

    async def use(tools: Toolbox, provider: Provider) -> list[str | None]:
        await tools.search_text("who made the ring?")
        await tools.judge("who?", ["Ann"], "Ann")
        return [provider.headers[tool][0].get("authorization") for tool in ("textSearch", "judge")]

    keys = with_toolbox({"textSearch": [responds(HITS)], "judge": [responds(verdict("yes"))]}, use)
    assert keys == ["Bearer open sesame", None]


def test_failures_are_logged_in_the_server_s_words_and_not_once_for_each(caplog: pytest.LogCaptureFixture) -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        for number in range(5):
            await tools.search_text(f"query {number}")

    with_toolbox({"textSearch": [responds(b"no such index", 404)]}, use)
    lines = [record.getMessage() for record in caplog.records if record.name == "gog.tool_client"]
    assert lines == ["textSearch failed: refused: HTTP 404: no such index"]


def test_the_processes_of_a_stage_divide_the_calls_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    flying, most = 0, 0

    async def slow(request: Any) -> Any:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(50):  # cycles of the loop, in which others arrive
            await asyncio.sleep(0)
        flying -= 1
        return await responds(HITS)(request)

    async def use(tools: Toolbox, provider: Provider) -> None:
        replies = await asyncio.gather(*(tools.search_text(f"query {n}") for n in range(12)))
        assert all(reply.failure is None for reply in replies)

    with_toolbox({"textSearch": [slow]}, use, concurrency=8)
    assert most <= 2
