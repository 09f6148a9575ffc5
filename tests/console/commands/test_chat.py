"""`gog chat`: which policy of a run is served, and with which caps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support import chat_server
from support.operator_builders import make_run
from support.status_runs import run_folder

from gog import spec as settings
from gog import store
from gog.errors import UserError
from gog_console import chat_policy, cli
from gog_console.commands import chat


def publish(folder: Path, stage: str, step: int) -> None:
    path = folder.parent / f"{stage}-{step}"
    path.write_text(f"{stage} {step}")
    store.Store(folder / "store").publish(stage, step, {"adapter": path})


def test_the_newest_checkpoint_of_grpo_is_served_before_that_of_sft(tmp_path):
    publish(tmp_path / "world", "sft", 7)
    assert chat.newest(store.Store(tmp_path / "world" / "store"), "world") == "sft/7"
    publish(tmp_path / "world", "grpo", 10)
    publish(tmp_path / "world", "grpo", 20)
    assert chat.newest(store.Store(tmp_path / "world" / "store"), "world") == "grpo/20"


def test_a_chat_has_the_caps_of_the_last_stage_that_played(tmp_path):
    for stage, turns in (("stratify", 4), ("evaluate", 6)):
        path = tmp_path / "work" / stage / "final.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump({"max_turns": turns, "gaze": "select", "temperature": 0.0}))
    assert chat.caps(chat.used(tmp_path)) == {"max_turns": 6, "gaze": "select"}
    assert chat.caps(chat.used(tmp_path / "nothing")) == {}


def test_tools_are_called_as_the_stage_called_them_but_nothing_is_recorded():
    configuration = {"tools": {"crop_side": 28, "cache": {"mode": "replay-strict", "path": "/recording"}}}
    assert json.loads(chat.limits(make_run(), configuration)) == {"crop_side": 28}
    assert json.loads(chat.limits(make_run(tools={"attempts": 2}), {})) == {"attempts": 2}


def test_the_dataset_of_the_run_is_used_where_it_is_there(tmp_path):
    run = make_run()
    assert chat.with_data(run, tmp_path) is run
    (tmp_path / "data").mkdir()
    assert chat.with_data(run, tmp_path).spec.data == settings.DataSpec(path=str(tmp_path / "data"))


def test_the_judge_is_no_tool_of_the_policy(tmp_path):
    urls = {"judge": "http://j", "policy": "http://p", "textSearch": "http://t"}
    line = chat.agent_line(make_run(), tmp_path, chat_policy.Served("http://p", ""), urls, 0)
    assert line[line.index("--tools") + 1] == '{"textSearch": "http://t"}'
    assert line[line.index("--style") + 1] == "terse", "the tiny model reads no other"


def test_a_run_without_a_policy_is_refused_with_what_to_wait_for(tmp_path, capsys: pytest.CaptureFixture[str]):
    run_folder(tmp_path, "world")
    assert cli.main(["chat", "world", "--dir", str(tmp_path)]) == cli.INVALID
    assert "has no trained checkpoint yet (wait for sft" in capsys.readouterr().err
    assert cli.main(["chat", "mars", "--dir", str(tmp_path)]) == cli.INVALID


KEPT = settings.StoreSpec(uri="file:///store")


def test_the_policy_of_a_chat_has_the_options_of_the_manifest():
    run = make_run(endpoints={"policy": {"options": {"threads": 2}}}, model={"base": "tiny", "minPixels": 784})
    line = chat_policy.line(run, KEPT, "grpo/60")
    assert line[line.index("--options") + 1] == '{"threads": 2}' and line[line.index("--min-pixels") + 1] == "784"
    assert line[line.index("--version") + 1] == "grpo/60"
    assert "--version" in chat_policy.line(make_run(), KEPT, "sft/7"), "a manifest need not name a policy's server"


def test_a_policy_server_that_exists_is_asked_and_none_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat_policy.one_server, "started", lambda *_, **__: pytest.fail("started a server"))
    with chat_server.serving(lambda request: chat_server.completion("")) as server:
        server.models = ["base", "grpo-60"]
        run = make_run(endpoints={"policy": {"url": server.url}})
        with chat_policy.started(run, KEPT, "grpo/60") as served:
            assert served == chat_policy.Served(server.url, "grpo-60")
        with pytest.raises(UserError, match=r"has no grpo-20, only base, grpo-60 \(load grpo/20 there"):
            chat_policy.started(run, KEPT, "grpo/20").__enter__()
        named = make_run(endpoints={"policy": {"url": server.url, "model": "mine"}})
        with chat_policy.started(named, KEPT, "grpo/60") as served:
            assert served.model == "mine"
