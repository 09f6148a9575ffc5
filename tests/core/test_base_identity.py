"""The fingerprint of a base model: the same for the same content, another for any other model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support import base_folders

from gog import base_model, base_source
from gog.errors import UserError
from gog.store import Manifest


@pytest.fixture
def folder(tmp_path):
    return base_folders.write(tmp_path / "base")


def test_a_copy_and_another_division_into_files_have_the_same_fingerprint(folder, tmp_path):
    own = base_model.fingerprint(folder)
    assert base_model.fingerprint(shutil.copytree(folder, tmp_path / "copy")) == own
    assert base_model.fingerprint(base_folders.write(tmp_path / "shards", shards=3)) == own


@pytest.mark.parametrize("field", ["transformers_version", "torch_dtype", "_name_or_path"])
def test_fields_that_name_versions_do_not_matter(folder, field):
    own = base_model.fingerprint(folder)
    base_folders.change_json(folder / "config.json", **{field: "another"})
    assert base_model.fingerprint(folder) == own


def change_setting(folder):
    base_folders.change_json(folder / "config.json", rope_theta=5e6)


def change_token(folder):
    text = json.loads((folder / "tokenizer.json").read_text())
    text["model"]["vocab"] = {"a": 1, "b": 0}
    base_folders.write_json(folder / "tokenizer.json", text)


def change_one_weight(folder):
    made = base_folders.weights(base_folders.config())
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    made[name] = ("BF16", made[name][1] + np.float32(0.1))
    base_folders.write_weights(folder, made)


def change_type(folder):
    base_folders.write_weights(folder, base_folders.weights(base_folders.config(), dtype="F16"))


@pytest.mark.parametrize("change", [change_setting, change_token, change_one_weight, change_type])
def test_another_setting_token_weight_or_type_has_another_fingerprint(folder, change):
    own = base_model.fingerprint(folder)
    change(folder)
    base_model.check(folder)
    assert base_model.fingerprint(folder) != own


def test_records_without_a_fingerprint_or_of_another_scheme_are_not_compared():
    own = base_model.Identity("tiny", "1-00")
    assert base_model.compare(own.document(), own, ref="sft/1")
    for recorded in (None, {}, {"name": "tiny", "fingerprint": "0-11"}):
        assert not base_model.compare(recorded, own, ref="sft/1")
    with pytest.raises(
        UserError, match=r"^checkpoint sft/1: .* base model b \(fingerprint 1-11\), not on tiny \(finger"
    ):
        base_model.compare({"name": "b", "fingerprint": "1-11"}, own, ref="sft/1")


def checkpoint(given, name):
    return Manifest(
        stage="sft", step=1, files={}, parents=(),
        meta={"settings": {"model": {"base": given}}, base_model.RECORD: {"name": name}},
    )  # fmt: skip


def test_a_branch_is_pinned_to_the_commit_of_an_earlier_checkpoint_of_the_same_address():
    pinned = f"hf://org/m@{'a' * 40}"
    earlier = [checkpoint("tiny", "tiny"), checkpoint("hf://org/m", pinned)]
    assert base_source.recorded("hf://org/m", earlier) == pinned
    for other in ("hf://org/m@main", "hf://org/n", "/models/m", "s3://b/m", f"hf://org/m@{'b' * 40}"):
        assert base_source.recorded(other, earlier) == other
    assert base_source.recorded("hf://org/m", []) == "hf://org/m"
