"""`gog move`: what a store job does in a store, what its message is, and that it may die at any call."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from support import builders
from support.store_job_builders import WORLD, held, move, result, train, uri_of

from gog import dataset as datasets
from gog import dataset_zip, spec
from gog import store as stores
from gog.errors import UserError
from gog.store.files import FileBackend
from gog.tool_check.report import MOST_SUMMARY
from gog_console import cli
from gog_operator.store_jobs import check, config, dataset, message

NOW = datetime(2026, 3, 14, tzinfo=UTC)
LARGE = {"store": {"uri": "file:///s"}, "keys": ["grpo"]}


# --- check


def test_the_newest_checkpoint_of_each_key_is_reported_and_an_absent_one_is_not(tmp_path, store, capsys):
    train(store, complete=False)
    assert move(tmp_path, "check", store=uri_of(store), keys=["sft", "grpo", "evaluate"]) == 0
    assert result(capsys) == {
        "checkpoints": {"sft": {"step": 9, "complete": True}, "grpo": {"step": 3, "complete": False}},
        "promoted": [],
        "removed": 0,
    }


def test_a_corrupt_checkpoint_is_one_line_of_error_and_not_retried(tmp_path, store, capsys):
    train(store)
    path = store.open(store.latest("grpo"), "state")
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    assert move(tmp_path, "check", store=uri_of(store), keys=["grpo"], verify=False) == 0
    assert move(tmp_path, "check", store=uri_of(store), keys=["grpo"], verify=True) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'state' of checkpoint grpo/3 is corrupt" in line


def test_only_a_complete_checkpoint_is_promoted_and_its_copy_is_verified(tmp_path, store, capsys):
    target = tmp_path / "released"
    promote = {"store": uri_of(store), "keys": ["grpo"], "promoteTo": {"uri": target.as_uri()}}
    train(store, complete=False)
    assert move(tmp_path, "check", **promote) == 0 and result(capsys)["promoted"] == []
    builders.publish(store, 4, {"adapter": b"4"}, stage="grpo", meta={"complete": True})
    for _ in range(2):  # the second time it is found done
        assert move(tmp_path, "check", **promote) == 0 and result(capsys)["promoted"] == ["grpo/4"]
    assert held(stores.open_store(target.as_uri())) == {"grpo/4": {"adapter": b"4"}}


def test_when_promotion_fails_nothing_is_retired(tmp_path, store, capsys):
    train(store)
    builders.publish(stores.open_store((tmp_path / "out").as_uri()), 3, {"adapter": b"other"}, stage="grpo")
    wishes = {"promoteTo": {"uri": (tmp_path / "out").as_uri()}, "retention": {"keepLast": 1, "graceSeconds": 0}}
    assert move(tmp_path, "check", store=uri_of(store), keys=["grpo"], **wishes) == 2
    assert "grpo/3 exists with other content" in capsys.readouterr().err
    assert store.steps("grpo") == [1, 2, 3]


def test_older_checkpoints_are_deleted_and_the_newest_and_its_parents_are_kept(tmp_path, store, capsys):
    train(store)
    asked = {"store": uri_of(store), "keys": ["grpo"], "retention": {"keepLast": 1, "graceSeconds": 0}}
    assert move(tmp_path, "check", **asked) == 0 and result(capsys)["removed"] == 2
    assert set(held(store)) == {"grpo/3", "sft/9"}


def test_journals_are_deleted_by_the_same_grace_period_as_blobs_without_a_checkpoint(tmp_path, store, capsys):
    train(store)
    store.put_object("journal/grpo/grpo-000000004/ab12/0001-aaaaaaaa-00000-00000000", b"of a run that was cancelled")
    asked = {"store": uri_of(store), "keys": ["grpo"]}
    assert move(tmp_path, "check", **asked, retention={"graceSeconds": 3600}) == 0
    assert len(store.objects("journal/")) == 1
    assert move(tmp_path, "check", **asked, retention={"graceSeconds": 0}) == 0
    assert store.objects("journal/") == []
    capsys.readouterr()


def test_a_failure_to_retire_is_only_a_warning(store, monkeypatch):
    train(store)

    def refuse(*_):
        raise UserError("may not delete", where="s3://b", remedy="allow s3:DeleteObject")

    monkeypatch.setattr(check.retention, "apply", refuse)
    asked = config.Check.model_validate({**LARGE, "retention": {"keepLast": 1}})
    found = check.check(asked, store, None, NOW)
    assert found["checkpoints"]["grpo"]["step"] == 3 and found["removed"] == 0
    assert "may not delete" in found["warning"]


# --- dying


class Mortal:
    """A backend whose process dies at its n-th call: before it, or after its effect."""

    def __init__(self, backend, call, after):
        self.backend, self.left, self.after = backend, call, after

    def __getattr__(self, name):
        method = getattr(self.backend, name)

        def called(*args, **kwargs):
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Died
            result = method(*args, **kwargs)
            if self.left == 0:
                raise Died
            return result

        return called


class Died(BaseException):
    pass


class Generator:
    """Makes a world of one line."""

    @staticmethod
    def write(folder, world):
        folder.mkdir()
        (folder / "train.jsonl").write_text(f"{world.seed}\n")


def check_once(source, target):
    wishes = {"promoteTo": {"uri": "file:///t"}, "retention": {"keepLast": 1, "graceSeconds": 0}, "verify": True}
    check.check(config.Check.model_validate({**LARGE, **wishes}), source, target, datetime.now(UTC) + timedelta(days=1))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_check_that_dies_at_any_call_leaves_complete_checkpoints_and_is_finished_by_the_next(tmp_path, after):
    died = 0
    for call in range(1, 200):
        places = [FileBackend(tmp_path / f"{call}-{name}") for name in ("own", "out")]
        own, out = (stores.Store(place) for place in places)
        train(own)
        mortal = [Mortal(places[0], call, after), Mortal(places[1], call, after)]
        try:
            check_once(*(stores.Store(place) for place in mortal))
        except Died:
            died += 1
        assert {"grpo/3", "sft/9"} <= set(held(own)) and set(held(out)) <= {"grpo/3"}
        check_once(own, out)
        assert set(held(own)) == {"grpo/3", "sft/9"} and set(held(out)) == {"grpo/3"}
        if all(place.left > 0 for place in mortal):
            break
    assert died >= 10, "the check makes more calls than that"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_making_the_world_may_die_at_any_call(tmp_path, after, monkeypatch):
    monkeypatch.setattr(dataset.importlib, "import_module", lambda name: Generator)
    wanted, died = spec.WorldSpec(**WORLD), 0
    for call in range(1, 100):
        place = FileBackend(tmp_path / str(call))
        mortal = Mortal(place, call, after)
        try:
            dataset.world(wanted, stores.Store(mortal))
        except Died:
            died += 1
        assert dataset.world(wanted, stores.Store(place)) == {"dataset": "data/1"}
        assert set(held(stores.Store(place))) == {"data/1"}
        if mortal.left > 0:
            break
    assert died >= 5


# --- datasets


def test_the_world_in_a_store_is_the_world_that_gog_makes_in_a_folder(tmp_path, store, capsys):
    assert move(tmp_path, "data", store=uri_of(store), world=WORLD) == 0 and result(capsys) == {"dataset": "data/1"}
    fetched = dataset_zip.fetch_dataset(uri_of(store)["uri"], None, tmp_path / "fetched")
    assert cli.main(["data", "--world", json.dumps(WORLD), "--out", str(tmp_path / "made")]) == 0
    assert files_of(fetched) == files_of(tmp_path / "made")


def test_an_existing_world_is_not_made_again(tmp_path, store, monkeypatch):
    dataset.world(spec.WorldSpec(**WORLD), store)
    monkeypatch.setattr(dataset.importlib, "import_module", lambda name: pytest.fail("made again"))
    assert dataset.world(spec.WorldSpec(**WORLD), store) == {"dataset": "data/1"}


def test_another_world_in_the_same_store_is_refused(tmp_path, store, capsys):
    dataset.world(spec.WorldSpec(**WORLD), store)
    assert move(tmp_path, "data", store=uri_of(store), world={**WORLD, "seed": 4}) == 2
    assert "holds another dataset (data/1) (give the run a store of its own)" in capsys.readouterr().err


def test_a_folder_is_pushed_as_the_newest_dataset_once(tmp_path, capsys):
    for seed in (1, 2):
        cli.main(["data", "--world", json.dumps({**WORLD, "seed": seed}), "--out", str(tmp_path / f"{seed}")])
    results = []
    for seed in (1, 1, 2, 2):
        assert cli.main(["move", "push", str(tmp_path / f"{seed}"), str(tmp_path / "store")]) == 0
        results.append(result(capsys)["dataset"])
    assert results == ["data/1", "data/1", "data/2", "data/2"]
    fetched = dataset_zip.fetch_dataset((tmp_path / "store").as_uri(), None, tmp_path / "fetched")
    assert files_of(fetched) == files_of(tmp_path / "2")


def make_world(folder):
    cli.main(["data", "--world", json.dumps(WORLD), "--out", str(folder)])
    return folder


def pushed(tmp_path, *arguments):
    """The dataset as a reader of the store gets it."""
    assert cli.main(["move", "push", *map(str, arguments), str(tmp_path / "store")]) == 0
    return dataset_zip.fetch_dataset((tmp_path / "store").as_uri(), None, tmp_path / "fetched")


def test_a_folder_with_linked_and_hidden_images_is_pushed_with_all_of_them(tmp_path):
    pool = make_world(tmp_path / "pool")
    (pool / "images").rename(tmp_path / "elsewhere")
    (pool / "images").symlink_to(tmp_path / "elsewhere")
    (pool / "index" / "images").rename(pool / "index" / ".images")
    index = pool / "index" / "images.jsonl"
    index.write_text(index.read_text().replace("index/images/", "index/.images/"))
    fetched = pushed(tmp_path, pool)
    datasets.check(fetched, ["train", "test"])
    assert files_of(fetched) == files_of(pool) | {
        path.relative_to(pool).as_posix(): path.read_bytes() for path in pool.glob("images/*")
    }


@pytest.mark.parametrize("wrong", ["/etc/hosts", "../elsewhere/a.png"])
def test_a_folder_that_names_an_image_outside_itself_is_refused_by_line(tmp_path, capsys, wrong):
    pool = make_world(tmp_path / "pool")
    line = json.loads((pool / "test.jsonl").read_text().splitlines()[0])
    (pool / "train.jsonl").write_text(json.dumps({**line, "image": wrong}))
    assert cli.main(["move", "push", str(pool), str(tmp_path / "store")]) == 2
    assert f"train.jsonl:1: image {wrong!r}" in capsys.readouterr().err
    assert not (tmp_path / "store" / "blobs").exists()


def test_a_dataset_in_another_format_is_pushed_in_gogs_own(tmp_path, monkeypatch):
    pool = make_world(tmp_path / "pool")
    (tmp_path / "renamed.py").write_text(
        "from gog.dataset.formats.gog_jsonl import Reader as Own\n"
        "class Reader(Own):\n"
        "    def detect(self, path): return False\n"
        "    def splits(self, path): return ('test',)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fetched = pushed(tmp_path, pool, "--format", "renamed:Reader")
    assert sorted(path.name for path in fetched.iterdir()) == ["images", "test.jsonl"]
    assert len(datasets.read_questions(fetched, "test")) == WORLD["test"]


def test_a_folder_that_no_run_could_read_is_not_pushed(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert cli.main(["move", "push", str(tmp_path / "folder"), str(tmp_path / "store")]) == 2
    (tmp_path / "folder" / "train.jsonl").write_text('{"id": "1"}\n')
    assert cli.main(["move", "push", str(tmp_path / "folder"), str(tmp_path / "store")]) == 2
    sentence = capsys.readouterr().err
    assert "no train.jsonl and no test.jsonl" in sentence and "train.jsonl:1" in sentence


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- messages and errors


def test_the_result_is_the_pod_s_termination_message(tmp_path, store, monkeypatch, capsys):
    monkeypatch.setenv("GOG_TERMINATION_LOG", str(tmp_path / "log"))
    assert move(tmp_path, "check", store=uri_of(store), keys=["grpo"]) == 0
    assert (tmp_path / "log").read_text() + "\n" == capsys.readouterr().out


def test_a_failed_store_job_writes_no_message_so_that_kubernetes_takes_the_end_of_the_log(
    tmp_path, store, monkeypatch, capsys
):
    monkeypatch.setenv("GOG_TERMINATION_LOG", str(tmp_path / "log"))
    assert move(tmp_path, "check", store=uri_of(store), keys=["grpo"], retain={}) == 2
    assert not (tmp_path / "log").exists() and "retain" in capsys.readouterr().err


def test_a_message_is_valid_json_and_never_longer_than_kubernetes_keeps():
    full = {
        "checkpoints": {"grpo": {"step": 1, "complete": True}},
        "promoted": ["é" * 100] * 200,
        "warning": "w" * 9000,
    }
    text = message.shortened(full)
    assert len(text.encode()) <= 4096 and json.loads(text)["checkpoints"] == full["checkpoints"]
    assert json.loads(message.shortened({"promoted": ["a"]})) == {"promoted": ["a"]}


def test_the_summary_of_a_check_of_tools_arrives_whole_and_in_any_script_as_far_as_it_fits():
    whole = {"outcome": "failed", "message": "m" * MOST_SUMMARY}
    assert json.loads(message.shortened(whole)) == whole
    for letter in ("検", "\U0001f600", "\0"):
        text = message.shortened({"outcome": "failed", "message": letter * MOST_SUMMARY})
        read = json.loads(text)
        assert 2_000 < len(text.encode()) <= message.LIMIT
        assert read["outcome"] == "failed" and read["message"].startswith(letter) and read["message"].endswith("…")


def test_a_store_that_does_not_answer_is_one_line_of_error_and_retried(tmp_path, monkeypatch, capsys):
    def silent(*_):
        raise stores.Unavailable("s3://b: no answer for 60 s")

    monkeypatch.setattr(stores, "open_store", silent)
    assert move(tmp_path, "check", store={"uri": "s3://b"}, keys=["grpo"]) == 1
    assert capsys.readouterr().err.splitlines() == ["gog: s3://b: no answer for 60 s"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("keys: [a", "not YAML"), ("keys: [a]", "store"), ("[]", "valid"), ("store: {uri: nowhere}", "store.uri")],
)
def test_wrong_settings_are_reported_with_file_and_field(tmp_path, text, sentence, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert cli.main(["move", "check", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and sentence in line


@pytest.mark.parametrize("what", ["check", "data"])
def test_a_store_job_loads_neither_torch_nor_kubernetes(tmp_path, store, what):
    program = (
        "import sys; from gog_console import cli; code = cli.main(sys.argv[1:]);"
        "heavy = {'torch', 'kubernetes', 'kopf', 'torchx', 'boto3', 'aiohttp'} & set(sys.modules);"
        "sys.exit(code or ' '.join(heavy) or 0)"
    )
    more = {"keys": ["grpo"]} if what == "check" else {"world": WORLD}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"store": uri_of(store), **more}))
    line = [sys.executable, "-c", program, "move", what, "--config", str(tmp_path / "c.yaml")]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_without_an_authority_in_the_secret_none_is_configured(tmp_path):
    present = tmp_path / "ca.crt"
    present.touch()
    kept, dropped = {"AWS_CA_BUNDLE": str(present)}, {"AWS_CA_BUNDLE": str(tmp_path / "absent")}
    for environment in (kept, dropped):
        cli.forget_absent_authority(environment)
    assert kept and not dropped
    private = dropped | {"AWS_CA_BUNDLE": str(tmp_path / "absent"), "SSL_CERT_FILE": str(present)}
    cli.forget_absent_authority(private)
    assert private["AWS_CA_BUNDLE"] == str(present), "the authorities that everything else trusts"
