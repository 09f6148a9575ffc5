"""Trajectories of verl, TRL and OpenSearch-VL, as their own writers wrote them (`dumps/write_*.py`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import support.view_builders as viewers
from support.browser import CHROMIUM
from support.browser_pages import visit

from gog.errors import UserError
from gog_console.viewer import dumps, sources
from gog_console.viewer.foreign import acts, chat, episode, pictures

DUMPS = Path(__file__).parent / "dumps"
QUESTION = "In which year was this tower finished?"
PAD = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"


@pytest.fixture
def opened(tmp_path):
    """Opens a viewer over a dump."""
    with viewers.contextlib.ExitStack() as stack:

        def opens(path: Path, cache: str = "cache") -> viewers.Viewer:
            (tmp_path / cache).mkdir(exist_ok=True)
            place = sources.resolve(str(path), tmp_path, images=DUMPS)
            return stack.enter_context(viewers.viewing(place, tmp_path / cache))

        yield opens


def entries(viewer: viewers.Viewer, query: str = "") -> list[dict]:
    return [viewer.json(f"/api/trajectory?id={id}")["trajectory"] for id in viewer.ids(query)]


def actions(entry: dict) -> list[str]:
    return [turn["action"] for turn in entry["turns"]]


@pytest.mark.parametrize(("name", "count"), [("trl", 4), ("verl", 8), ("opensearch_vl", 2)])
def test_a_dump_is_recognised_by_its_content_and_every_row_is_shown(opened, name, count):
    assert dumps.recognise(DUMPS / name) == name
    viewer = opened(DUMPS / name)
    found = entries(viewer)
    assert len(found) == count and not any("problem" in entry for entry in found)
    assert viewer.json("/api/run")["problems"] == []


def test_every_reader_is_a_file_of_the_package():
    assert dumps.names() == ["opensearch_vl", "trl", "verl"]


@pytest.mark.parametrize("name", ["trl", "verl"])
def test_the_text_of_a_rollout_is_split_into_turns(opened, name):
    entry = next(each for each in entries(opened(DUMPS / name)) if each.get("answer") == "1889")
    assert entry["question"] == QUESTION and entry["answers"] == ["1889"] and entry["outcome"] == "correct"
    assert actions(entry) == ["call", "text", "answer"]
    zoom, search, answer = entry["turns"]
    assert zoom["reasoning"] == "It may be the Eiffel Tower. I look closer."
    assert zoom["seen"]["candidates"][0]["box"] == [20, 4, 44, 60]
    assert search["argument"] == "Eiffel Tower year finished" and search["seen"]["tool"] == "textSearch"
    assert search["seen"]["text"] == "The tower was finished on 31 March 1889.\nuser\ncomments are closed"
    assert answer["argument"] == "1889" and "seen" not in answer
    assert entry["prompt"].startswith("system\nYou answer questions about images.")
    assert "<|" not in json.dumps(entry)


@pytest.mark.parametrize("name", ["trl", "verl"])
def test_a_tool_that_reports_an_error_has_failed_and_a_cut_off_turn_has_no_action(opened, name):
    found = [each for each in entries(opened(DUMPS / name)) if each["question"] == "这座塔有多高？"]
    right = next(each for each in found if each["outcome"] == "correct")
    assert actions(right) == ["text", "answer"] and right["failures"] == 1
    cut = next(each for each in found if each["outcome"] == "wrong")
    assert actions(cut) == ["none"] and cut["stop"] == "format" and cut["turns"][0]["reasoning"] == "这座塔很高，"


def test_the_rollouts_of_a_question_are_a_group_with_its_advantages(opened):
    viewer = opened(DUMPS / "trl")
    first = viewer.json(f"/api/trajectory?id={viewer.ids('text=tower')[0]}")
    assert [row["sample"] for row in first["group"]] == [0, 1]
    assert [round(row["advantage"], 3) for row in first["group"]] == [0.707, -0.707]
    assert [row["reward"] for row in first["group"]] == [1.5, 0.5]
    assert first["trajectory"]["marks"] == {"accuracy_reward": "1", "format_reward": "0.5"}
    assert first["trajectory"]["reward"] == {"total": 1.5, "accuracy": 1.0}


def test_the_figures_of_a_row_are_shown_and_a_step_is_compared_with_the_next(opened):
    viewer = opened(DUMPS / "verl")
    answer = viewer.json(f"/api/trajectory?id={viewer.ids('step=9&text=1889')[0]}")
    assert answer["trajectory"]["marks"] == {"acc": "true", "format": "1", "request_id": "request-0"}
    assert answer["trajectory"]["reward"]["total"] == 1.0
    assert [row["step"] for row in answer["others"]] == [9, 10]


def test_a_crop_is_a_box_and_searching_it_is_a_gaze(opened):
    entry = next(each for each in entries(opened(DUMPS / "opensearch_vl")) if each["questionId"] == "fvqa_test_7")
    assert actions(entry) == ["call", "gaze", "answer"] and entry["answer"] == "kiosk"
    (crop,) = entry["turns"][0]["seen"]["candidates"]
    assert (crop["n"], crop["box"], entry["turns"][1]["selected"]) == (2, [44, 40, 60, 60], [2])
    assert entry["images"][crop["crop"]]["w"] == 16
    assert entry["turns"][1]["seen"]["failures"][0]["message"].startswith("Tool execution error")
    assert entry["policy"] == "Scripted-8B" and entry["kind"] == "search_required" and entry["outcome"] == "unjudged"


def test_verdicts_are_read_from_the_report_beside_the_files_and_images_by_the_name_of_the_case(opened, tmp_path):
    shutil.copytree(DUMPS / "opensearch_vl", tmp_path / "out")
    shutil.copy(DUMPS / "images" / "tower.png", tmp_path / "out" / "fvqa_test_8.png")
    line = {"case_id": "fvqa_test_8", "correct_answer": "Eiffel et Cie", "acc": 0}
    (tmp_path / "out" / "eval_report_vdr_details.jsonl").write_text(json.dumps(line) + "\n")
    entry = next(each for each in entries(opened(tmp_path / "out")) if each["questionId"] == "fvqa_test_8")
    assert entry["outcome"] == "wrong" and entry["answers"] == ["Eiffel et Cie"]
    assert entry["images"][entry["image"]]["w"] == 64


def test_a_bad_row_is_named_and_hides_no_other(opened, tmp_path):
    good = (DUMPS / "verl" / "rollouts" / "9.jsonl").read_text().splitlines()
    bad = [
        '{"input": "a", "output": null, "score": 1, "gts": 1, "step": 3}',
        "[1]",
        '{"input": "a", "output": "b", "sco',
    ]
    (tmp_path / "3.jsonl").write_text("\n".join([good[0], bad[0], good[1], bad[1], bad[2]]))
    found = entries(opened(tmp_path / "3.jsonl"))
    problems = [entry["problem"] for entry in found if entry["outcome"] == "unreadable"]
    assert len(found) == 5
    assert problems[0] == "3.jsonl, row 2: output: is null, not text"
    assert problems[1] == "3.jsonl, row 4: is a list, not an object"
    assert problems[2].startswith("3.jsonl, row 5: ")
    assert next(entry["raw"] for entry in found if entry.get("problem") == problems[0]) == bad[0] + "\n"


def test_a_damaged_file_is_reported_and_hides_no_other(opened, tmp_path):
    shutil.copytree(DUMPS / "opensearch_vl", tmp_path / "out")
    case = tmp_path / "out" / "fvqa_test_7_trajectory.json"
    viewer = opened(tmp_path / "out")
    assert len(viewer.ids()) == 2
    case.write_text(case.read_text().replace('"turns": [', '"turns": ["no turn", '))
    viewer.indexer.refresh()
    assert [entry["outcome"] for entry in entries(viewer)] == ["unjudged", "unreadable"]


def test_images_are_found_by_an_index_of_an_earlier_viewer(opened):
    opened(DUMPS / "verl")
    again = opened(DUMPS / "verl")
    row = again.json("/api/list")["rows"][0]
    reply = again.request(row["thumb"])
    assert reply.status == 200 and reply.headers["Content-Type"] == "image/png"


def test_an_archive_of_gog_is_no_dump(tmp_path):
    viewers.trajectory_zip.write(tmp_path / "trajectories.zip", [], {})
    (tmp_path / "own.jsonl").write_text('{"id": "x", "question": "?"}\n')
    assert dumps.recognise(tmp_path) == ""
    with pytest.raises(UserError, match="nor anything that opensearch_vl, trl, verl wrote"):
        sources.resolve(str(tmp_path), tmp_path)


# ---- who said what


@pytest.mark.parametrize(
    "text",
    [
        f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{PAD}Who?<|im_end|>\n<|im_start|>assistant\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\n<image>Who?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<bos><start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user\n<image>Who?<end_of_turn>\n<start_of_turn>model\n",
    ],
)
def test_chat_templates_are_split_into_messages_without_their_tokens(text):
    found = chat.of_text(text, "")
    assert found == [
        chat.Message("system", "Be brief."),
        chat.Message("user", "[image]Who?"),
        chat.Message("assistant", ""),
    ]


def test_a_template_that_lost_its_tokens_is_split_where_a_role_can_follow():
    roles = [each.role for each in chat.of_text("system\nx\nuser\nassistant\nuser\n", "")]
    assert roles == ["system", "user", "assistant", "user"]
    assert [each.role for each in chat.of_text("What is\nuser\nspace?", "")] == ["user"]
    assert [each.role for each in chat.of_text("A list:\nuser\nname", "assistant")] == ["assistant"]
    assert [each.role for each in chat.of_text("x\nuser\npage\nassistant\ny", "assistant")] == [
        "assistant",
        "user",
        "assistant",
    ]


def test_calls_of_a_conversation_in_messages_are_turns():
    call = {"function": {"name": "search", "arguments": '{"q": "Ada"}'}}
    found = episode.build(
        prompt=chat.of_messages([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]),
        completion=chat.of_messages(
            [
                {"role": "assistant", "reasoning_content": "Hm.", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "Ada Lovelace"},
                {"role": "assistant", "content": "It is \\boxed{Ada}."},
            ]
        ),
        answers=(), accuracy=None, record={}, known=(),
    ).trajectory  # fmt: skip
    assert [(turn.action, turn.argument) for turn in found.turns] == [("text", "Ada"), ("answer", "Ada")]
    assert found.turns[0].reasoning == "Hm." and found.question == "Who?" and found.reward is None


@pytest.mark.parametrize(
    ("text", "kind", "argument"),
    [
        ("<search>Ada</search>", "text", "Ada"),
        ("<tool_call>{broken</tool_call>", "call", "{broken"),
        ('<tool_call>{"name": "lens_scan", "arguments": {"url": "img_1"}}</tool_call>', "glance", "img_1"),
        (
            '<crop>{"x": 1, "y": 2, "width": 0, "height": 4}</crop>',
            "call",
            'crop {"x": 1, "y": 2, "width": 0, "height": 4}',
        ),
        ("<answer>Ada", "answer", "Ada"),
        ("Just Ada.", "answer", "Just Ada."),
        ("word " * 100, "none", ""),
        ("", "none", ""),
    ],
)
def test_a_turn_is_read_whatever_it_holds(text, kind, argument):
    found = acts.act(text.strip(), last=True)
    assert (found.kind, found.argument) == (kind, argument) and found.box is None


def test_reasoning_that_begins_in_the_prompt_is_reasoning():
    prompt = chat.of_text("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>\n", "")
    found = episode.build(
        prompt=prompt,
        completion=chat.of_text("hm</think>\nAda", "assistant"),
        answers=(),
        accuracy=None,
        record={},
        known=(),
    )
    assert (found.trajectory.turns[0].reasoning, found.trajectory.answer) == ("hm", "Ada")


def test_an_image_is_found_by_the_last_parts_of_a_path_of_another_machine(tmp_path):
    image = (DUMPS / "images" / "tower.png").read_bytes()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.png").write_bytes(image)
    for named in ("/data/run/images/7.png", "images/7", "../images/7.png", "https://example.org/images/7.png", "7.png"):
        folders = (tmp_path / "images",) if named == "7.png" else (tmp_path,)
        assert pictures.png(named, folders) is not None, named
    for named in ("/data/8.png", "", "/dev/zero", "\0", "x" * 5000, {"path": "/dev/zero"}, {"bytes": "AAAA"}):
        assert pictures.png(named, (tmp_path,)) is None, named


@pytest.mark.parametrize(
    ("gold", "answers"),
    [
        (None, ()),
        ("Ada", ("Ada",)),
        (7, ("7",)),
        ({"target": ["a", "b"]}, ("a", "b")),
        ('["a"]', ("a",)),
        ({"x": 1}, ('{"x": 1}',)),
    ],
)
def test_accepted_answers_are_read_in_every_form(gold, answers):
    assert episode.accepted(gold) == answers


def test_a_score_is_a_verdict_only_where_it_says_so():
    assert episode.verdict({"acc": True}, ("acc",), 0.3) == 1.0
    assert episode.verdict({}, ("acc",), 1.0) == 1.0
    assert episode.verdict({}, ("acc",), 0.9) is None
    assert episode.verdict({"acc": 0.5}, ("acc",), 1.0) is None


# ---- in a browser


@pytest.mark.skipif(CHROMIUM is None, reason="the viewer was not tried in a browser: there is no Chromium")
def test_a_browser_shows_the_image_the_crop_the_call_and_the_figures_of_a_row(page, opened, tmp_path):
    shutil.copytree(DUMPS / "opensearch_vl", tmp_path / "out")
    shutil.copy(DUMPS / "images" / "tower.png", tmp_path / "out" / "fvqa_test_7.png")
    viewer = opened(tmp_path / "out")
    page.expected = ["404"]  # the other question's image, which its case does not name
    visit(page, viewer, f"#/t/{viewer.ids('text=kiosk')[0]}")
    assert page.locator(".does b").all_inner_texts() == ["Call", "Gaze", "Answer"]
    assert page.locator(".overlay .box.chosen").all_inner_texts() == ["#2"]
    assert page.locator(".thumb img").count() == 2  # where it was cut out, and where it was searched
    assert "Tool failure: reported" in page.locator(".turn.failed").inner_text()
    facts = page.locator(".facts").inner_text()
    assert "data_source" in facts and "fvqa" in facts
    page.locator(".prompt summary").click()
    assert page.locator(".prompt pre").inner_text() == "user\nWhat is the small thing beside the tower?"


@pytest.mark.skipif(CHROMIUM is None, reason="the viewer was not tried in a browser: there is no Chromium")
def test_a_browser_shows_a_reward_without_parts_that_the_row_does_not_have(page, opened):
    viewer = opened(DUMPS / "trl")
    visit(page, viewer, f"#/t/{viewer.ids('text=tower')[0]}")
    assert page.locator(".verdict .reward").inner_text() == "reward 1.5 · advantage +0.71"
    assert page.locator(".relatives").inner_text().split() == ["Same", "group:", "✓", "sample", "1", "✗", "sample", "2"]
