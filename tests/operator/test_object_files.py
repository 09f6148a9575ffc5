"""Objects in files: written atomically, and never over a newer version."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from support.operator_builders import make_run

from gog.errors import UserError
from gog_operator.api.objects import GoGRun, RunStatus
from gog_operator.cluster import files
from gog_operator.cluster.files import ObjectFiles
from gog_operator.cluster.interface import AlreadyExists, Conflict


@pytest.fixture
def folder(tmp_path):
    ObjectFiles(tmp_path).create(make_run())
    return tmp_path


def get(folder):
    run = ObjectFiles(folder).get(GoGRun, "world")
    assert run is not None
    return run


def test_an_object_gets_an_identity_when_it_is_created(folder):
    run = get(folder)
    assert run.metadata.uid and run.metadata.resource_version == "1" and run.metadata.creation_timestamp
    with pytest.raises(AlreadyExists):
        ObjectFiles(folder).create(make_run())


def test_a_stale_write_is_refused(folder):
    store, old = ObjectFiles(folder), get(folder)
    store.patch_status(old, RunStatus(stage="world-sft"))
    with pytest.raises(Conflict):
        store.patch_status(old, RunStatus(stage="world-grpo"))
    assert get(folder).status.stage == "world-sft"


def test_a_write_to_an_object_that_is_gone_is_refused(folder):
    run = get(folder)
    ObjectFiles(folder).delete("GoGRun", "world")
    with pytest.raises(Conflict):
        ObjectFiles(folder).patch_status(run, RunStatus())
    assert ObjectFiles(folder).get(GoGRun, "world") is None
    ObjectFiles(folder).patch("GoGRun", "world", spec={}, annotations={"a": "b"})


def test_another_process_sees_a_write_at_once(folder):
    one, other = ObjectFiles(folder), ObjectFiles(folder)
    assert other.get(GoGRun, "world").metadata.annotations == {}
    one.patch("GoGRun", "world", spec={}, annotations={"gog.dev/cancel": "yes"})
    assert other.get(GoGRun, "world").cancelled


def test_only_a_changed_spec_is_a_new_generation(folder):
    store = ObjectFiles(folder)
    store.patch("GoGRun", "world", spec={}, annotations={"a": "b"})
    assert get(folder).metadata.generation == 1
    store.patch("GoGRun", "world", spec={"suspend": True}, annotations={})
    assert get(folder).metadata.generation == 2 and get(folder).spec.suspend


def test_a_kill_while_writing_leaves_the_old_object(folder, monkeypatch):
    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ObjectFiles(folder).patch_status(get(folder), RunStatus(stage="world-sft"))
    monkeypatch.undo()
    assert get(folder).status.stage == ""
    ObjectFiles(folder).patch_status(get(folder), RunStatus(stage="world-sft"))


def test_of_many_writers_each_wins_once_and_none_is_lost(folder):
    def add(name):
        ObjectFiles(folder).patch("GoGRun", "world", spec={}, annotations={name: "x"})

    threads = [threading.Thread(target=add, args=(f"writer-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(get(folder).metadata.annotations) == 8


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full (free space, then `gog resume`; nothing committed is lost)"),
        (errno.EACCES, "cannot write: Permission denied (choose another folder with --dir)"),
    ],
)
def test_a_disk_that_refuses_is_one_line_of_error(tmp_path, monkeypatch, number, sentence):
    def refuse(self, *args, **kwargs):
        raise OSError(number, "No space left on device" if number == errno.ENOSPC else "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(UserError) as caught:
        files.write_atomically(tmp_path / "a.yaml", "text")
    assert str(caught.value) == f"{tmp_path}: {sentence}"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_damaged_by_hand_is_named(folder):
    path = folder / "gogrun.world.yaml"
    path.write_text("kind: GoGRun\nspec: 3\n")
    with pytest.raises(UserError, match="is not an object of gog"):
        get(folder)
