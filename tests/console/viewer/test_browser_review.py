"""Claims about reviewing in the page, in a real Chromium: by keys, and with a drawn box. See test_browser."""

from __future__ import annotations

import json

import pytest
import support.view_builders as viewers
from support.browser import CHROMIUM, wait_until
from support.browser_pages import one, opened, press, visit

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the viewer was not tried in a browser: there is no Chromium")


def test_a_demonstration_is_accepted_rejected_noted_and_undone_by_keys(page, tmp_path):
    path = tmp_path / "reviews.jsonl"
    with one(tmp_path, *(viewers.illustrated(n) for n in (1, 2, 3)), reviews=path) as viewer:
        ids = viewer.ids()
        visit(page, viewer)
        press(page, "a")
        opened(page, ids[1])
        press(page, "n")
        page.keyboard.type("wrong crop")
        press(page, "Enter")
        page.locator(".said", has_text="noted").wait_for()
        press(page, "x")
        opened(page, ids[2])
        wait_until(page, "() => document.querySelectorAll('.decided').length === 2")
        page.reload()
        page.wait_for_selector(".decided")
        assert page.locator(".decided").all_inner_texts() == ["A", "R"]
        press(page, "k")
        opened(page, ids[1])
        assert page.locator(".review input").input_value() == "wrong crop"
        press(page, "u")
        wait_until(page, "() => document.querySelectorAll('.decided').length === 1")
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["decision"] for line in kept] == ["accept", "note", "reject", "undo"]
    assert kept[2]["note"] == "wrong crop" and kept[0]["trajectory"] == ids[0]


def test_a_key_pressed_before_the_list_is_ready_is_kept(page, tmp_path):
    with one(tmp_path, *(viewers.illustrated(n) for n in (1, 2, 3))) as viewer:
        ids = viewer.ids()
        requested, held = [], []

        def hold(route):  # the first is the trajectory's own; the list asks afterwards
            requested.append(route)
            held.append(route) if len(requested) == 2 else route.continue_()

        page.route("**/api/place?*", hold)
        visit(page, viewer, f"#/t/{ids[2]}")
        wait_until(page, "() => document.querySelectorAll('.item').length === 3")
        press(page, "k")
        for route in held:
            route.continue_()
        opened(page, ids[1])


def test_a_drawn_box_is_kept_in_pixels_of_the_image(page, tmp_path):
    path = tmp_path / "reviews.jsonl"
    with one(tmp_path, viewers.illustrated(1), reviews=path) as viewer:
        visit(page, viewer)
        press(page, "b")
        frame = page.locator(".scene img").bounding_box()
        scale = frame["width"] / 112
        page.mouse.move(frame["x"] + 10 * scale, frame["y"] + 20 * scale)
        page.mouse.down()
        page.mouse.move(frame["x"] + 50 * scale, frame["y"] + 70 * scale, steps=4)
        page.mouse.up()
        press(page, "Enter")
        page.locator(".said", has_text="box fixed to 10, 20, 50, 70").wait_for()
        shown = page.locator(".box.fixed").bounding_box()
        assert shown["x"] == pytest.approx(frame["x"] + 10 * scale, abs=1)
        assert shown["width"] == pytest.approx(40 * scale, abs=1)
        press(page, "b", "ArrowRight", "Shift+ArrowDown", "Enter")
        page.locator(".said", has_text="box fixed to 12, 20, 52, 72").wait_for()
    boxes = [json.loads(line)["box"] for line in path.read_text().splitlines()]
    assert boxes[0] == pytest.approx([10, 20, 50, 70], abs=0.3) and boxes[1] == pytest.approx([12, 20, 52, 72], abs=0.3)
