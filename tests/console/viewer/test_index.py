"""Claims about the index: what is found, in which order, and what becomes of archives that are torn, new or gone."""

from __future__ import annotations

import sqlite3
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import support.view_builders as viewers
from support import builders, report_builders

from gog import store, trajectory_zip
from gog.errors import UserError
from gog.trajectory import Failure, Reward
from gog_console.viewer import index, lines, queries, sources


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_builders.make_run(tmp_path_factory.mktemp("runs"), steps=10, questions=20, arms=("no-gaze",))


@pytest.fixture(scope="module")
def viewer(run: Path, tmp_path_factory: pytest.TempPathFactory):
    with viewers.viewing(sources.of_run(run), tmp_path_factory.mktemp("cache")) as serving:
        yield serving


def recorded(run: Path) -> int:
    kept = store.Store(run / "store")
    found = [kept.manifest(key, step) for key in kept.stages() for step in kept.steps(key)]
    return sum(
        len(trajectory_zip.Archive(kept.open(m, sources.NAME)).trajectories()) for m in found if sources.NAME in m.files
    )


def test_every_trajectory_of_every_checkpoint_is_in_the_list(run, viewer):
    assert viewer.json("/api/list")["total"] == viewer.json("/api/run")["total"] == recorded(run)


def test_pages_neither_overlap_nor_leave_gaps_in_any_order(viewer):
    total = viewer.json("/api/list")["total"]
    for sort in queries.SORTS:
        for down in ("", "1"):
            pages = [viewer.ids(f"sort={sort}&down={down}&limit=37&offset={start}") for start in range(0, total, 37)]
            found = [id for page in pages for id in page]
            assert len(found) == total == len(set(found)), sort


def test_the_position_of_a_trajectory_is_its_index_in_the_list(viewer):
    for query in ("", "sort=reward&down=1", "stage=grpo&sort=seconds", "text=red"):
        found = viewer.ids(f"{query}&limit=100&offset=0")
        for place in (0, 7, len(found) - 1):
            assert viewer.json(f"/api/place?{query}&id={found[place]}") == {"index": place}
    assert viewer.json("/api/place?stage=curate&id=" + viewer.ids("stage=grpo")[0]) == {"index": None}


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("stage=grpo", lambda row: row["key"] == "grpo"),
        ("stage=grpo&step=4", lambda row: (row["key"], row["step"]) == ("grpo", 4)),
        ("policy=sft", lambda row: row["policy"] == "sft"),
        ("level=2", lambda row: row["level"] == "2"),
        ("outcome=wrong", lambda row: row["outcome"] == "wrong"),
        ("outcome=excluded", lambda row: row["outcome"] == "excluded"),
        ("trouble=failure", lambda row: row["failures"] > 0),
        ("trouble=error", lambda row: row["errors"] > 0),
        ("behaviour=none", lambda row: "text" not in row["way"] and "gaze" not in row["way"]),
        ("least=0.5&most=1", lambda row: 0.5 <= row["reward"] <= 1),
        ("text=red+ring", lambda row: "red" in row["question"]),
    ],
)
def test_a_filter_keeps_exactly_what_matches(viewer, query, holds):
    everything = [row for start in range(0, 2000, 200) for row in viewer.json(f"/api/list?offset={start}")["rows"]]
    found = [row for start in range(0, 2000, 200) for row in viewer.json(f"/api/list?{query}&offset={start}")["rows"]]
    assert 0 < len(found) < len(everything)
    assert all(holds(row) for row in found)
    if "behaviour" not in query and "text" not in query:
        assert len(found) == sum(holds(row) for row in everything)


def test_counts_by_outcome_ignore_the_outcome_filter(viewer):
    free, chosen = viewer.json("/api/list?stage=grpo"), viewer.json("/api/list?stage=grpo&outcome=wrong")
    assert chosen["counts"] == free["counts"] and chosen["total"] == free["counts"]["wrong"]


def test_a_group_is_the_samples_of_one_question_of_one_step(viewer):
    one = viewer.ids("stage=grpo&step=4")[0]
    group = viewer.json(f"/api/trajectory?id={one}")["group"]
    assert [row["sample"] for row in group] == [0, 1, 2, 3]
    assert len({(row["questionId"], row["step"]) for row in group}) == 1 and group[0]["advantage"] is not None


def test_a_question_is_compared_under_every_policy_of_its_evaluation(viewer):
    one = viewer.ids("stage=evaluate&policy=grpo")[0]
    found = viewer.json(f"/api/trajectory?id={one}")["others"]
    assert [row["policy"] for row in found] == ["direct", "whole-image", "sft", "grpo"]


def test_an_unknown_filter_is_refused_in_one_sentence(viewer):
    for query in ("colour=red", "least=many", "trouble=all", "sort=id;DROP+TABLE+rows", "offset=-1"):
        reply = viewer.request(f"/api/list?{query}")
        assert reply.status == 400 and b"error" in reply.body, query


@pytest.mark.parametrize("text", ['"', "' OR 1=1 --", "a AND", "(", "*", "NEAR(", "\x00", "-", "é", "%"])
def test_no_search_text_is_read_as_a_query_language(viewer, text):
    from urllib.parse import quote

    assert viewer.request(f"/api/list?text={quote(text)}").status == 200


def test_words_match_from_their_beginning(tmp_path):
    kept = store.Store(tmp_path / "store")
    viewers.publish(
        kept, [viewers.illustrated(1, question="where is the lighthouse?"), viewers.illustrated(2)], tmp_path
    )
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        assert len(viewer.ids("text=lightho")) == 1 and viewer.ids("text=ghthouse") == []


# ---- torn, new, gone


def test_a_line_of_an_unknown_version_is_shown_with_its_problem(tmp_path):
    good = viewers.illustrated(1).model_dump_json()
    path = tmp_path / "old.jsonl"
    path.write_text(good + "\n" + good.replace('"version":1', '"version":7', 1) + "\n" + good[:200])
    with viewers.viewing(sources.of_file(path), tmp_path) as viewer:
        output = viewer.json("/api/list")
        assert output["counts"] == {"unjudged": 1, "unreadable": 2}
        newer, torn = (viewer.json(f"/api/trajectory?id={id}")["trajectory"] for id in viewer.ids("outcome=unreadable"))
        assert "version" in newer["problem"] and '"version":7' in newer["raw"]
        assert "half-written" in torn["problem"] and torn["raw"] == good[:200]


def test_an_incomplete_archive_is_reported_and_hides_nothing_else(tmp_path):
    kept = store.Store(tmp_path / "store")
    viewers.publish(kept, [viewers.illustrated(1)], tmp_path, step=1)
    viewers.publish(kept, [viewers.illustrated(2)], tmp_path, step=2)
    blob = tmp_path / "store" / kept.manifest("curate", 2).files[sources.NAME].key
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:900])
    (tmp_path / "store/manifests/curate/000000003.json").write_text("{")
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        run = viewer.json("/api/run")
        assert run["total"] == 1 and not run["busy"]
        assert {problem["where"] for problem in run["problems"]} == {"curate/2", "curate/3"}


def test_a_truncated_zip_is_reported(tmp_path):
    path = tmp_path / "cut.zip"
    trajectory_zip.write(path, [viewers.illustrated(1)], viewers.MAKER.images)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="half-written"):
        lines.Archive(path)


def test_a_missing_image_does_not_hide_its_trajectory(tmp_path):
    path = tmp_path / "bare.zip"
    trajectory_zip.write(path, [viewers.illustrated(1)], {})
    with viewers.viewing(sources.of_file(path), tmp_path) as viewer:
        found = viewer.json("/api/trajectory?id=" + viewer.ids()[0])["trajectory"]
        assert found["images"] == {} and len(found["turns"]) == 3
        assert viewer.request(f"/image/1/{found['image']}").status == 404


def test_new_checkpoints_appear_and_removed_ones_disappear(tmp_path):
    kept = store.Store(tmp_path / "store")
    viewers.publish(kept, [viewers.illustrated(1)], tmp_path, step=1)
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        viewers.publish(kept, [viewers.illustrated(2), viewers.illustrated(4)], tmp_path, step=2)
        viewer.indexer.refresh()
        assert viewer.json("/api/list")["total"] == 3
        (tmp_path / "store/manifests/curate/000000001.json").unlink()
        viewer.indexer.refresh()
        assert viewer.json("/api/list")["total"] == 2


def test_a_stopped_index_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "BATCH", 10)
    path = tmp_path / "many.jsonl"
    path.write_text("".join(viewers.illustrated(1, sample=n).model_dump_json() + "\n" for n in range(35)))
    place, read = sources.of_file(path), []
    stop = threading.Event()

    class Stopping(index.Indexer):
        def _report(self, *given, **more):
            super()._report(*given, **more)
            if more.get("share", 0) > 0.5:
                stop.set()

    Stopping(place, tmp_path / "i").refresh(stop)
    parsed = lines.Archive._parsed
    monkeypatch.setattr(
        lines.Archive, "_parsed", lambda self, line, offset: read.append(offset) or parsed(self, line, offset)
    )
    index.Indexer(place, tmp_path / "i").refresh()
    connection = index.connect(tmp_path / "i")
    assert connection.execute("SELECT count(*), count(DISTINCT id) FROM rows").fetchone()[:] == (35, 35)
    assert len(read) == 15


def test_two_viewers_of_one_index_do_not_write_a_line_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "BATCH", 5)
    path = tmp_path / "many.jsonl"
    path.write_text("".join(viewers.illustrated(1, sample=n).model_dump_json() + "\n" for n in range(100)))
    indexers = [index.Indexer(sources.of_file(path), tmp_path / "i") for _ in range(2)]
    threads = [threading.Thread(target=each.refresh) for each in indexers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.connect(tmp_path / "i").execute("SELECT count(*) FROM rows").fetchone()[0] == 100
    assert not any(each.progress.busy or each.progress.problems for each in indexers)


def test_many_viewers_may_create_one_index_at_once(tmp_path):
    for attempt in range(20):
        ready = threading.Barrier(8)

        def begin(path=tmp_path / str(attempt), ready=ready):
            ready.wait()
            index.connect(path).close()

        with ThreadPoolExecutor(8) as pool:
            for begun in [pool.submit(begin) for _ in range(8)]:
                begun.result()


@pytest.mark.parametrize("damage", ["another version", "garbage"])
def test_a_damaged_index_is_rebuilt(tmp_path, damage):
    path = tmp_path / "i"
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 100)
    else:
        with sqlite3.connect(path) as old:
            old.execute("PRAGMA user_version = 99")
    index.connect(path).execute("SELECT count(*) FROM rows")


def test_records_with_equal_names_are_all_kept(tmp_path):
    kept = store.Store(tmp_path / "store")
    viewers.publish(kept, [viewers.illustrated(1)] * 3, tmp_path)
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        assert len(set(viewer.ids())) == 3


def test_a_line_is_read_by_its_offset(tmp_path):
    path = tmp_path / "a.zip"
    trajectory_zip.write(path, [viewers.illustrated(n) for n in range(1, 9)], viewers.MAKER.images)
    opened = lines.Archive(path)
    for line in list(opened.lines()):
        assert opened.line(line.offset, line.length) == line
    assert zipfile.ZipFile(path).read(trajectory_zip.LINES)[line.offset :] == opened.raw(line.offset, line.length)


def test_an_archive_that_could_not_be_fetched_is_retried(tmp_path):
    path, tries = tmp_path / "t.jsonl", []
    path.write_text(viewers.illustrated(1).model_dump_json() + "\n")

    def fetched() -> Path:
        tries.append(1)
        if len(tries) == 1:
            raise store.Unavailable("no answer")
        return path

    listing = sources.Listing((sources.Found("curate", 1, "x", fetched),))
    indexer = index.Indexer(sources.Source("x", "x", lambda: listing), tmp_path / "i")
    indexer.refresh()
    assert indexer.progress.problems == (("curate/1", "no answer"),) and not indexer.progress.busy
    indexer.refresh()
    assert indexer.progress.problems == ()


def test_an_index_that_cannot_be_written_is_reported_and_remains_readable(tmp_path, monkeypatch):
    place = sources.of_store(store.Store(tmp_path / "store"), "x")
    indexer, stop = index.Indexer(place, tmp_path / "i"), threading.Event()

    def full(path: Path) -> sqlite3.Connection:
        stop.set()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(index, "connect", full)
    indexer.follow(stop, 0.0)
    assert "disk is full" in indexer.progress.problems[-1][1] and not indexer.progress.busy


def test_the_number_of_open_archives_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "OPEN", 2)
    kept = store.Store(tmp_path / "store")
    for step in range(1, 6):
        viewers.publish(kept, [viewers.illustrated(step)], tmp_path, step=step)
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        assert all(viewer.json(f"/api/trajectory?id={id}")["trajectory"]["turns"] for id in viewer.ids())
        assert len(viewer.indexer._archives) == 2


# ---- places


def test_a_run_is_found_by_name_by_folder_and_by_its_store(run):
    for target in ("world", str(run), str(run / "store"), (run / "store").as_uri()):
        assert len(sources.resolve(target, run.parent).list().archives) > 5
    with pytest.raises(UserError, match=r"world"):
        sources.resolve("absent", run.parent)


def test_viewing_a_store_writes_nothing_to_it(tmp_path):
    kept = sources.opened(sources.validated({"uri": (tmp_path / "store").as_uri()}, ""))
    assert sources.of_store(kept, "x").list().archives == () and not (tmp_path / "store").exists()


def test_a_run_in_progress_shows_its_progress(tmp_path):
    folder = report_builders.make_run(tmp_path, stages=("curate", "sft", "stratify", "grpo"), running="grpo", steps=10)
    listing = sources.of_run(folder).list()
    assert any(line.startswith("grpo ") and " of " in line for line in listing.progress)


def test_excluded_and_failed_are_distinguished(tmp_path):
    kept = store.Store(tmp_path / "store")
    failure = (Failure(tool="imageSearch", kind="timeout"),)
    made = [
        viewers.illustrated(1, failures=failure, excluded="tool failure"),
        viewers.illustrated(2, reward=Reward(accuracy=1.0, format=1.0, total=1.0), failures=failure),
    ]
    viewers.publish(kept, made, tmp_path)
    with viewers.viewing(sources.of_store(kept, "x"), tmp_path) as viewer:
        assert len(viewer.ids("trouble=failure")) == 2 and len(viewer.ids("outcome=excluded")) == 1


def test_a_bucket_is_read_like_a_folder(tmp_path, gateway):
    kept = store.open_store(gateway.spec("view"))
    viewers.publish(kept, [viewers.illustrated(1), builders.make_trajectory()], tmp_path)
    place = sources.of_store(sources.opened(gateway.spec("view")), "bucket")
    with viewers.viewing(place, tmp_path) as viewer:
        found = [viewer.json(f"/api/trajectory?id={id}")["trajectory"] for id in viewer.ids()]
        illustrated = next(each for each in found if each["questionId"] == "q-1")
        assert viewer.request(illustrated["images"][illustrated["image"]]["src"]).body.startswith(b"\x89PNG")
        assert not place.near
