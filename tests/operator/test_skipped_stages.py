"""Stages that a manifest leaves out, and the checkpoints that the others then need."""

import pytest

from gog.errors import UserError
from gog_operator.api import manifest, yaml_reader

LEAST = """apiVersion: gog.dev/v1alpha1
kind: GoGRun
metadata: {name: w}
spec:
  model: {base: tiny}
  data: {world: {}}
"""


def read(stages):
    text = LEAST + "  stages: " + stages
    return manifest.check(yaml_reader.mapping(text, where="w.yaml"), where="w.yaml")


def refusal(stages):
    with pytest.raises(UserError) as caught:
        read(stages)
    return str(caught.value)


def test_curate_can_be_skipped_when_the_manifest_names_demonstrations():
    skipping = "{skip: [curate], sft: {demonstrations: %s}}"
    assert read(skipping % "mine.zip").spec.stages.skip == ("curate",)
    assert "curate is skipped, but sft starts from its checkpoint" in refusal(skipping % "null")


def test_an_evaluation_alone_needs_no_checkpoint_of_a_policy_that_has_none():
    alone = (
        "{skip: [curate, sft, stratify, grpo], evaluate: {policies: [%s], endpoint: {url: 'http://m/v1', model: m}}}"
    )
    assert read(alone % "prompted, endpoint").spec.stages.evaluate.policies == ("prompted", "endpoint")
    assert "sft is skipped, but evaluate starts from its checkpoint" in refusal(alone % "endpoint, direct")
