"""`gog judge calibrate` with the judge that needs no model, and with servers that exist already."""

from __future__ import annotations

import json

import pytest
import yaml
from support import chat_server

from gog import calibration
from gog_console import cli

CASES = [
    {"question": "When?", "answers": ["1998"], "answer": "March 1998", "correct": True, "kind": "date"},
    {"question": "When?", "answers": ["1998"], "answer": "1989", "correct": False, "kind": "date"},
    {"question": "What is it?", "answers": ["a torch"], "answer": "a burning torch", "correct": True, "kind": "words"},
]


@pytest.fixture
def calibrate(tmp_path, capsys):
    """calibrate(*arguments): exit code, output and messages of a calibration with CASES."""
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in CASES))

    def run(*arguments):
        code = cli.main(["judge", "calibrate", str(path), *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def server():
    """A judge that always replies Yes."""
    with chat_server.serving(lambda _: chat_server.completion("Yes")) as served:
        yield served


def test_the_judge_without_a_model_is_started_and_compared(calibrate):
    code, out, _ = calibrate()
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["date", "2", "100.0%", "34.2%", "to", "100.0%", "0", "0", "0"] in lines
    assert ["words", "1", "0.0%", "0.0%", "to", "79.3%", "0", "1", "0"] in lines
    assert "false Yes: 0 of 1 wrong answers" in out and "answered 'a burning torch'" in out


@pytest.mark.parametrize("arguments", [(), ("--options", "{}"), ("--model", "m"), ("--options", "{}", "--votes", "3")])
def test_the_judge_is_match_unless_another_is_named_and_the_first_line_says_so(calibrate, arguments):
    code, out, _ = calibrate(*arguments)
    votes = " (3 votes)" if "--votes" in arguments else ""
    assert code == 0 and out.splitlines()[0] == f"judge: match{' m' if '--model' in arguments else ''}{votes}"
    assert "false No:  1 of 2" in out


def test_a_server_that_exists_is_named_in_the_first_line(calibrate, server):
    assert calibrate("--url", server.url, "--model", "m")[1].startswith(f"judge: {server.url} m\n")


def test_a_vllm_of_a_manifest_is_not_replaced_by_another_judge(calibrate, tmp_path):
    judge = {"runtime": "vllm", "base": "hf://org/judge", "model": "j"}
    spec = {"model": {"base": "tiny"}, "data": {"world": {}}, "endpoints": {"judge": judge}}
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": spec}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
    code, _, messages = calibrate("--manifest", str(tmp_path / "run.yaml"))
    assert code == 2 and "the judge is a vLLM, which only a run starts" in messages


def test_a_server_that_exists_is_asked_for_the_model_and_votes_that_are_given(calibrate, server):
    url, received = server.url, server.requests
    code, out, _ = calibrate("--url", url, "--model", "m", "--votes", "3", "--json")
    total = json.loads(out)[-1]
    assert code == 0 and (total["kind"], total["agreed"], total["false_yes"], total["false_no"]) == ("all", 2, 1, 0)
    assert len(received) == 9 and {each["model"] for each in received} == {"m"}


def test_the_judge_of_a_manifest_is_called_as_it_says(calibrate, server, tmp_path):
    url, received = server.url, server.requests
    spec = {
        "model": {"base": "tiny"},
        "data": {"world": {}},
        "endpoints": {"judge": {"url": url, "model": "m"}},
        "tools": {"judge": {"maxTokens": 77}, "cache": {"mode": "replay-strict", "path": "/nowhere"}},
    }
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": spec}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
    assert calibrate("--manifest", str(tmp_path / "run.yaml"))[0] == 0
    assert {(each["model"], each["max_tokens"]) for each in received} == {("m", 77)}


def test_a_judge_that_decides_nothing_is_a_failure_and_its_reason_is_printed(calibrate):
    code, out, _ = calibrate("--url", "http://127.0.0.1:1")
    assert code == 1 and "without a verdict: 3 cases, the first because of connection" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--backend", "nonsense"), "no back end 'nonsense'", marks=pytest.mark.slow),
        (("--backend", "match", "--options", "{"), "--options: not JSON"),
        (("--backend", "match", "--url", "http://127.0.0.1:1"), "--url: url names an existing server"),
        (("--manifest", "run.yaml", "--model", "m"), "--manifest: names the judge"),
        (("--manifest", "run.yaml", "--votes", "1"), "--manifest: names the judge and how it is called"),
        (("--votes", "0"), "--votes: Input should be greater"),
        (("--near-misses",), "--near-misses: are a set of their own"),
    ],
)
def test_arguments_that_do_not_fit_are_one_sentence(calibrate, arguments, words):
    code, _, messages = calibrate(*arguments)
    assert code == 2 and words in messages and len(messages.splitlines()) == 1


def test_without_a_file_the_shipped_cases_are_judged(capsys, server):
    assert cli.main(["judge", "calibrate", "--url", server.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["decided"] == len(calibration.shipped())
    assert cli.main(["judge", "calibrate", "--near-misses", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["agreed"] == len(calibration.near_misses())
