"""Sources that are volumes of a pod: their addresses, and where readers find them."""

from __future__ import annotations

import json

import pytest

from gog import base_source, dataset_zip, mounts
from gog.errors import UserError
from gog.spec import StoreSpec

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("address", "volume"),
    [
        ("pvc://models", mounts.Claim("models")),
        ("pvc://models/qwen/7b", mounts.Claim("models", "qwen/7b")),
        ("oci://registry.example/team/model:1", mounts.Image("registry.example/team/model:1")),
        (f"oci://localhost:5000/model@{DIGEST}#models/a", mounts.Image(f"localhost:5000/model@{DIGEST}", "models/a")),
        ("hf://org/name", None),
        ("/models/m", None),
    ],
)
def test_an_address_names_a_folder_of_a_claim_or_of_an_image(address, volume):
    assert mounts.parse(address) == volume


@pytest.mark.parametrize(
    "address",
    [
        "pvc://",
        "pvc://Models",
        "pvc://models/../other",
        "pvc://models//a",
        "pvc://models/.hidden",
        "oci://image",
        "oci://registry/image@sha256:12",
        "oci://registry/image#../etc",
        "oci://registry/image name",
    ],
)
def test_an_address_that_could_lead_elsewhere_is_refused(address):
    with pytest.raises(UserError, match="is not an address of a volume"):
        mounts.parse(address)


def test_a_mounted_base_keeps_its_address_as_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv(mounts.VARIABLE, json.dumps({"pvc://models/m": str(tmp_path)}))
    found = base_source.fetch("pvc://models/m", options=StoreSpec(uri="s3://b"), target=tmp_path / "t")
    assert (found.folder, found.name) == (tmp_path, "pvc://models/m")


def test_a_base_that_was_fetched_before_is_recorded_with_its_commit(monkeypatch, tmp_path):
    pinned = "hf://org/name@" + "a" * 40
    (tmp_path / mounts.RECORD).write_text(json.dumps({"resolved": pinned}))
    monkeypatch.setenv(mounts.VARIABLE, json.dumps({"hf://org/name": str(tmp_path)}))
    found = base_source.fetch("hf://org/name", options=StoreSpec(uri="s3://b"), target=tmp_path / "t")
    assert (found.folder, found.name) == (tmp_path, pinned)


def test_a_mounted_dataset_is_read_in_place(monkeypatch, tmp_path):
    monkeypatch.setenv(mounts.VARIABLE, json.dumps({"s3://bucket/pool": str(tmp_path)}))
    assert dataset_zip.fetch_dataset("s3://bucket/pool", None, tmp_path / "elsewhere") == tmp_path


def test_a_volume_that_is_not_mounted_is_refused_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv(mounts.VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"pvc://models/m.*only a pod has.*run on a cluster"):
        base_source.fetch("pvc://models/m", options=StoreSpec(uri="s3://b"), target=tmp_path / "t")
