"""Claims about the report's file: it is complete in itself, and text and images of a run cannot act in it."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess

import pytest
import support.report_builders as builders
from support.browser import CHROMIUM
from support.builders import make_image, make_trajectory, make_turn
from support.report_pages import EVIL, data_of, page_of, without_data, write

from gog.trajectory import Observation, Result
from gog_console.report import viewer_payload
from gog_console.report.model import Sample


def test_the_page_has_no_external_references(whole):
    html = page_of(whole)
    assert "http://" not in html and "https://" not in html
    results = [
        found
        for each in data_of(html)["trajectories"]
        for turn in each["turns"]
        for found in turn.get("seen", {}).get("results", ())
    ]
    assert any(found["url"] == "https://example.org/0" for found in results), "what a tool found is embedded unchanged"
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", without_data(html))
    assert "@import" not in html and "url(#hatch)" in html
    assert all(image["src"].startswith("data:image/") for image in data_of(html)["images"].values())


def test_only_the_scripts_and_styles_that_the_policy_names_may_run(whole):
    html = page_of(whole)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert policy and script and style
    assert policy.group(1).startswith("default-src 'none'; img-src data:;")
    for text in (script.group(1), style.group(1)):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy.group(1)
    assert not re.search(r"\sstyle=|\son\w+=", without_data(html).replace(script.group(1), ""))


def test_a_closing_script_tag_in_an_answer_stays_inert(tmp_path):
    def edit(item):
        return item.model_copy(update={"answer": EVIL, "question": EVIL, "answers": (EVIL,)})

    html, _ = write(builders.make_run(tmp_path, steps=6, questions=6, edit=edit))
    assert html.count("</script>") == 2 and html.count("<script") == 2
    assert "\u2028" not in html
    assert any(each.get("answer") == EVIL for each in data_of(html)["trajectories"])


def test_text_of_a_run_cannot_become_markup(tmp_path):
    folder = builders.make_run(
        tmp_path, stages=builders.ALL[:4], failed="grpo", steps=6, spec={"model": {"base": EVIL}}
    )
    for path in (folder / "objects").iterdir():
        path.write_text(path.read_text().replace("the judge decided", "<b onclick=x> the judge decided"))
    html, _ = write(folder)
    assert "<b onclick" not in html and "<img src=x" not in html
    assert "&lt;b onclick=x&gt;" in html and html.count("<script") == 2


def test_an_undecodable_image_is_only_missing():
    assert viewer_payload.embed(b"not an image") == {"src": "", "w": 0, "h": 0}


def test_large_images_are_scaled_down_rather_than_dropped(monkeypatch):
    monkeypatch.setattr(viewer_payload, "BUDGET", 400_000)
    monkeypatch.setattr(viewer_payload, "SIDES", (320, 64))

    images = [make_image(seed, 400, 300) for seed in range(12)]
    samples = [
        Sample(make_trajectory(id=f"t{n}", question_id=f"q{n}", image=image.hash), "evaluate", "evaluate", 1)
        for n, image in enumerate(images)
    ]
    found = viewer_payload.viewer(samples, {image.hash: image.png for image in images})
    assert len(found["trajectories"]) == 12
    sizes = {(image["w"], image["h"]) for image in found["images"].values()}
    assert sizes == {(400, 300)}, "boxes are in pixels of the original"
    assert sum(len(image["src"]) for image in found["images"].values()) < 400_000


def test_a_thumbnail_that_the_model_saw_is_embedded_and_named_by_its_result():

    image, shown = make_image(1), make_image(2)
    results = (Result(title="a", thumbnail=shown.hash), Result(title="b"))
    seen = Observation(text="seen", tool="imageSearch", images=(shown.hash,), results=results)
    item = make_trajectory(make_turn("glance", observation=seen), image=image.hash)
    found = viewer_payload.viewer(
        [Sample(item, "evaluate", "evaluate", 1)], {each.hash: each.png for each in (image, shown)}
    )
    assert set(found["images"]) == {image.hash, shown.hash}
    named = [result.get("thumbnail") for result in found["trajectories"][0]["turns"][0]["seen"]["results"]]
    assert named == [shown.hash, None]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_in_a_browser_the_linked_trajectory_opens_with_its_boxes_and_nothing_is_refused(whole, tmp_path):
    data = data_of(page_of(whole))
    wanted = next(each for each in data["trajectories"] if [t["action"] for t in each["turns"]].count("gaze"))
    offered = next(turn["seen"]["candidates"] for turn in wanted["turns"] if turn["action"] == "ground")
    address = f"file://{whole}/report/index.html#/t/{wanted['id']}"
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}",
    ]
    done = subprocess.run(
        [str(CHROMIUM), *options, "--dump-dom", address], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"{len(data['trajectories'])} trajectories" in done.stdout and 'class="item ' in done.stdout
    assert done.stdout.count('class="box candidate') == len(offered)
    assert 'class="box candidate chosen' in done.stdout and 'class="box region' in done.stdout
    assert "CONSOLE" not in done.stderr
