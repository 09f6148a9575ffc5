"""The folders of a chain of stages."""

from __future__ import annotations

import json

from gog import store

TIMES = (
    "rollout_seconds", "train_seconds", "tokens_per_second", "trainer_idle", "engine_idle", "tools_overlapped_seconds",
    "generated_tokens_per_second", "model_flops_per_second", "host_memory_peak_bytes",
)  # fmt: skip
"""Figures of the machine, besides `seconds` and its parts."""


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
    return [without_times(json.loads(line)) for line in text.splitlines()]


def without_times(line):
    return {key: value for key, value in line.items() if key not in TIMES and not key.startswith("seconds")}


def weights(root, stage):
    opened = store.Store(root / "store")
    return opened.latest(stage).files["adapter_model.safetensors"].hash
