"""Folders that several processes of a machine ask for."""

from __future__ import annotations

import threading

import pytest

from gog import folders


def test_one_of_several_callers_makes_the_folder_and_the_others_wait(tmp_path):
    made, seen, together = [], [], threading.Barrier(4)

    def make(fresh):
        made.append(fresh)
        fresh.mkdir()
        (fresh / "whole").write_text("yes")

    def request():
        together.wait()
        seen.append((folders.once(tmp_path / "shared" / "data", make) / "whole").read_text())

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and seen == ["yes"] * 4
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["data"]  # no lock is left


def test_a_folder_that_could_not_be_made_is_made_by_the_next_caller(tmp_path):
    def fail(fresh):
        fresh.mkdir()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        folders.once(tmp_path / "data", fail)
    assert folders.once(tmp_path / "data", lambda fresh: fresh.mkdir()).is_dir()
