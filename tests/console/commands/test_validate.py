"""`gog validate` checks a base model and a dataset that are on this machine, and says what it did not check."""

from __future__ import annotations

import json

import PIL.Image
import pytest
import yaml
from huggingface_hub import constants
from support import base_folders, hub_server

from gog_console import cli


@pytest.fixture
def validate(tmp_path, capsys, monkeypatch):
    """validate(spec, *arguments): exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(spec, *arguments):
        body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": spec}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
        code = cli.main(["validate", "run.yaml", *arguments])
        return code, "".join(capsys.readouterr())

    return run


def test_a_base_model_in_a_folder_of_this_machine_is_checked(validate, tmp_path):
    folder = base_folders.write(tmp_path / "base")
    spec = {"model": {"base": "base"}, "data": {"world": {}}}
    assert validate(spec)[0] == validate({**spec, "model": {"base": folder.as_uri()}})[0] == 0
    (folder / "preprocessor_config.json").unlink()
    code, output = validate(spec)
    assert code == 2 and output == (
        "gog: run.yaml: spec.model.base: no image processor in base "
        "(it needs preprocessor_config.json or processor_config.json)\n"
    )


def test_a_folder_that_is_not_here_is_a_note_because_the_manifest_may_be_for_elsewhere(validate):
    code, output = validate({"model": {"base": "/models/m"}, "data": {"world": {}}})
    assert code == 0
    assert "note: spec.model.base: there is no folder /models/m here, so the model is not checked\n" in output


def test_a_base_model_elsewhere_is_checked_only_when_asked(validate, tmp_path, monkeypatch):
    folder = base_folders.write(tmp_path / "source")
    spec = {"model": {"base": "hf://org/model@v9"}, "data": {"world": {}}}
    code, output = validate(spec)
    assert code == 0 and "note: spec.model.base: hf://org/model@v9 is checked with --remote, and by the stage" in output
    with hub_server.serving(folder) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        code, output = validate(spec, "--remote")
        assert code == 2 and output.startswith("gog: hf://org/model@v9: there is no revision 'v9'")
        assert validate({**spec, "model": {"base": "hf://org/model"}}, "--remote")[0] == 0


def test_images_of_a_dataset_on_this_machine_are_checked_by_the_limits_of_the_model(validate, tmp_path):
    base_folders.write(tmp_path / "base")
    (tmp_path / "pool").mkdir()
    line = {"id": "q1", "image": "thin.png", "question": "?", "answers": ["x"]}
    for split in ("train", "test"):
        (tmp_path / "pool" / f"{split}.jsonl").write_text(json.dumps(line) + "\n")
    PIL.Image.new("RGB", (1600, 7)).save(tmp_path / "pool" / "thin.png")
    code, output = validate({"model": {"base": "base"}, "data": {"path": "pool"}})
    assert code == 2
    assert (
        "pool/train.jsonl:1: image 'thin.png': 1600 x 7 pixels: the model accepts an aspect ratio of at most 200"
        in output
    )


@pytest.mark.parametrize("base", ["hf://model", "gs://bucket/model", "file://relative", "https://host/model"])
def test_another_form_of_address_is_refused(validate, base):
    code, output = validate({"model": {"base": base}, "data": {"world": {}}})
    assert code == 2 and "spec.model.base: should be tiny, a folder, s3://bucket/prefix, file:///folder" in output


def test_demonstrations_of_this_machine_are_checked(validate, tmp_path):
    base_folders.write(tmp_path / "base")
    spec = {"model": {"base": "base"}, "data": {"world": {}}, "stages": {"sft": {"demonstrations": "mine.zip"}}}
    code, output = validate(spec)
    assert code == 0
    assert "note: spec.stages.sft.demonstrations: there is no mine.zip here, so they are not checked\n" in output
    (tmp_path / "mine.zip").write_text("no archive")
    code, output = validate(spec)
    assert code == 2 and output.startswith("gog: mine.zip: not a trajectory archive")
