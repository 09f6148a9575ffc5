"""The check of a base's folder accepts the published form of every family, and names what is wrong with a part of it."""

from __future__ import annotations

import json
import shutil

import pytest
from support import base_folders
from support.real_structures import FAMILIES

from gog import base_model
from gog.errors import UserError
from gog.spec import ModelSpec
from gog_recipes.models import policy_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_published_form_is_accepted_and_a_part_that_does_not_fit_is_named(real_base, tmp_path, family):
    whole = real_base(family)
    base_model.check(whole)
    assert base_model.fingerprint(whole) == base_model.fingerprint(whole)
    for name, change, sentence in (
        ("preprocessor_config.json", lambda path: path.unlink(), "no image processor in"),
        ("preprocessor_config.json", lambda path: base_folders.change_json(path, patch_size=28), "patch_size is 28"),
        ("tokenizer.json", lambda path: path.unlink(), "no tokenizer in"),
        ("config.json", lambda path: base_folders.change_json(path, image_token_id=151654), "image_token_id is 151654"),
        ("config.json", deeper, "is missing"),
        (base_model.INDEX, lambda path: path.unlink(), f"no {base_model.INDEX} beside"),
    ):
        folder = shutil.copytree(whole, tmp_path / "damaged", copy_function=shutil.copy)
        change(folder / name)
        with pytest.raises(UserError, match=sentence):
            policy_model.load_processor(ModelSpec(base=str(folder)))
        shutil.rmtree(folder)


def deeper(path):
    """One more decoder layer than there are weights for."""
    config = json.loads(path.read_text())
    text = config.get("text_config", config)
    text["num_hidden_layers"] += 1
    base_folders.write_json(path, config)
