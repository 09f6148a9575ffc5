"""Claims about the page of `gog serve agent`, in a real Chromium: the loop is seen, and nothing that is shown can act.

The tools are real servers; the policy's turns are written here. Skipped where there is no Chromium. Every test ends by
asking that nothing was said on the console, nothing was refused by the page's policy, and no other server was asked.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import chat_server
from support.browser import CHROMIUM, wait_until
from support.chat_server import Script
from support.view_builders import EVIL

from gog import dataset
from gog.dataset import Question

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the page was not tried in a browser: there is no Chromium")

ANSWER = "<think>known</think><answer>green</answer>"


@pytest.fixture(scope="module")
def policy() -> Iterator[tuple[Script, chat_server.ChatServer]]:
    script = Script(ANSWER)
    with chat_server.serving(script) as served:
        yield script, served


@pytest.fixture(scope="module")
def agent(start_once, policy) -> Any:
    """A running agent over the scripted policy and the world's grounding; what searches find is of this file."""
    pages = ("--backend", "outside:HostilePages", "--options", json.dumps({"text": EVIL}))
    started = {
        "grounding": start_once("gog_tools.grounding.server"),
        "imageSearch": start_once("gog_tools.search.server", "image", "--backend", "outside:Mirrored"),
        "textSearch": start_once("gog_tools.search.server", "text", *pages),
    }
    tools = json.dumps({name: server.url for name, server in started.items()})
    settings = json.dumps({"thumbnails": {"count": 1}})
    line = ("gog_tools.agent.server", "--policy", policy[1].url, "--tools", tools, "--settings", settings)
    return start_once(*line)


@pytest.fixture(scope="module")
def question(world: Path) -> Question:
    """One about a thing that lies in the image at a known place."""
    return next(each for each in dataset.read_questions(world, "test") if each.evidence.things > 2)


@pytest.fixture
def script(policy) -> Script:
    policy[0].turns, policy[0].before = (ANSWER,), lambda request: None
    policy[1].requests.clear()
    return policy[0]


@pytest.fixture
def opened(page, agent, script, world: Path, question: Question) -> Any:
    """The page, with an image that was chosen."""
    page.goto(agent.url)
    page.get_by_label("image", exact=True).set_input_files(world / question.image)
    page.locator("#image").wait_for()
    return page


def ask(page, text: str) -> None:
    page.get_by_label("question").fill(text)
    page.get_by_role("button", name="Ask").click()


def boxes(page, selector: str = "#boxes .box") -> list[list[float]]:
    """x0, y0, x1, y1 of boxes as they lie on the screen, in pixels of the image."""
    shown = page.locator("#image").bounding_box()
    scale = page.locator("#image").evaluate("image => image.naturalWidth") / shown["width"]
    return page.locator(selector).evaluate_all(
        "(all, [left, top, scale]) => all.map(each => each.getBoundingClientRect()).map(r => "
        "[r.left - left, r.top - top, r.right - left, r.bottom - top].map(side => side * scale))",
        [shown["x"], shown["y"], scale],
    )


def test_each_step_its_boxes_and_the_answer_are_seen(opened, script, question):
    expression = question.evidence.expression
    script.turns = (
        f"<think>where is it</think><img_search>{expression}</img_search>",
        "<think>this one</think><img_search>#1</img_search>",
        "<think>what is all of it</think><img_search><img></img_search>",
        "<think>read</think><text_search>colours</text_search>",
        ANSWER,
    )
    ask(opened, question.question)
    opened.locator("#answer").wait_for()
    assert opened.locator("#answer .text").inner_text() == "green"
    assert opened.locator("#steps .what").all_inner_texts() == [
        f"looks for “{expression}”",
        "gazes at #1",
        "glances at the whole image",
        "searches for “colours”",
        "answers",
    ]
    assert opened.locator("#steps .why").all_inner_texts()[:2] == ["where is it", "this one"]
    offered, looked = opened.locator("#steps .got").all_inner_texts()[:2]
    assert looked.startswith("Candidate #1 looks like:")
    assert len(boxes(opened)) == len(offered.splitlines()) > 1
    assert boxes(opened, ".box.chosen") == [pytest.approx(question.evidence.region, abs=2)]
    assert opened.locator("#steps .waiting, #steps .bad").count() == 0


def test_text_of_the_model_and_of_pages_is_shown_and_does_nothing(opened, script):
    script.turns = (
        f"<think>{EVIL}</think><text_search>{EVIL}</text_search>",
        f"<think>{EVIL}</think><answer>{EVIL}</answer>",
    )
    ask(opened, EVIL)
    opened.locator("#answer").wait_for()
    assert opened.locator("#answer .text").inner_text() == EVIL
    assert opened.locator("#steps .why").all_inner_texts() == [EVIL, EVIL]
    assert opened.locator("#steps .what").first.inner_text() == f"searches for “{EVIL}”"
    assert EVIL in opened.locator("#steps .got").inner_text()
    assert opened.locator("#answer a").evaluate_all("all => all.map(a => [a.textContent, a.href])") == [
        [EVIL, "https://example.org/a"]
    ]
    assert opened.locator("img").count() == 1 and opened.locator("script").count() == 1, "the page's own"
    assert opened.evaluate("window.owned") is None


@pytest.mark.parametrize("replaced", [False, True])
def test_an_image_may_be_dropped_anywhere_on_its_place(page, agent, script, world, question, replaced):
    page.goto(agent.url)
    if replaced:
        other = next(each for each in dataset.read_questions(world, "test") if each.image != question.image)
        page.get_by_label("image", exact=True).set_input_files(world / other.image)
        page.locator("#image").wait_for()
    place = page.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(world / question.image)], "dragOperationsMask": 1}
    at = {"x": place["x"] + 0.97 * place["width"], "y": place["y"] + 0.97 * place["height"]}
    hand = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        hand.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})
    dropped = base64.b64encode((world / question.image).read_bytes()).decode()
    wait_until(page, "data => document.querySelector('#image')?.src.endsWith(data)", arg=dropped)
    ask(page, question.question)
    page.locator("#answer").wait_for()
    assert page.locator("#answer .text").inner_text() == "green"


def test_boxes_of_earlier_candidates_stay_and_those_inside_other_images_are_not_drawn(opened, script, question):
    expression = question.evidence.expression
    script.turns = (
        "<think>a</think><img_search><img></img_search>",
        f"<think>b</think><img_search>{expression}</img_search>",
        f"<think>c</think><img_search>#1: {expression}</img_search>",
        "<think>d</think><img_search>#2</img_search>",
        ANSWER,
    )
    ask(opened, question.question)
    opened.locator("#answer").wait_for()
    whole, inside = (text.splitlines() for text in opened.locator("#steps .got").all_inner_texts()[1:3])
    assert whole[0].startswith("#2 ") and any(line.startswith(f"#{len(whole) + 2} ") for line in inside)
    assert len(boxes(opened)) == len(whole)
    assert boxes(opened, ".box.chosen") == [pytest.approx(question.evidence.region, abs=2)]


def test_a_chat_is_not_asked_twice_and_can_be_stopped(opened, script, policy):
    asked, go = threading.Event(), threading.Event()

    def hold(request: dict[str, Any]) -> None:
        asked.set()
        assert go.wait(30)

    script.before = hold
    try:
        field = opened.get_by_label("question")
        field.fill("what colour is it ?")
        field.press("Enter")
        assert asked.wait(30)
        field.press("Enter")
        opened.get_by_role("button", name="Stop").click()
        opened.locator("#answer").wait_for()
        assert opened.locator("#answer .text").inner_text() == "Stopped."
    finally:
        go.set()
    assert opened.get_by_role("button", name="Stop").count() == 0
    assert len(policy[1].requests) == 1
    script.before = lambda request: None
    ask(opened, "what colour is it ?")
    opened.get_by_text("green", exact=True).wait_for()
    assert len(policy[1].requests) == 2


def test_without_an_image_nothing_is_asked(page, agent, script, policy):
    page.goto(agent.url)
    ask(page, "what colour is it ?")
    assert page.locator("#answer .text").inner_text() == "Choose an image first." and not policy[1].requests
