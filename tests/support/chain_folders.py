"""The folders of a chain of stages."""

from __future__ import annotations

import json

from gog import store

TIMES = ("seconds", "rollout_seconds", "train_seconds", "tokens_per_second")


def copy_of(chain, target):
    """Another store that holds the same finished stages."""
    source = store.Store(chain / "store")
    copy = store.open_store(f"file://{target}/store")
    for stage in ("curate", "sft", "stratify"):
        manifest = source.latest(stage)
        files = {name: source.open(manifest, name) for name in manifest.files}
        copy.publish(stage, manifest.step, files, meta=manifest.meta, parents=manifest.parents)
    return target


def lines(root, stage):
    manifest = store.Store(root / "store").latest(stage)
    text = store.Store(root / "store").open(manifest, "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.splitlines()]


def weights(root, stage):
    opened = store.Store(root / "store")
    return opened.latest(stage).files["adapter_model.safetensors"].hash
