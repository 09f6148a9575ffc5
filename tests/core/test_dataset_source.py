"""Datasets of the Hugging Face Hub: what is fetched of them, verified, at one commit; and every failure in its class."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import parse_hf_uri
from support import hub_server
from support.foreign_files import write_images, write_lines

from gog import dataset, dataset_source, hub
from gog.dataset.foreign import tables
from gog.errors import ServiceDown, UserError
from gog.store import Manifest

ADDRESS = "hf://datasets/org/pool"


def write_pool(folder, answer="Ada"):
    """A dataset in gog's own form, with an image that Git LFS keeps."""
    write_images(folder, "images/a.png")
    write_lines(folder / "train.jsonl", {"id": "q1", "image": "images/a.png", "question": "who?", "answers": [answer]})
    return folder


@pytest.fixture
def source(tmp_path):
    """The repository's files: two datasets, and what is never fetched."""
    folder = write_pool(tmp_path / "source")
    write_pool(folder / "more" / "hard", "Grace")
    for name in ("README.md", ".gitattributes", "rows.pkl", "pool.py", "images/a.bin"):
        (folder / name).write_text("x")
    return folder


@pytest.fixture
def served(source, tmp_path, monkeypatch):
    with hub_server.serving(source, "org/pool", "datasets") as made:
        hub_server.redirect(monkeypatch, made, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "")
        yield made


@pytest.fixture
def fetch(served, tmp_path):
    """fetch(uri): the dataset, in a work folder."""
    return lambda uri=ADDRESS, work="work", **more: dataset_source.fetch(
        uri, options=None, target=tmp_path / work / "data", **more
    )


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def sent(served):
    """Files whose content was sent."""
    return [each.split("/", 6)[6].split(" ")[0] for each in served.requests if each.startswith("GET /datasets/")]


def test_a_branch_is_pinned_and_only_what_a_reader_takes_is_fetched(fetch, served):
    found = fetch()
    assert found.name == f"{ADDRESS}@{served.commit}" and found.document() == {"given": ADDRESS, "name": found.name}
    own = {"train.jsonl", "images/a.png"}
    assert names(found.path) == own | {f"more/hard/{each}" for each in own}
    assert [each.answers for each in dataset.read_questions(found.path, "train")] == [("Ada",)]
    dataset.check(found.path, ["train"])


def test_what_was_fetched_is_read_without_a_network_also_from_another_work_folder(fetch, served, monkeypatch):
    pinned = fetch().name
    served.requests.clear()
    assert fetch(pinned).path == fetch(pinned).path and fetch(pinned, "other").name == pinned
    assert served.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(work="third").name == pinned, "the cache knows the branch's commit"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    served.status = 503
    assert fetch(work="fourth").name == pinned


def test_a_folder_of_a_repository_is_a_dataset_of_its_own(fetch, served):
    found = fetch(f"{ADDRESS}@main/more/hard")
    assert found.name == f"{ADDRESS}@{served.commit}/more/hard"
    assert [each.answers for each in dataset.read_questions(found.path, "train")] == [("Grace",)]
    assert sorted(sent(served)) == ["more/hard/images/a.png", "more/hard/train.jsonl"]


@pytest.mark.parametrize(
    ("below", "sentence"),
    [
        ("more/easy", "there is no file of a dataset in more/easy (name a repository or folder with files that gog reads"),
        ("train.jsonl", "is a file, not the folder of a dataset (name its folder, or convert it with gog import)"),
    ],
)  # fmt: skip
def test_a_folder_that_is_none_is_refused(fetch, served, below, sentence):
    with pytest.raises(UserError) as caught:
        fetch(f"{ADDRESS}/{below}")
    assert str(caught.value).startswith(f"{ADDRESS}@{served.commit}/{below}: {sentence}")


@pytest.mark.parametrize(
    "name", ["../../escaped.jsonl", "more/../../escaped.jsonl", "/tmp/escaped.jsonl", "a\\b.jsonl"]
)
def test_a_file_with_a_name_that_leaves_the_folder_is_refused_before_anything_is_fetched(fetch, served, tmp_path, name):
    served.added = [name]
    sentence = rf"names a file outside of its folder: {name!r} (do not use it)"
    for ask in (fetch, lambda: hub.download(hub.resolve(hub.parse_dataset(ADDRESS)), tmp_path / "volume" / "part")):
        with pytest.raises(UserError) as caught:
            ask()
        assert str(caught.value) == f"{ADDRESS}@{served.commit}: {sentence}"
    assert sent(served) == [] and not list(tmp_path.rglob("escaped*"))


def test_a_download_that_was_cut_off_continues_with_the_files_that_are_missing(fetch, served, source):
    (source / "test.jsonl").write_bytes((source / "train.jsonl").read_bytes() * 2_000)
    served.cut = 100_000
    with pytest.raises(ServiceDown, match=f"^Hugging Face Hub: {ADDRESS}@"):
        fetch()
    served.cut = 0
    before = set(sent(served)) - {"test.jsonl"}
    served.requests.clear()
    assert "test.jsonl" in names(fetch().path)
    assert before and not before & set(sent(served))


def test_a_file_that_is_not_what_the_hub_states_is_fetched_again(fetch, served):
    served.rotten = {"train.jsonl"}
    with pytest.raises(ServiceDown, match=r"train\.jsonl is not what the Hub states, and is fetched again"):
        fetch()
    served.rotten = set()
    served.requests.clear()
    assert [each.id for each in dataset.read_questions(fetch().path, "train")] == ["q1"]
    assert "images/a.png" not in sent(served)


@pytest.mark.parametrize(
    ("address", "fault", "kind", "sentence"),
    [
        ("hf://datasets/org/other", {}, UserError, "there is no such dataset, or it is private (correct the name"),
        (f"{ADDRESS}@v2", {}, UserError, "there is no revision 'v2'"),
        (ADDRESS, {"token": "secret"}, UserError, "access to this dataset must be granted by its owner"),
        (ADDRESS, {"token": "secret"}, UserError, "in the Secret of data.secretName"),
        (ADDRESS, {"status": 403}, UserError, "the Hub refuses the token (403)"),
        (ADDRESS, {"status": 503}, ServiceDown, "Hugging Face Hub: hf://datasets/org/pool"),
        (ADDRESS, {"status": 429}, ServiceDown, "Hugging Face Hub: hf://datasets/org/pool"),
    ],
)  # fmt: skip
def test_what_a_user_corrects_differs_from_what_passes(fetch, served, address, fault, kind, sentence):
    for name, value in fault.items():
        setattr(served, name, value)
    with pytest.raises(kind) as caught:
        fetch(address)
    assert sentence in str(caught.value)


def test_a_token_of_the_environment_is_sent(fetch, served, monkeypatch):
    served.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert names(fetch().path)


def test_two_processes_at_once_fetch_every_file_once(served, tmp_path):
    program = (
        "import sys, pathlib; from gog import dataset_source\n"
        "print(dataset_source.fetch(sys.argv[1], options=None, target=pathlib.Path(sys.argv[2])).path)"
    )
    env = os.environ | served.environment(tmp_path / "home")
    line = [sys.executable, "-c", program, ADDRESS, str(tmp_path / "work" / "data")]
    both = [subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (one, other) = (each.communicate(timeout=120)[0] for each in both)
    assert one == other != "" and len(sent(served)) == len(set(sent(served)))


def checkpoint(given, name):
    meta = {dataset_source.RECORD: {"given": given, "name": name}}
    return Manifest(stage="curate", step=1, files={}, parents=(), meta=meta)


def test_a_branch_has_the_commit_of_an_earlier_checkpoint_of_the_same_address():
    pinned = f"{ADDRESS}@{'a' * 40}"
    earlier = [Manifest(stage="sft", step=1, files={}, parents=(), meta={}), checkpoint(ADDRESS, pinned)]
    assert dataset_source.recorded(ADDRESS, earlier) == pinned
    for other in (f"{ADDRESS}@main", f"{ADDRESS}/more", "s3://b/p"):
        assert dataset_source.recorded(other, earlier) == ""


@pytest.mark.parametrize(
    "uri",
    [
        *(ADDRESS, f"{ADDRESS}/more/hard", f"{ADDRESS}@v1.2", f"{ADDRESS}@v1.2/more", f"{ADDRESS}@{'0' * 40}/a_b-c.d"),
        *(f"{ADDRESS}@refs/convert/parquet", f"{ADDRESS}@refs/pr/7/more", f"{ADDRESS}@feature%2Fx/more"),
    ],
)
def test_addresses_mean_what_they_mean_to_huggingface_hub(uri):
    own, theirs = hub.parse_dataset(uri), parse_hf_uri(uri)
    assert str(own) == uri and own.type == theirs.type == "dataset"
    assert (own.repo, own.revision, own.path) == (theirs.id, theirs.revision or "", theirs.path_in_repo)


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "hf://org/pool",
            "hf://datasets/pool",
            "hf://datasets/org/pool/",
            "hf://datasets/org/pool@",
            "hf://spaces/o/p",
        ),
        *(
            "hf://datasets/org/pool/..",
            "hf://datasets/org/pool/.git",
            "hf://datasets/org/pool/*",
            "hf://datasets/o/p//a",
        ),
    ],
)
def test_another_form_of_address_is_refused(uri):
    with pytest.raises(UserError, match=r"is not an address of a dataset \(write hf://datasets/org/name"):
        hub.parse_dataset(uri)


def test_what_is_fetched_has_every_ending_that_readers_of_tables_take():
    assert {f"*{ending}" for ending in tables.SUFFIXES} <= set(hub.DATASET_FILES)
    assert not [each for each in hub.DATASET_FILES if each.endswith((*tables.PICKLED, ".bin", ".py"))]


def test_the_listing_is_of_the_same_files(served):
    address = hub.parse_dataset(f"{ADDRESS}/more")
    assert hub.listing(address) == ["more/hard/images/a.png", "more/hard/train.jsonl"] and sent(served) == []
    assert json.dumps(list(hub.stated(address))) == json.dumps(hub.listing(address))
