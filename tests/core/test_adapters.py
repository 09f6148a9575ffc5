"""Adapters joined into one for a server of the plain base, and checked against a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import publish

from gog import adapters, base_model, store, tensors
from gog.errors import UserError

MODULES = ("base_model.model.layers.0.q_proj", "base_model.model.layers.1.up_proj")
OUT, IN = 6, 5


def write(folder: Path, *, rank: int, alpha: int, seed: int, modules=MODULES, dtype="F32", **config) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    weights = {}
    for module in modules:
        weights[module + adapters.A] = (dtype, rng.normal(size=(rank, IN)).astype(np.float32))
        weights[module + adapters.B] = (dtype, rng.normal(size=(OUT, rank)).astype(np.float32))
    tensors.write(folder / adapters.WEIGHTS, weights)
    whole = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj"], **config}
    (folder / adapters.CONFIG).write_text(json.dumps(whole))
    return folder


def update(folder: Path, module: str) -> np.ndarray:
    """What the folder adds to a module's weight."""
    config = json.loads((folder / adapters.CONFIG).read_text())
    weights = tensors.read(folder / adapters.WEIGHTS)
    if module + adapters.A not in weights:
        return np.zeros((OUT, IN))
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    a, b = (weights[module + end][1].astype(np.float64) for end in (adapters.A, adapters.B))
    return scaling * b @ a


def blobs(checkpoints: store.Store, folder: Path, **more: bytes) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (adapters.CONFIG, adapters.WEIGHTS)} | more


layer = st.tuples(st.integers(1, 12), st.integers(1, 40), st.sets(st.sampled_from(MODULES), min_size=1), st.booleans())


@settings(max_examples=40, deadline=None)
@given(layers=st.lists(layer, min_size=1, max_size=4), x_seed=st.integers(0, 9))
def test_a_joined_adapter_changes_every_input_by_the_sum_of_its_parts(tmp_path_factory, layers, x_seed):
    root = tmp_path_factory.mktemp("join")
    parts = [
        write(root / str(n), rank=rank, alpha=alpha, seed=n, modules=sorted(modules), use_rslora=rslora)
        for n, (rank, alpha, modules, rslora) in enumerate(layers)
    ]
    joined = adapters.join(parts, root / "joined")
    x = np.random.default_rng(x_seed).normal(size=IN)
    for module in MODULES:
        expected = sum(update(part, module) @ x for part in parts)
        np.testing.assert_allclose(update(joined, module) @ x, expected, rtol=1e-5, atol=1e-4)
    config = json.loads((joined / adapters.CONFIG).read_text())
    assert config["r"] == config["lora_alpha"] and config["r"] in adapters.RANKS
    assert config["r"] >= sum(rank for rank, *_ in layers)
    touched = sorted({module for _, _, modules, _ in layers for module in modules})
    assert config["target_modules"] == [module.removeprefix(adapters.PREFIX) for module in touched]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_type_of_the_weights_is_kept(tmp_path, dtype):
    parts = [write(tmp_path / str(n), rank=4, alpha=8, seed=n, dtype=dtype) for n in range(2)]
    joined = tensors.read(adapters.join(parts, tmp_path / "joined") / adapters.WEIGHTS)
    assert {kind for kind, _ in joined.values()} == {dtype}
    first = tensors.read(parts[0] / adapters.WEIGHTS)[MODULES[0] + adapters.B][1]
    np.testing.assert_array_equal(joined[MODULES[0] + adapters.B][1][:, :4], 2 * first)  # a power of two is exact


def test_adapters_of_two_types_are_joined_in_float32(tmp_path):
    parts = [write(tmp_path / dtype, rank=4, alpha=4, seed=1, dtype=dtype) for dtype in ("F16", "BF16")]
    joined = tensors.read(adapters.join(parts, tmp_path / "joined") / adapters.WEIGHTS)
    assert {kind for kind, _ in joined.values()} == {"F32"}


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_bfloat16_is_read_back_as_the_nearest_value(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("bf16") / "x.safetensors"
    given_values = np.array(values, np.float32)
    tensors.write(path, {"x": ("BF16", given_values)})
    kind, read = tensors.read(path)["x"]
    tensors.write(path, {"x": ("BF16", read)})
    np.testing.assert_array_equal(tensors.read(path)["x"][1], read)
    finite = np.isfinite(given_values) & np.isfinite(read)
    assert kind == "BF16" and (np.isnan(read) == np.isnan(given_values)).all()
    tolerance = np.maximum(np.abs(given_values[finite]).astype(np.float64) * 2**-8, 1e-40)
    assert (np.abs(read[finite].astype(np.float64) - given_values[finite]) <= tolerance).all()


@pytest.mark.parametrize(
    "config",
    [
        {"modules_to_save": ["lm_head"]},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"bias": "all"},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 4]]},
        {"some_future_variant": True},
    ],
)
def test_what_cannot_be_joined_exactly_is_refused_by_its_name(tmp_path, config):
    parts = [write(tmp_path / "a", rank=4, alpha=4, seed=1), write(tmp_path / "b", rank=4, alpha=4, seed=1, **config)]
    with pytest.raises(UserError, match=next(iter(config))):
        adapters.join(parts, tmp_path / "joined")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_rank_that_no_server_takes_is_refused(tmp_path):
    parts = [write(tmp_path / str(n), rank=300, alpha=4, seed=n) for n in range(2)]
    with pytest.raises(UserError, match="600"):
        adapters.join(parts, tmp_path / "joined")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: data.replace(b"F32", b"I32"),
        lambda data: data.replace(b"lora_A", b"lora_X"),
    ],
)
def test_broken_weights_are_refused_with_their_folder(tmp_path, damage):
    folder = write(tmp_path / "a", rank=4, alpha=4, seed=1)
    path = folder / adapters.WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=str(folder)):
        adapters.join([folder], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_safetensors_itself_reads_what_was_written(tmp_path):
    numpy_reader = pytest.importorskip("safetensors.numpy")
    folder = write(tmp_path / "a", rank=4, alpha=4, seed=1)
    theirs = numpy_reader.load_file(adapters.join([folder], tmp_path / "joined") / adapters.WEIGHTS)
    ours = tensors.read(tmp_path / "joined" / adapters.WEIGHTS)
    assert theirs.keys() == ours.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(values, ours[name][1])


# ---- against a model

LINEARS = {"layers.0.q_proj": (OUT, IN), "layers.1.up_proj": (OUT, IN)}


def shapes(*modules, rank=4, high=OUT, wide=IN):
    return {f"{module}{adapters.A}": (rank, wide) for module in modules} | {
        f"{module}{adapters.B}": (high, rank) for module in modules
    }


def test_an_adapter_of_this_model_changes_its_modules():
    assert adapters.check_places(shapes(*MODULES), LINEARS, where="x") == set(LINEARS)


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        (shapes("base_model.model.model.layers.0.q_proj"), "2 of 2 weights have no place"),
        (shapes(MODULES[0], "base_model.model.layers.9.q_proj"), "2 of 4 weights have no place"),
        (shapes("layers.0.q_proj"), "2 of 2 weights have no place"),
        ({MODULES[0] + ".lora_magnitude_vector": (OUT,)}, "1 of 1 weights have no place"),
        (shapes(MODULES[0], wide=IN + 1), r"q_proj.lora_A.weight is \[4, 6\], the model's linear \[6, 5\]"),
        (shapes(MODULES[0], high=OUT + 1), "q_proj.lora_B.weight is"),
        ({}, "holds no weights"),
    ],
)
def test_an_adapter_of_another_model_is_refused_with_an_example_of_both(saved, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        adapters.check_places(saved, LINEARS, where="sft/180")
    assert caught.value.where == "sft/180"
    if "place" in sentence:
        assert "'base_model.model.layers.0.q_proj.lora_A.weight'" in caught.value.what


# ---- from a store


@pytest.fixture
def trained(store: store.Store, tmp_path: Path) -> tuple[Path, Path]:
    """A store with curate, sft, stratify, grpo and an arm of it; the folders of the two adapters."""
    sft = write(tmp_path / "made" / "sft", rank=8, alpha=16, seed=1)
    grpo = write(tmp_path / "made" / "grpo", rank=8, alpha=8, seed=2)
    publish(store, 1, {"trajectories.zip": b"x"}, stage="curate")
    publish(store, 180, blobs(store, sft, **{"optimizer.safetensors": b"o"}), stage="sft", parents=("curate/1",))
    publish(store, 1, {"levels.jsonl": b"x"}, stage="stratify", parents=("sft/180",))
    for stage in ("grpo", "grpo-no-gaze"):
        publish(store, 120, blobs(store, grpo), stage=stage, parents=("sft/180", "stratify/1"))
    return sft, grpo


@pytest.mark.parametrize("ref", ["grpo/120", "grpo-no-gaze/120", "grpo"])
def test_an_rl_adapter_is_served_joined_with_the_sft_adapter_it_was_trained_on(store, tmp_path, trained, ref):
    folder = adapters.fetch_servable(store, ref, tmp_path / "served")
    for module in MODULES:
        expected = update(trained[0], module) + update(trained[1], module)
        np.testing.assert_allclose(update(folder, module), expected, atol=1e-5)


def test_an_sft_adapter_is_served_alone(store, tmp_path, trained):
    folder = adapters.fetch_servable(store, "sft/180", tmp_path / "served")
    np.testing.assert_allclose(update(folder, MODULES[0]), update(trained[0], MODULES[0]), atol=1e-6)


@pytest.mark.parametrize("ref", ["stratify/1", "grpo/121", "grpo/../sft", "nothing"])
def test_a_checkpoint_without_a_policy_is_refused_and_leaves_no_folder(store, tmp_path, trained, ref):
    with pytest.raises(UserError):
        adapters.fetch_servable(store, ref, tmp_path / "served" / "x")
    assert not (tmp_path / "served").exists()


def test_a_corrupt_sft_adapter_is_found_before_the_folder_appears(store, tmp_path, trained):
    path = store.open(store.resolve("sft/180"), adapters.WEIGHTS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(UserError, match="sft/180"):
        adapters.fetch_servable(store, "grpo/120", tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_an_adapter_is_not_served_on_another_base_model_than_its_own(store, tmp_path, trained):
    own, other = base_model.Identity("tiny", "1-00"), base_model.Identity("/models/b", "1-11")
    publish(store, 121, blobs(store, trained[1]), stage="grpo", parents=("sft/181",))
    publish(store, 181, blobs(store, trained[0]), stage="sft", meta={base_model.RECORD: own.document()})
    assert adapters.fetch_servable(store, "grpo/121", tmp_path / "served", base=own).is_dir()
    with pytest.raises(
        UserError, match=r"checkpoint sft/181: its adapter was trained on the base model tiny .*/models/b"
    ):
        adapters.fetch_servable(store, "grpo/121", tmp_path / "again", base=other)
    assert adapters.fetch_servable(store, "grpo/120", tmp_path / "older", base=other).is_dir(), "it records no base"
