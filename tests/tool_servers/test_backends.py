"""Back ends by name, with options: those of the project, and one per role from outside it."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gog import judging, tool_api
from gog.completions import Model
from gog.errors import UserError
from gog.images import Image
from gog_tools.grounding.backend import Detector
from gog_tools.judge.backend import Judge
from gog_tools.search.backend import ImageSearch, TextSearch
from gog_tools.serving import backends

PROTOCOLS = {
    "grounding": Detector,
    "image-search": ImageSearch,
    "text-search": TextSearch,
    "judge": Judge,
    "policy": Model,
}
IMAGE = tool_api.encode_image(Image(np.zeros((20, 30, 3), np.uint8)))
DOCUMENT = Path(__file__).parents[2] / "docs" / "backends.md"
CASE = judging.messages("what?", ["n12"], "n13")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The back ends of outside.py in this process; servers find them by PYTHONPATH."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    sys.modules.pop("outside", None)


def load(role, name, options="{}", **resources):
    return backends.load(
        role, name, options, PROTOCOLS[role], {key: lambda v=value: v for key, value in resources.items()}
    )


def fault(role, name, options="{}", **resources):
    with pytest.raises(UserError) as caught:
        load(role, name, options, **resources)
    sentence = caught.value.sentence()
    assert "\n" not in sentence
    return sentence


def serve(start, role, name, options, *more):
    module = {"image-search": "search", "text-search": "search"}.get(role, role)
    first = {"image-search": ("image",), "text-search": ("text",)}.get(role, ())
    return start(f"gog_tools.{module}.server", *first, "--backend", name, "--options", json.dumps(options), *more)


# ---- a back end from outside, for each role


def test_a_detector_from_outside_answers_the_grounding_server(start):
    server = serve(start, "grounding", "outside:WholeImage", {"label": "all", "score": 0.5})
    answer = server.post(tool_api.GROUNDING_PATH, {"instances": [{"image": IMAGE, "expression": "red"}]})
    (prediction,) = answer.json()["predictions"]
    assert prediction["detections"] == [{"box": [0.0, 0.0, 30.0, 20.0], "score": 0.5, "label": "all"}]


def test_an_image_search_from_outside_reports_what_an_answer_costs(start):
    server = serve(start, "image-search", "outside:Sizes", {})
    answer = server.post(tool_api.IMAGE_SEARCH_PATH, {"image": IMAGE, "top": 2})
    assert [hit["title"] for hit in answer.json()["hits"]] == ["30x20", "30x20"]
    assert (answer.headers[tool_api.COST_HEADER], answer.headers[tool_api.CREDIT_HEADER]) == ("0.015000", "74.250000")


def test_a_text_search_from_outside_reads_the_dataset_and_its_options(start, world):
    server = serve(start, "text-search", "outside:Files", {"order": "down"}, "--data", str(world))
    hits = server.post(tool_api.TEXT_SEARCH_PATH, {"query": ".jsonl"}).json()["hits"]
    assert [hit["title"] for hit in hits] == ["train.jsonl", "test.jsonl", "corpus.jsonl"]


def test_a_judge_from_outside_gives_the_verdicts(start):
    server = serve(start, "judge", "outside:Agreeable", {})
    answer = server.post(tool_api.CHAT_PATH, {"messages": CASE}).json()
    assert judging.read_verdict(answer["choices"][0]["message"]["content"]) is True
    assert answer["model"] == "outside:Agreeable"


def test_a_policy_from_outside_writes_the_completions(start):
    given = ("--base", "tiny", "--dtype", "bfloat16", "--max-pixels", "6272")
    server = serve(start, "policy", "outside:Parrot", {"times": 2}, *given)
    answer = server.post("/v1/completions", {"prompt": "ab"}).json()
    assert answer["choices"][0]["text"] == "abab tiny cpu bfloat16 None-6272"


def test_the_documented_back_end_works(tmp_path, monkeypatch):
    text = DOCUMENT.read_text(encoding="utf-8")
    code, line = text.partition("```python\n")[2].partition("```")[0], "--options '"
    (tmp_path / "first_lines.py").write_text(code)
    (tmp_path / "page.txt").write_text("a bridge over water\nbuilt long ago")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = json.loads(text.partition(line)[2].partition("'")[0]) | {"folder_of_pages": str(tmp_path)}
    (found,) = load("text-search", "first_lines:FirstLines", json.dumps(options)).search(["old bridge"], [5])
    assert [hit.title for hit in found.hits] == ["page.txt"]
    sys.modules.pop("first_lines")


# ---- names and options


@pytest.mark.parametrize("role", PROTOCOLS)
def test_every_role_has_a_back_end_named_world(role):
    assert callable(backends.find(role, "world"))


@pytest.mark.parametrize("role", PROTOCOLS)
@pytest.mark.parametrize("name", ["wrold", "nowhere:Thing", "outside:Nothing", ":", "outside:", ".outside:x"])
def test_an_unknown_back_end_is_refused_with_the_known_names(role, name):
    sentence = fault(role, name)
    assert (
        sentence.startswith(f"--backend: no back end {name!r}") and "world" in sentence and "module:factory" in sentence
    )


def test_options_reach_the_back_end():
    assert load("grounding", "world", '{"noise": 0}').noise == 0


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ('{"score": 0.5}', "--options label: "),
        ('{"label": "x", "score": 2}', "--options score: "),
        ('{"label": "x", "score": "high"}', "--options score: "),
        ('{"label": "x", "scor": 1}', "--options scor: "),
        ('{"label": "x", "score": NaN}', "--options: not valid JSON"),
        ('{"label": "x", "score": 1e999}', "--options score: "),
        ('{"label": "x", "label": "y"}', "--options: not valid JSON"),
        ("[]", "--options: "),
        ("nonsense", "--options: not valid JSON"),
        ("", "--options: not valid JSON"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence_with_its_name(options, place):
    assert fault("grounding", "outside:WholeImage", options).startswith(place)


def test_a_misspelt_option_is_answered_with_the_options_there_are():
    assert "options of outside:WholeImage: label, score" in fault("grounding", "outside:WholeImage", '{"lable": "x"}')
    assert "options of world: none" in fault("judge", "world", '{"x": 1}')


def test_a_misspelt_required_option_is_named_before_the_one_that_is_missing():
    said = fault("grounding", "outside:WholeImage", '{"lable": "x"}')
    assert said.startswith("--options lable: unknown option (did you mean label? ")
    wrong = backends.describe("grounding", "outside:WholeImage", {"lable": "x", "score": 2})["problems"]
    assert [path for path, *_ in wrong] == ["lable", "label", "score"]


def test_options_that_may_name_a_folder_are_known_by_their_type_or_mark():
    for name, role, local in (
        ("outside:Files", "text-search", []),
        ("tantivy", "text-search", ["documents"]),
        ("embeddings", "image-search", ["index", "encoder", "images"]),
    ):
        assert backends.describe(role, name, {})["local"] == local


def test_a_wrong_option_ends_the_server_with_2(start):
    server = serve(start, "grounding", "world", {"nois": 1})
    assert server.process.wait(60) == 2
    error = server.process.stderr.read()
    assert error.count("\n") == 1 and "nois" in error and "noise" in error


def test_a_resource_is_passed_by_the_server_and_cannot_be_set_by_an_option(tmp_path):
    assert load("text-search", "outside:Files", data=tmp_path, scratch=tmp_path).names == []
    assert "data" in fault("text-search", "outside:Files", '{"data": "/etc"}', data=tmp_path, scratch=tmp_path)


def test_a_back_end_that_needs_data_asks_for_it(tmp_path):
    assert "--data" in fault("text-search", "world", scratch=tmp_path)


def test_what_lacks_the_methods_of_its_role_is_refused():
    for role, protocol in PROTOCOLS.items():
        assert f"is not a {protocol.__name__}" in fault(role, "outside:mute")


# ---- failures


def test_an_unavailable_back_end_is_a_503_with_its_retry_after(start):
    server = serve(start, "grounding", "outside:WholeImage", {"label": "x"})

    def request(*expressions):
        instances = [{"image": IMAGE, "expression": each} for each in expressions]
        return server.post(tool_api.GROUNDING_PATH, {"instances": instances})

    answer = request("busy")
    assert (answer.status, answer.headers["retry-after"]) == (503, "3") and "restarting" in answer.json()["error"]
    assert request("huge").status == 400
    assert request("nan").status == 500 and "finite" in request("nan").json()["error"]
    statuses: dict[str, int] = {}
    request_thread = [
        threading.Thread(target=lambda each=each: statuses.__setitem__(each, request(each).status))
        for each in ("huge", "a", "b", "c", "d", "e")
    ]
    for thread in request_thread:
        thread.start()
    for thread in request_thread:
        thread.join()
    assert statuses == {"huge": 400, "a": 200, "b": 200, "c": 200, "d": 200, "e": 200}
