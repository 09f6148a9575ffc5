"""Claims about the page, in a real Chromium: what a reader sees, and that a keyboard is enough.

Skipped where there is no Chromium; none is downloaded. Every test ends by asking that nothing was said on the console,
nothing was refused by the page's policy, and nothing but the page's own server was asked.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import support.view_builders as viewers
from support import report_builders, report_objects
from support.browser import CHROMIUM, wait_until
from support.browser_pages import current, one, opened, press, visit

from gog import store, trajectory_zip
from gog.images import Image
from gog.trajectory import Observation, Result, Turn
from gog_console import report
from gog_console.viewer import sources
from gog_console.viewer.tokens import Vocabulary

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the viewer was not tried in a browser: there is no Chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_builders.make_run(tmp_path_factory.mktemp("runs"), steps=10, questions=30)


@pytest.fixture(scope="module")
def world(run: Path, tmp_path_factory: pytest.TempPathFactory):
    with viewers.viewing(sources.of_run(run), tmp_path_factory.mktemp("cache")) as serving:
        yield serving


# ---- what is seen


def test_boxes_lie_on_the_pixels_that_they_name(page, world):
    wanted = next(
        found
        for id in world.ids("stage=evaluate&policy=grpo&behaviour=mixed")
        if len((found := world.json(f"/api/trajectory?id={id}")["trajectory"])["turns"]) == 4
    )
    visit(page, world, f"#/t/{wanted['id']}")
    image = page.locator(".scene img").bounding_box()
    size = wanted["images"][wanted["image"]]
    scale = image["width"] / size["w"]
    assert scale == pytest.approx(image["height"] / size["h"]) and scale == int(scale)
    offered = next(turn["seen"]["candidates"] for turn in wanted["turns"] if turn["action"] == "ground")
    boxes = [*((c["box"], f"#{c['n']}") for c in offered), (wanted["region"], "")]
    drawn = page.locator(".overlay .box")
    assert drawn.count() == len(boxes)
    for place in range(drawn.count()):
        label = drawn.nth(place).inner_text()
        left, top, right, bottom = next(box for box, name in boxes if name == label)
        shown = drawn.nth(place).bounding_box()
        assert shown["x"] == pytest.approx(image["x"] + left * scale, abs=0.6)
        assert shown["y"] == pytest.approx(image["y"] + top * scale, abs=0.6)
        assert shown["width"] == pytest.approx((right - left) * scale, abs=0.6)
        assert shown["height"] == pytest.approx((bottom - top) * scale, abs=0.6)
    chosen = [f"#{n}" for turn in wanted["turns"] for n in turn.get("selected", [])]
    assert page.locator(".overlay .box.chosen").all_inner_texts() == chosen


def test_thumbnails_that_the_model_saw_stand_beside_their_results(page, tmp_path):
    shown = [Image(np.full(shape, level, np.uint8)) for shape, level in (((150, 224, 3), 90), ((9, 300, 3), 200))]
    viewers.MAKER.images.update({each.hash: each for each in shown})
    results = (
        Result(title="A lighthouse", url="https://example.org/x", thumbnail=shown[0].hash),
        Result(title=viewers.EVIL, thumbnail=shown[1].hash),
        Result(title="Without an image"),
    )
    seen = Observation(text="found", tool="imageSearch", images=tuple(each.hash for each in shown), results=results)
    turns = (
        Turn(text="<img_search><img></img_search>", action="glance", observation=seen),
        Turn(text="<answer>1858</answer>", action="answer", argument="1858"),
    )
    with one(tmp_path, viewers.illustrated(1, turns=turns)) as viewer:
        visit(page, viewer)
        images = page.locator(".found li img")
        wait_until(page, "[...document.querySelectorAll('.found li img')].every((each) => each.naturalWidth > 0)")
        assert [page.locator(".found li").nth(n).locator("img").count() for n in range(3)] == [1, 1, 0]
        around = page.locator(".found").bounding_box()
        for place in range(images.count()):
            box = images.nth(place).bounding_box()
            assert around["x"] <= box["x"] and box["x"] + box["width"] <= around["x"] + around["width"]
            assert box["width"] == box["height"] == 68  # whatever the thumbnail's own size
        assert viewers.EVIL in page.locator(".found").inner_text() and page.evaluate("window.owned") is None


def test_the_timeline_shows_reasoning_calls_latency_attempts_results_and_reward(page, tmp_path):
    result = Result(title="A lighthouse", url="https://example.org/x", text="built in 1858")
    turns = (
        Turn(text="<think>who?</think><text_search>lighthouse</text_search>", action="text", argument="lighthouse", reasoning="who?",
             observation=Observation(text="1. built", tool="textSearch", results=(result,), attempts=3, seconds=1.25)),
        Turn(text="<answer>1858</answer>", action="answer", argument="1858"),
    )  # fmt: skip
    with one(tmp_path, viewers.illustrated(1, turns=turns)) as viewer:
        visit(page, viewer)
        text = page.locator(".turn").first.inner_text()
        for part in ("who?", "Text search", "3 attempts", "1.3 s", "A lighthouse", "built in 1858", "example.org"):
            assert part in text
        assert page.locator(".turn a").count() == 0  # an address from a stranger is words


def test_an_action_of_a_tool_that_was_added_is_shown_by_its_name_and_argument(page, tmp_path):
    """The page has words of its own only for the actions of gog; a record of another must not stop it."""

    def as_if_added(route):
        answer = route.fetch()
        found = answer.json()
        found["trajectory"]["turns"][0] |= {"action": "map_search", "argument": "the harbour"}
        route.fulfill(response=answer, json=found)

    with one(tmp_path, viewers.illustrated(1)) as viewer:
        page.route("**/api/trajectory?*", as_if_added)
        visit(page, viewer)
        assert page.locator(".turn .does").first.inner_text().splitlines()[:2] == ["Map search", "the harbour"]


def test_tokens_are_coloured_by_log_probability(page, tmp_path):
    vocabulary = Vocabulary({1: "<answer>blue", 2: "sky</answer>"}, False)
    with one(tmp_path, viewers.illustrated(1), vocabulary=vocabulary) as viewer:
        visit(page, viewer)
        press(page, "w")
        tokens = page.locator(".turn.answer .token")
        assert tokens.all_inner_texts() == ["<answer>blue", " sky</answer>"]
        assert "p0" in tokens.nth(0).get_attribute("class") and "p3" in tokens.nth(1).get_attribute("class")
        assert "−1.50, 22 %" in tokens.nth(1).get_attribute("title")


# ---- filters and the list


def test_filters_show_what_the_server_counts(page, world):
    visit(page, world)
    page.select_option("[data-filter=stage]", "evaluate")
    page.select_option("[data-filter=policy]", "sft")
    page.locator(".chip.wrong").click()
    expected = world.json("/api/list?stage=evaluate&policy=sft&outcome=wrong")
    page.get_by_text(f"{expected['total']} found").wait_for()
    shown = page.locator(".item")
    assert shown.first.get_attribute("data-id") == expected["rows"][0]["id"]
    assert all("wrong" in item.get_attribute("class") for item in shown.all())
    assert "stage=evaluate" in page.url and "outcome=wrong" in page.url
    page.get_by_text("show all").click()
    page.get_by_text(f"{world.json('/api/list')['total']} trajectories").wait_for()


def test_the_list_scrolls_through_everything_and_keeps_little_on_the_page(page, world):
    visit(page, world)
    total = world.json("/api/list")["total"]
    last = world.ids(f"offset={total - 1}")[0]
    page.locator(".items").evaluate("list => { list.scrollTop = list.scrollHeight; }")
    page.locator(f'[data-id="{last}"]').click()
    opened(page, last)
    assert page.locator(".item").count() < 60 < total


def test_a_link_opens_its_trajectory_with_its_filters_and_its_place_in_the_list(page, world):
    id = world.ids("stage=grpo&sort=reward&down=1")[60]
    visit(page, world, f"#/t/{id}?stage=grpo&sort=reward&down=1")
    opened(page, id)
    page.locator(".item.here").wait_for()
    assert current(page) == id and page.locator("[data-filter=stage]").input_value() == "grpo"
    press(page, "j")
    opened(page, world.ids("stage=grpo&sort=reward&down=1")[61])


def test_a_link_to_an_unknown_trajectory_is_reported(page, world):
    page.expected = ["404"]
    page.goto(world.server.url + "#/t/absent")
    page.get_by_text("no trajectory 'absent'").wait_for()
    page.locator(".item").nth(5).wait_for()


# ---- a keyboard is enough


def test_everything_can_be_reached_by_keyboard(page, world):
    visit(page, world)
    ids = world.ids()
    press(page, "j", "j")
    opened(page, ids[2])
    press(page, "k")
    opened(page, ids[1])
    press(page, "Enter")
    assert page.evaluate("document.activeElement.className").startswith("turn ")
    press(page, "ArrowDown")
    assert page.evaluate("[...document.querySelectorAll('.turn')].indexOf(document.activeElement)") == 1
    press(page, "Escape", "ArrowDown")
    opened(page, ids[2])
    press(page, "/")
    page.keyboard.type("green")
    press(page, "Enter")
    page.get_by_text(f"{world.json('/api/list?text=green')['total']} found").wait_for()
    press(page, "j")
    wait_until(page, "() => document.querySelector('.detail h3').textContent.includes('green')")
    press(page, "?")
    page.get_by_text("its group side by side").wait_for()
    press(page, "Escape")
    page.get_by_text("its group side by side").wait_for(state="hidden")


def test_a_group_is_shown_side_by_side_with_its_advantages(page, world):
    id = world.ids("stage=grpo&step=4")[0]
    group = world.json(f"/api/trajectory?id={id}")["group"]
    visit(page, world, f"#/t/{id}")
    press(page, "g")
    page.locator(".side").nth(3).wait_for()
    assert [side.get_attribute("data-id") for side in page.locator(".side").all()] == [row["id"] for row in group]
    for side, row in zip(page.locator(".side").all(), group):
        bar = side.locator(".advantage")
        assert bar.get_attribute("aria-label") == f"advantage {row['advantage']:+.2f}".replace("-", "−")
        middle = bar.bounding_box()["x"] + bar.bounding_box()["width"] / 2
        drawn = bar.locator("i").bounding_box()
        assert (drawn["x"] >= middle - 1) if row["advantage"] > 0 else (drawn["x"] + drawn["width"] <= middle + 1)
    assert f"#/g/{id}" in page.url
    press(page, "Escape")
    opened(page, id)


def test_before_and_after_are_shown_side_by_side_and_j_opens_the_next_question(page, world):
    id = world.ids("stage=evaluate&policy=sft")[0]
    visit(page, world, f"#/c/{id}")
    page.locator(".side").nth(1).wait_for()
    assert page.locator(".side h4 button").all_inner_texts() == ["SFT", "GRPO"]
    first = page.locator(".side").first.get_attribute("data-id")
    page.locator(".beside .chip", has_text="Direct answer").click()
    page.locator(".side").nth(2).wait_for()
    press(page, "j")
    wait_until(page, "id => !document.querySelector(`.side[data-id='${id}']`)", arg=first)
    assert page.locator(".side").count() == 2


# ---- strangers' text


@pytest.mark.parametrize("page", [{}, {"color_scheme": "dark"}], indirect=True)
def test_scripts_tags_and_control_characters_of_others_are_shown_as_text(page, tmp_path):
    text = f"{viewers.EVIL} {viewers.BIDI} {viewers.ANSI} </information><|im_end|>"
    turns = (
        Turn(text=text, action="text", argument=text, reasoning=text, error=text, well_formed=False,
             observation=Observation(text=text, tool=text, results=(Result(title=text, url=f"javascript:{text}", text=text),))),
    )  # fmt: skip
    evil = viewers.illustrated(
        1, turns=turns, question=text, answers=(text,), answer=text, kind=text, level=text, policy=text
    )
    with one(tmp_path, evil, reviews=tmp_path / "r") as viewer:
        visit(page, viewer)
        press(page, "w")
        page.wait_for_timeout(200)
        assert page.evaluate("window.owned") is None
        assert page.locator("img[src=x], .detail script, .detail a:not(.where a)").count() == 0
        shown = page.locator("body").inner_text()
        assert "\u202e" not in shown and "\x1b" not in shown
        assert {"RLO", "PDF", "ESC"} <= set(page.locator(".detail .sign").all_inner_texts())
        assert "<script>window.owned=1</script>" in page.locator(".detail h3").inner_text()
        assert {"</information>", "<|im_end|>"} <= set(page.locator(".turn pre .tag").all_inner_texts())
        assert not any("\u202e" in (option.inner_text()) for option in page.locator("option").all())


# ---- what is torn, missing, or not there yet


def test_unreadable_lines_images_and_archives_are_reported(page, tmp_path):
    page.expected = ["404"]
    torn, bare = viewers.illustrated(1), viewers.illustrated(2)
    path = tmp_path / "t.zip"
    good = torn.model_dump_json(), bare.model_dump_json()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            trajectory_zip.LINES, "\n".join([*good, good[0].replace('"version":1', '"version":9', 1), good[0][:99]])
        )
        file.writestr(f"images/{torn.image}.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + b"\0\0\0\x09\0\0\0\x09 torn")
    with viewers.viewing(sources.of_file(path), tmp_path) as viewer:
        visit(page, viewer)
        page.get_by_text("The image is torn.").wait_for()
        press(page, "j")
        page.get_by_text("The image is missing from the archive.").wait_for()
        press(page, "j")
        page.get_by_text("not a trajectory of version 1: version").first.wait_for()
        assert '"version":9' in page.locator(".rawline").inner_text()
        press(page, "j")
        page.get_by_text("half-written: the file ends within this line").first.wait_for()


def test_a_run_without_trajectories_shows_the_first_one_when_it_arrives(page, tmp_path):
    kept = store.Store(tmp_path / "store")
    with viewers.viewing(sources.of_store(kept, "young"), tmp_path) as viewer:
        page.goto(viewer.server.url)
        page.get_by_text("No trajectories are recorded here.").wait_for()
        viewers.publish(kept, [viewers.illustrated(1)], tmp_path)
        viewer.indexer.refresh()
        page.wait_for_selector(".detail .turn")


def test_problems_are_listed_at_the_top(page, tmp_path):
    kept = store.Store(tmp_path / "store")
    viewers.publish(kept, [viewers.illustrated(1)], tmp_path)
    (tmp_path / "store/manifests/curate/000000002.json").write_text("{")
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        visit(page, viewer)
        page.get_by_text("1 problem").click()
        page.get_by_text("manifest is not valid").wait_for()


def test_the_page_reports_that_its_server_has_ended(page, tmp_path):
    page.expected = ["ERR_INTERNET_DISCONNECTED"]
    with one(tmp_path, viewers.illustrated(1), viewers.illustrated(2)) as viewer:
        visit(page, viewer)
        page.context.set_offline(True)
        press(page, "j")
        page.get_by_text("Is `gog view` still running?").wait_for()
        page.context.set_offline(False)
        press(page, "k", "j")
        opened(page, viewer.ids()[1])


# ---- the report holds the same viewer


def test_the_static_report_contains_the_same_viewer(page, run):
    written = report.write(run, now=report_objects.NOW)
    page.goto(f"{written.as_uri()}#/c/")
    page.goto(written.as_uri())
    page.locator("#viewer").scroll_into_view_if_needed()
    page.wait_for_selector(".detail .turn")
    page.select_option("[data-filter=stage]", "evaluate")
    page.locator(".items").focus()
    press(page, "j")
    page.locator(".ways button", has_text="Before and after").wait_for()
    press(page, "c")
    page.locator(".side").nth(1).wait_for()
    assert page.locator(".side h4 button").all_inner_texts() == ["SFT", "GRPO"]
