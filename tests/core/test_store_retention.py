"""Which checkpoints are kept, and what a sweep must not delete."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import s3
from support.builders import OLD, contents, publish

from gog import store as stores
from gog.errors import UserError
from gog.spec import RetentionSpec
from gog.store import Manifest, Store, retention

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def made(ref: str, *, parents: tuple[str, ...] = (), **meta: object) -> Manifest:
    stage, _, step = ref.partition("/")
    return Manifest(stage=stage, step=int(step), files={}, meta=meta, parents=parents)


def dropped(manifests: list[Manifest], **spec: object) -> set[str]:
    return {manifest.ref for manifest in retention.plan(manifests, RetentionSpec(**spec), NOW).drop}


def test_the_newest_of_each_stage_are_kept() -> None:
    manifests = [made(f"{stage}/{step}") for stage in ("sft", "grpo") for step in (1, 2, 10)]
    assert dropped(manifests, keep_last=2) == {"sft/1", "grpo/1"}


def test_the_best_are_kept_as_well_and_those_without_a_score_are_not_among_them() -> None:
    rewards = {1: 0.9, 2: 0.1, 3: float("nan"), 4: None, 5: 0.2}
    manifests = [made(f"grpo/{step}", reward_last=reward) for step, reward in rewards.items()]
    assert dropped(manifests, keep_last=1, keep_best=1) == {"grpo/2", "grpo/3", "grpo/4"}


def test_tagged_checkpoints_are_kept() -> None:
    manifests = [made("grpo/1", tags=["paper"]), made("grpo/2", tags=[]), made("grpo/3")]
    assert dropped(manifests, keep_last=1) == {"grpo/2"}


def test_all_ancestors_of_a_kept_checkpoint_are_kept() -> None:
    manifests = [made("curate/1"), made("curate/2"), made("sft/1", parents=("curate/1",)), made("sft/2")]
    manifests.append(made("grpo/1", parents=("sft/1", "elsewhere/9")))
    assert dropped(manifests, keep_last=1) == set()


@given(
    st.lists(
        st.tuples(st.sampled_from(["sft", "grpo"]), st.integers(0, 9), st.floats(0, 1), st.booleans()),
        unique_by=lambda row: row[:2],
    ),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_plan_never_drops_the_newest_and_a_second_one_drops_nothing(
    rows: list[tuple[str, int, float, bool]], last: int, best: int
) -> None:
    manifests = [made(f"{stage}/{step}", reward_last=r, tags=["t"] if tag else []) for stage, step, r, tag in rows]
    spec = RetentionSpec(keep_last=last, keep_best=best)
    gone = {manifest.ref for manifest in retention.plan(manifests, spec, NOW).drop}
    left = [manifest for manifest in manifests if manifest.ref not in gone]
    for stage in {manifest.stage for manifest in manifests}:
        steps = sorted({manifest.step for manifest in manifests if manifest.stage == stage})
        assert set(steps[-last:]) <= {manifest.step for manifest in left if manifest.stage == stage}
    assert all(not manifest.meta["tags"] for manifest in manifests if manifest.ref in gone)
    assert not retention.plan(left, spec, NOW).drop


# ---- the sweep


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return stores.open_store((tmp_path / "store").as_uri())
    gateway = request.getfixturevalue("gateway")
    return stores.open_store(gateway.spec(f"{tmp_path.parent.name}/{tmp_path.name}"), s3.IMPATIENT)


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def blobs(store: Store) -> set[str]:
    return {entry.key for entry in store.backend.entries("blobs/")}


def test_a_sweep_deletes_what_was_dropped_and_keeps_shared_blobs(store: Store) -> None:
    for step in range(4):
        publish(store, step, {"same": b"same", "own": str(step).encode()})
    swept = retention.apply(store, RetentionSpec(keep_last=2, grace_seconds=60), later())
    assert (set(swept.checkpoints), swept.blobs) == ({"sft/0", "sft/1"}, 2)
    assert store.steps("sft") == [2, 3] and len(blobs(store)) == 3
    assert contents(store, store.latest("sft")) == {"same": b"same", "own": b"3"}


def test_a_blob_younger_than_the_grace_period_is_kept(store: Store, tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"shard")
    staged = store.stage_blobs({"shard": tmp_path / "shard"})
    assert retention.apply(store, RetentionSpec(grace_seconds=7200), later()).blobs == 0
    assert contents(store, store.commit("sft", 1, staged)) == {"shard": b"shard"}


def test_a_blob_that_is_used_again_during_a_sweep_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, 1, OLD)
    publish(store, 2, {"other": b"other"})
    for key in blobs(store):
        _age(store, key)
    real, reads = retention._manifests, []

    def meanwhile(kept: Store) -> list[Manifest]:
        reads.append(real(kept))
        if len(reads) == 2:  # the sweep knows what is needed; another process publishes what it is about to take
            publish(store, 3, OLD)
        return reads[-1]

    monkeypatch.setattr(retention, "_manifests", meanwhile)
    retention.apply(store, RetentionSpec(keep_last=1, grace_seconds=60))
    store.check(store.latest("sft"))
    assert store.steps("sft") == [2, 3]


def _age(store: Store, key: str) -> None:
    """Sets an object's time to long ago."""
    root = store.backend.root if hasattr(store.backend, "root") else None
    if root is None:
        root = Path(os.environ["GOG_TEST_BUCKETS"]) / s3.BUCKET / store.backend.prefix
    os.utime(root / key, (0, 0))


def test_nothing_is_swept_while_a_manifest_cannot_be_read(store: Store) -> None:
    publish(store, 1, OLD)
    before = blobs(store)
    store.backend.put("manifests/grpo/000000001.json", b"{", "application/json")
    with pytest.raises(UserError, match="manifest is not valid"):
        retention.apply(store, RetentionSpec(keep_last=1, grace_seconds=0), later())
    assert blobs(store) == before


def test_latest_names_an_existing_checkpoint_after_every_sweep(store: Store) -> None:
    for step in range(3):
        publish(store, step, OLD)
        retention.apply(store, RetentionSpec(keep_last=1, grace_seconds=0), later())
        there = store.backend.read("latest/sft")
        assert there is not None and int(there.data) == step == store.latest("sft").step
