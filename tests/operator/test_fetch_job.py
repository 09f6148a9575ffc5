"""`gog move fetch`: sources arrive in a volume whole and verified, once, however often and at once they are asked for.

Each job is a process of its own, because huggingface_hub reads its environment when it is imported.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import base_folders, hub_server, s3
from support.foreign_files import write_images, write_lines

from gog import base_model, dataset, mounts
from gog_operator.cluster import fetches
from gog_operator.store_jobs import model

ADDRESS = "hf://org/model"


@pytest.fixture
def hub(tmp_path):
    with hub_server.serving(base_folders.write(tmp_path / "source", shards=2)) as made:
        yield made


@pytest.fixture
def begin(hub, tmp_path):
    """begin(**settings): a job that has started."""

    def run(address=ADDRESS, **more):
        body = {"store": {"uri": "s3://bucket/run"}, "root": str(tmp_path / "volume"), "base": address, **more}
        config = tmp_path / f"config-{len(list(tmp_path.iterdir()))}.yaml"
        config.write_text(yaml.safe_dump(body))
        line = [sys.executable, "-m", "gog_console.cli", "move", "fetch", "--config", str(config)]
        env = os.environ | {"HF_TOKEN": ""} | hub.environment(tmp_path / "home")
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    return run


def ended(process):
    """Exit code, result or last line of the error."""
    out, errors = process.communicate(timeout=120)
    return process.returncode, json.loads(out)["base"] if process.returncode == 0 else errors.strip().splitlines()[-1]


def fetched(hub):
    """Names of files in the order in which they were sent."""
    sent = (re.fullmatch(r"GET /org/model/resolve/[^/]+/(\S+)(.*)", each) for each in hub.requests)
    return [each[1] for each in sent if each]


def test_a_model_arrives_whole_with_its_commit_and_hashes_and_is_not_fetched_again(hub, begin, tmp_path):
    code, result = ended(begin())
    assert code == 0 and result["resolved"] == f"{ADDRESS}@{hub.commit}"
    folder = tmp_path / "volume" / result["folder"]
    base_model.check(folder)
    record = json.loads((folder / mounts.RECORD).read_text())
    assert record["resolved"] == result["resolved"] and set(record["sha256"]) == {
        each.name for each in folder.iterdir() if each.name != mounts.RECORD
    }
    assert not list(folder.glob(".*")) and result["bytes"] == model.folder_size(folder)
    before = sorted(fetched(hub))
    assert ended(begin())[1] == result and sorted(fetched(hub)) == before


def test_two_jobs_at_once_fetch_every_file_once(hub, begin):
    one, other = begin(), begin()
    assert ended(one) == ended(other)
    assert len(fetched(hub)) == len(set(fetched(hub)))


def test_a_download_that_broke_off_continues_with_what_is_missing(hub, begin):
    hub.cut = 2_000
    code, line = ended(begin())
    assert code == 1 and "Hugging Face Hub" in line
    there = set(fetched(hub))
    hub.cut = 0
    hub.requests.clear()
    assert ended(begin())[0] == 0
    small = {name for name in there if (hub.folder / name).stat().st_size <= 2_000}
    assert small and not small & set(fetched(hub))


def test_a_file_that_is_not_what_the_hub_states_is_fetched_again(hub, begin):
    (name,) = [path.name for path in sorted(hub.folder.glob("*.safetensors"))][:1]
    hub.rotten = {name}
    code, line = ended(begin())
    assert code == 1 and f"{name} is not what the Hub states" in line
    hub.rotten = set()
    hub.requests.clear()
    assert ended(begin())[0] == 0 and fetched(hub) == [name]


def test_a_gated_model_is_not_retried_and_its_error_names_the_secret(hub, begin):
    hub.status, hub.code = 403, "GatedRepo"
    code, line = ended(begin())
    assert code == 2 and "access to this model must be granted" in line and "model.secretName" in line


def test_a_repository_that_is_no_base_model_leaves_nothing_in_the_volume(hub, begin, tmp_path):
    config = json.loads((hub.folder / "config.json").read_text())
    (hub.folder / "config.json").write_text(json.dumps(config | {"model_type": "other"}))
    code, line = ended(begin())
    assert code == 2 and "model type 'other'" in line
    assert [each for each in (tmp_path / "volume").iterdir() if each.is_dir()] == []


def test_a_model_by_hand_gets_a_link_of_the_wanted_name(hub, tmp_path):
    line = [sys.executable, "-m", "gog_console.cli", "move", "model", ADDRESS, str(tmp_path / "v"), "--link", "base"]
    env = os.environ | {"HF_TOKEN": ""} | hub.environment(tmp_path / "home")
    assert subprocess.run(line, env=env, check=False, capture_output=True).returncode == 0
    base_model.check(tmp_path / "v" / "base")


@pytest.fixture
def pools(tmp_path):
    """A hub with a dataset, in a folder of its repository."""
    folder = tmp_path / "pools"
    write_images(folder / "hard", "a.png")
    line = {"id": "q1", "image": "a.png", "question": "who?", "answers": ["Ada"]}
    write_lines(folder / "hard" / "train.jsonl", line)
    write_lines(folder / "train.jsonl", line | {"image": "hard/a.png"})
    (folder / "rows.pkl").write_bytes(b"\x80")
    with hub_server.serving(folder, "org/pool", "datasets") as made:
        yield made


@pytest.fixture
def fetch(pools, tmp_path):
    """fetch(uri): exit code, and the result or the last line of the error, of a job that fetches a dataset."""

    def run(uri):
        body = {"store": {"uri": "s3://bucket/run"}, "root": str(tmp_path / "volume"), "data": uri}
        (tmp_path / "fetch.yaml").write_text(yaml.safe_dump(body))
        line = [sys.executable, "-m", "gog_console.cli", "move", "fetch", "--config", str(tmp_path / "fetch.yaml")]
        env = os.environ | {"HF_TOKEN": ""} | pools.environment(tmp_path / "home")
        done = subprocess.run(line, capture_output=True, text=True, env=env, timeout=120, check=False)
        return done.returncode, json.loads(done.stdout)["data"] if done.returncode == 0 else done.stderr.splitlines()[
            -1
        ]

    return run


def test_a_dataset_of_the_hub_arrives_whole_and_its_readers_mount_the_folder_that_the_address_names(
    pools, fetch, tmp_path
):
    uri = "hf://datasets/org/pool/hard"
    code, result = fetch(uri)
    assert code == 0 and result["resolved"] == f"hf://datasets/org/pool@{pools.commit}/hard"
    folder = tmp_path / "volume" / result["folder"]
    assert fetches.FOLDER.fullmatch(result["folder"]) and folder.name == "hard"
    assert {each.name for each in folder.iterdir()} == {"train.jsonl", "a.png", mounts.RECORD}
    dataset.check(folder, dataset.splits(folder))
    assert mounts.recorded(uri, folder) == result["resolved"]
    sent = len(pools.requests)
    assert fetch(uri) == (0, result) and not [each for each in pools.requests[sent:] if "/resolve/" in each]
    code, whole = fetch("hf://datasets/org/pool")
    assert code == 0 and not list((tmp_path / "volume" / whole["folder"]).rglob("*.pkl"))


def test_a_dataset_of_the_hub_that_is_gated_absent_or_down_ends_as_a_model_does(pools, fetch):
    assert "there is no file of a dataset in easy" in fetch("hf://datasets/org/pool/easy")[1]
    code, line = fetch("hf://datasets/org/other")
    assert code == 2 and "there is no such dataset, or it is private" in line
    pools.cut = 50
    code, line = fetch("hf://datasets/org/pool/hard")
    assert code == 1 and "Hugging Face Hub" in line
    pools.cut = 0
    assert fetch("hf://datasets/org/pool/hard")[0] == 0
    pools.status, pools.code = 403, "GatedRepo"
    code, line = fetch("hf://datasets/org/pool")
    assert code == 2 and "access to this dataset must be granted" in line and "data.secretName" in line


def test_a_model_of_a_bucket_is_fetched_again_only_when_it_changed(gateway, tmp_path):
    spec = gateway.spec(tmp_path.name)
    place = gateway.folder / s3.BUCKET / tmp_path.name / "base"
    shutil.copytree(base_folders.write(tmp_path / "source"), place)
    first = model.model(f"{spec.uri}/base", tmp_path / "volume", spec)
    assert model.model(f"{spec.uri}/base", tmp_path / "volume", spec) == first
    base_model.check(first.folder)
    Path(place / "extra.txt").write_text("a note")
    assert model.model(f"{spec.uri}/base", tmp_path / "volume", spec).folder != first.folder
