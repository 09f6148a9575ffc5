"""The check of a base model's folder: half a download is named before a run starts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gog import base_model, tensors
from gog.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4968243304\n"


def weights(path, *names):
    tensors.write(path, {name: ("BF16", np.ones((4, 3), np.float32)) for name in names})


@pytest.fixture
def folder(tmp_path):
    """A base model of two shards."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    weights(tmp_path / "model-1.safetensors", "a", "b")
    weights(tmp_path / "model-2.safetensors", "c")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / base_model.INDEX).write_text(json.dumps(index))
    return tmp_path


def refusal(folder):
    with pytest.raises(UserError) as caught:
        base_model.check(folder)
    return str(caught.value)


def test_a_whole_model_in_shards_is_accepted(folder):
    base_model.check(folder)
    assert base_model.model_type(folder) == "qwen2_5_vl"


def test_a_whole_model_in_one_file_is_accepted_with_either_kind_of_tokenizer(folder):
    for path in folder.glob("model*"):
        path.unlink()
    weights(folder / base_model.WEIGHTS, "a")
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("x")
    base_model.check(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "preprocessor_config.json", "model-2.safetensors", base_model.INDEX]
)
def test_a_git_lfs_pointer_is_named(folder, name):
    (folder / name).write_bytes(POINTER)
    assert refusal(folder) == f"{folder / name}: a Git LFS pointer, not the file itself (run `git lfs pull` there)"


@pytest.mark.parametrize("size", [-1, 200, 20, 4, 0])
def test_a_file_cut_off_anywhere_is_named(folder, size):
    path = folder / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(folder).startswith(f"{path}: ")


def test_the_bytes_that_are_missing_are_counted(folder):
    path = folder / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert refusal(folder) == f"{path}: cut off: 5 bytes are missing at its end (fetch it again)"


def test_a_missing_shard_is_named(folder):
    (folder / "model-2.safetensors").unlink()
    assert refusal(folder) == f"{folder / base_model.INDEX}: shard model-2.safetensors is missing (fetch it again)"


def test_a_shard_of_another_version_is_named_with_a_weight_that_it_lacks(folder):
    weights(folder / "model-1.safetensors", "a")
    assert refusal(folder).startswith(f"{folder / 'model-1.safetensors'}: lacks b, which {base_model.INDEX} places")


def test_an_index_leads_to_no_file_outside_its_folder(folder):
    (folder / base_model.INDEX).write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    assert "shard ../model-1.safetensors is missing" in refusal(folder)


def test_pickles_are_refused_with_the_reason(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")
    assert "is a pickle, which can run any code" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "role"), [("tokenizer.json", "tokenizer"), ("preprocessor_config.json", "image processor")]
)
def test_a_missing_or_empty_processor_file_is_named(folder, name, role):
    (folder / name).write_text("")
    assert refusal(folder) == f"{folder / name}: is empty (fetch it again)"
    (folder / name).unlink()
    assert f"no {role} in {folder} (it needs {name} or" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}', "{}"])
def test_another_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    assert "is not valid JSON" in refusal(folder) or "is not supported" in refusal(folder)
