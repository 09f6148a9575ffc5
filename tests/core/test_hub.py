"""Base models of the Hugging Face Hub: pinned to a commit, fetched whole, and every failure put into its class.

Each request is made by a process of its own, because huggingface_hub reads its environment when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support import base_folders, hub_server

from gog import hub
from gog.errors import UserError

PROGRAM = """
import json, sys
from gog import base_model, hub
from gog.errors import ServiceDown, UserError
try:
    address = hub.resolve(hub.parse(sys.argv[1]))
    if sys.argv[2:] == ["list"]:
        found = hub.listing(address)
    else:
        folder = hub.fetch(address)
        base_model.check(folder)
        found = [str(folder), base_model.fingerprint(folder)]
    print(json.dumps([str(address), found]))
except (UserError, ServiceDown) as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def source(tmp_path):
    """The repository's files, among them a pickle, code and a subfolder."""
    folder = base_folders.write(tmp_path / "source", shards=2)
    for name in ("pytorch_model.bin", "modeling.py", "README.md"):
        (folder / name).write_text("x")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def served(source):
    with hub_server.serving(source) as made:
        yield made


@pytest.fixture
def ask(served, tmp_path):
    """ask(address, *arguments, **environment): the two values that a process prints."""

    def run(address="hf://org/model", *arguments, **environment):
        env = os.environ | {"HF_TOKEN": ""} | served.environment(tmp_path / "home") | environment
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, address, *arguments], env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_branch_is_pinned_to_its_commit_and_only_a_models_files_are_fetched(ask, source, served):
    name, (folder, _) = ask()
    assert name == f"hf://org/model@{served.commit}" and folder.endswith(f"snapshots/{served.commit}")
    expected = {path.name for path in source.iterdir() if path.suffix in (".json", ".safetensors")}
    assert set(os.listdir(folder)) == expected
    assert ask("hf://org/model", "list") == [name, sorted(expected)]


def test_a_second_request_fetches_nothing_and_works_without_a_network(ask, served):
    first = ask()
    served.requests.clear()
    assert ask(first[0]) == first and served.requests == []
    assert ask("hf://org/model", HF_HUB_OFFLINE="1") == first
    served.status = 503
    assert ask() == first, "the cache knows the branch's commit"


def test_a_download_that_was_cut_off_continues_with_the_files_that_are_missing(ask, served, source):
    base_folders.write(source, base_folders.config(hidden_size=64, intermediate_size=4096))
    served.cut = 100_000
    kind, sentence = ask()
    assert kind == "ServiceDown" and sentence.startswith("Hugging Face Hub: hf://org/model@")
    served.cut = 0
    served.requests.clear()
    assert ask()[0].startswith("hf://org/model@")
    fetched = {each.split("/")[-1].strip() for each in served.requests if each.startswith("GET /org/model/resolve/")}
    assert "model.safetensors" in fetched and not fetched & {"config.json", "tokenizer.json"}


@pytest.mark.parametrize(
    ("address", "fault", "kind", "sentence"),
    [
        ("hf://org/other", {}, "UserError", "hf://org/other: there is no such model, or it is private (correct the name"),
        ("hf://org/model@v2", {}, "UserError", "hf://org/model@v2: there is no revision 'v2'"),
        ("hf://org/model", {"token": "secret"}, "UserError", "access to this model must be granted by its owner"),
        ("hf://org/model", {"status": 403}, "UserError", "the Hub refuses the token (403)"),
        ("hf://org/model", {"status": 503}, "ServiceDown", "Hugging Face Hub: hf://org/model"),
        ("hf://org/model", {"status": 429}, "ServiceDown", "Hugging Face Hub: hf://org/model"),
    ],
)  # fmt: skip
def test_what_a_user_corrects_differs_from_what_passes(ask, served, address, fault, kind, sentence):
    for name, value in fault.items():
        setattr(served, name, value)
    found = ask(address)
    assert found[0] == kind and sentence in found[1]


def test_a_token_of_the_environment_is_sent(ask, served):
    served.token = "secret"
    assert ask(HF_TOKEN="secret")[0] == f"hf://org/model@{served.commit}"


def test_a_hub_that_is_not_reached_is_waited_for_unless_offline_was_asked_for(ask):
    kind, sentence = ask(HF_ENDPOINT="http://127.0.0.1:9")
    assert kind == "ServiceDown" and "Hugging Face Hub: hf://org/model" in sentence
    kind, sentence = ask(HF_HUB_OFFLINE="1")
    assert kind == "UserError" and "is not whole in the cache, and HF_HUB_OFFLINE is set" in sentence


def test_a_cache_that_cannot_be_written_is_named(ask, tmp_path):
    (tmp_path / "file").write_text("x")
    kind, sentence = ask(HF_HOME=str(tmp_path / "file"))
    assert kind == "Unwritable" and str(tmp_path / "file") in sentence and "HF_HOME" in sentence


@pytest.mark.parametrize(
    "base", ["hf://model", "hf://org/", "hf://org/name@", "hf://org/na me", "hf://../x", "hf://a/b/c"]
)
def test_another_form_of_address_is_refused(base):
    with pytest.raises(UserError, match=r"is not an address of a model \(write hf://org/name"):
        hub.parse(base)


def test_addresses_are_read_and_written():
    for base in ("hf://Qwen/Qwen2.5-VL-7B-Instruct", "hf://org/m@main", "hf://org/m@refs/pr/1", f"hf://o/m@{'0' * 40}"):
        assert str(hub.parse(base)) == base
    assert hub.parse("/models/m") is hub.parse("s3://b/m") is None
    assert hub.parse(f"hf://o/m@{'0' * 40}").pinned and not hub.parse("hf://o/m@main").pinned
