"""`gog move` over a real S3 server: everything in a bucket, and a second one with credentials of its own."""

from __future__ import annotations

import pytest
from support import report_builders, s3
from support.store_job_builders import WORLD, held, move, objects_in, result_lines, train

from gog import spec
from gog import store as stores
from gog_operator.store_jobs import stores as opening


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return report_builders.make_run(tmp_path_factory.mktemp("runs"))


def test_everything_works_in_a_bucket(tmp_path, gateway, finished_run, capsys):
    own, out = (gateway.spec(f"move/{name}") for name in ("own", "out"))
    plain = [each.model_dump(mode="json", exclude_none=True) for each in (own, out)]
    train(stores.open_store(own))
    assert move(tmp_path, "data", store=plain[0], world=WORLD) == 0
    wishes = {"verify": True, "promoteTo": plain[1], "retention": {"keepLast": 1, "graceSeconds": 0}}
    assert move(tmp_path, "check", store=plain[0], keys=["grpo"], **wishes) == 0
    assert move(tmp_path, "report", store=plain[0], objects=objects_in(finished_run)) == 0
    made, checked, reported = result_lines(capsys)
    assert made == {"dataset": "data/1"} and checked["promoted"] == ["grpo/3"] and checked["removed"] == 2
    assert reported["report"] == "s3://ckpt/move/own/report/index.html"
    assert set(held(stores.open_store(own))) == {"data/1", "grpo/3", "sft/9"}
    assert set(held(stores.open_store(out))) == {"grpo/3"}


def test_a_second_store_is_opened_with_its_own_credentials(tmp_path, gateway, monkeypatch):
    for name, value in {"ACCESS": "another", "SECRET": "another-secret"}.items():
        monkeypatch.setattr(s3, name, value)
    elsewhere = s3.Gateway(tmp_path / "elsewhere").start()
    try:
        own, target = gateway.spec("second/own"), elsewhere.spec("second/out")
        environment = dict(s3.CREDENTIALS)
        environment |= {"GOG_TARGET_AWS_ACCESS_KEY_ID": "another", "GOG_TARGET_AWS_SECRET_ACCESS_KEY": "another-secret"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        train(stores.open_store(own))
        promote = {"promoteTo": target.model_dump(mode="json", exclude_none=True)}
        asked = {"store": own.model_dump(mode="json", exclude_none=True), "keys": ["grpo"], **promote}
        assert move(tmp_path, "check", **asked) == 0
        assert (elsewhere.folder / s3.BUCKET / "second" / "out" / "manifests" / "grpo").is_dir()
    finally:
        elsewhere.stop()


def test_the_first_credentials_are_restored_after_the_second_store_was_opened(monkeypatch):
    seen = []
    environment = {"AWS_ACCESS_KEY_ID": "1", "AWS_SESSION_TOKEN": "t", "GOG_TARGET_AWS_ACCESS_KEY_ID": "2"}
    before = dict(environment)
    monkeypatch.setattr(stores, "open_store", lambda wanted: seen.append((wanted, dict(environment))))
    wanted = spec.StoreSpec(uri="s3://b")
    opening.open_target(wanted, environment)
    opening.open_own(wanted, environment)
    (_, during), (_, after) = seen
    assert during["AWS_ACCESS_KEY_ID"] == "2" and "AWS_SESSION_TOKEN" not in during
    assert after == before == environment


def test_a_second_store_without_an_authority_of_its_own_trusts_those_of_everything_else(monkeypatch, tmp_path):
    seen = []
    absent = {"GOG_TARGET_AWS_ACCESS_KEY_ID": "2", "GOG_TARGET_AWS_CA_BUNDLE": str(tmp_path / "absent")}
    monkeypatch.setattr(stores, "open_store", lambda wanted: seen.append(environment.get("AWS_CA_BUNDLE")))
    for system in ({"SSL_CERT_FILE": "/etc/gog-ca/ca.crt"}, {}):
        environment = absent | system
        opening.open_target(spec.StoreSpec(uri="s3://b"), environment)
    assert seen == ["/etc/gog-ca/ca.crt", None]


def test_a_refused_credential_is_not_retried(tmp_path, gateway, monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    asked = gateway.spec("refused").model_dump(mode="json", exclude_none=True)
    assert move(tmp_path, "check", store=asked, keys=["grpo"]) == 2
    assert "AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err
