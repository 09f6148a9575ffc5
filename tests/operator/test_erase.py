"""`gog move erase`: what a deleted run wrote is erased, resumably, and nothing that anyone else wrote."""

from __future__ import annotations

import json
import threading
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import builders, s3
from support.ports import free
from support.store_job_builders import WORLD, move, result

from gog import dataset_zip
from gog import store as stores
from gog.errors import UserError
from gog.store import writers
from gog.store.files import FileBackend
from gog_operator.store_jobs import config, erase

SINCE = datetime(2026, 3, 14, tzinfo=UTC)
OWN = writers.Writer(uid="11-22", kind="GoGRun", namespace="team-a", name="world")
OTHER = writers.Writer(uid="33-44", kind="GoGRun", namespace="team-b", name="world")
PLAIN = (
    "journal/grpo/trained-000000003/0a1b2c/0001-0a1b2c3d-00000-00000000",
    f"spend/grpo/{'ab' * 16}.json",
    "profiles/grpo/step-3-rank-0-update.json.gz",
    "report/index.html",
    "report/summary.json",
)


def environment(writer: writers.Writer) -> dict[str, str]:
    return {writers.VARIABLE: writer.model_dump_json()}


def fill(store, writer=OWN, run="world"):
    """Everything that a run leaves in a store."""
    writers.register(store, environment(writer))
    for stage, step in (("sft", 9), ("grpo", 3), ("grpo", 4)):
        meta = {"settings": {"run": run}, "complete": True}
        builders.publish(store, step, {"adapter": f"{stage} {step}".encode()}, stage=stage, meta=meta)
    builders.publish(store, 1, {"dataset.zip": b"zip"}, stage=dataset_zip.KEY, meta={"complete": True, "world": WORLD})
    for key in PLAIN:
        store.put_object(key, b"x")
    return store


def request(of, **more):
    place = {} if "store" in more else {"store": {"uri": Path(of.where).as_uri()}}
    return config.Erase.model_validate({**place, "run": "world", "uid": OWN.uid, "since": SINCE, **more})


def keys(store):
    folders = (*erase.FORMS, writers.FOLDER)
    return sorted(entry.key for each in folders for entry in store.backend.entries(f"{each}/"))


def test_everything_that_a_run_wrote_is_erased_and_counted(store, tmp_path, capsys):
    fill(store)
    before = len(keys(store))
    asked = json.loads(request(store).model_dump_json(by_alias=True, exclude_unset=True))
    assert move(tmp_path, "erase", **asked) == 0
    assert result(capsys) == {
        "outcome": "erased",
        "message": f"{before - 1} objects of {store.where}",
        "erased": before - 1,
    }
    assert keys(store) == []


def test_what_gog_did_not_write_is_kept_and_named(store):
    fill(store)
    foreign = ("mine/notes.txt", "report/photo.png", "journal/readme", "blobs/note", "sub/manifests/sft/000000001.json")
    for key in foreign:
        store.backend.put(key, b"a user's", "")
    done = erase.erase(request(store), store, {})
    assert done["outcome"] == "erased" and "mine/" in done["message"] and "report/photo.png" in done["message"]
    assert all(store.backend.read(key) is not None for key in foreign)
    assert keys(store) == ["blobs/note", "journal/readme", "report/photo.png"]


@pytest.mark.parametrize("other", [OTHER, writers.Writer(uid="local-world", kind="GoGRun", name="world")], ids=str)
def test_a_store_that_another_run_writes_to_is_left_whole(store, other):
    fill(store)
    writers.register(store, environment(other))
    before = keys(store)
    done = erase.erase(request(store), store, {})
    assert done["outcome"] == "shared" and f"is also written by {other}" in done["message"] and done["erased"] == 0
    assert keys(store) == before


@pytest.mark.parametrize(
    ("meta", "stage", "what"),
    [
        ({"settings": {"run": "other"}}, "curate", "which run 'other' published"),
        ({}, "index", "which a user published"),
        ({"complete": True}, dataset_zip.KEY, "which a user published"),
    ],
)
def test_a_checkpoint_of_another_maker_keeps_the_whole_store(store, meta, stage, what):
    fill(store)
    builders.publish(store, 7, {"file": b"theirs"}, stage=stage, meta=meta)
    before = keys(store)
    done = erase.erase(request(store), store, {})
    assert done["outcome"] == "shared" and f"holds {stage}/7, {what}" in done["message"]
    assert keys(store) == before


def test_checkpoints_of_an_earlier_run_of_the_name_keep_the_whole_store(store):
    fill(store)
    done = erase.erase(request(store, since=datetime(2199, 1, 1, tzinfo=UTC)), store, {})
    assert done["outcome"] == "shared" and "older than this run" in done["message"]
    assert store.latest("grpo").step == 4


def test_a_store_without_the_run_s_entry_is_left_whole(store):
    fill(store, OTHER)
    before = keys(store)
    assert erase.erase(request(store), store, {})["outcome"] == "unmarked"
    assert keys(store) == before


def test_a_manifest_that_cannot_be_read_keeps_the_whole_store(store):
    fill(store)
    store.backend.put("manifests/sft/000000007.json", b"{", "")
    before = keys(store)
    with pytest.raises(UserError, match=r"is not a checkpoint's manifest.*keep the artifacts"):
        erase.erase(request(store), store, {})
    assert keys(store) == before


class Killed(BaseException):
    pass


class Fragile(FileBackend):
    """A backend whose process dies before the delete of a number."""

    left = 0

    def delete(self, key):
        self.left -= 1
        if self.left < 0:
            raise Killed
        super().delete(key)


@pytest.mark.parametrize("deletes", [0, 1, 5, 9, 13, 16])
def test_an_erasure_that_was_killed_anywhere_is_completed_by_the_next(tmp_path, deletes, monkeypatch):
    monkeypatch.setattr(erase.parts, "CONNECTIONS", 1)
    fragile = Fragile(tmp_path / "store")
    fragile.left = 99
    store = fill(stores.Store(fragile))
    total, fragile.left = len(keys(store)), deletes
    assert total > 15
    with pytest.raises(Killed):
        erase.erase(request(store), store, {})
    fragile.left = 99
    again = erase.erase(request(store), store, {})
    assert again["outcome"] == "erased" and keys(store) == []


def test_a_run_that_begins_to_write_during_an_erasure_ends_it(store, monkeypatch):
    fill(store)
    delete = store.backend.delete

    def intrude(key):
        delete(key)
        writers.register(store, environment(OTHER))

    monkeypatch.setattr(store.backend, "delete", intrude)
    done = erase.erase(request(store), store, {})
    assert done["outcome"] == "shared" and done["erased"] > 0 and f"by {OTHER}" in done["message"]
    assert [key for key in keys(store) if key.startswith("blobs/")], "blobs that the other run may refer to"


def test_an_erasure_reports_how_far_it_is(store, monkeypatch):
    fill(store)
    (port,) = free(1)
    seen, asked = [], threading.Event()
    delete = store.backend.delete

    def look(key):
        delete(key)
        if key.startswith("blobs/") and not asked.is_set():
            asked.set()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=10) as answer:
                seen.append(json.load(answer))

    monkeypatch.setattr(store.backend, "delete", look)
    erase.erase(request(store), store, {"GOG_METRICS_PORT": str(port), "GOG_METRICS_HOST": "127.0.0.1"})
    assert seen[0]["step"] > 5 and seen[0]["total"] == 0


def test_a_bucket_is_erased_below_the_run_s_prefix_only(gateway):
    own, beside, below = (stores.open_store(gateway.spec(f"erase/{name}")) for name in ("run", "run-2", "run/sub"))
    for store in (own, beside, below):
        fill(store)
    spec = gateway.spec("erase/run").model_dump(exclude_none=True)
    done = erase.erase(request(own, store=spec), own, {})
    assert done["outcome"] == "erased" and keys(own) == [] and "sub/" in done["message"]
    for store in (beside, below):
        assert store.latest("grpo").step == 4 and len(keys(store)) == 17
    left = [path for path in (gateway.folder / s3.BUCKET / "erase" / "run").rglob("*") if path.is_file()]
    assert left and all("sub" in path.parts for path in left)
