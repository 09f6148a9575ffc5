"""The TorchX component, run by hand and compiled for Volcano."""

from __future__ import annotations

import pytest
from torchx.runner import Runner
from torchx.schedulers import kubernetes_scheduler
from torchx.specs.builders import materialize_appdef

from gog_console.commands import stage as stage_command
from gog_recipes.runtime import components

BY_HAND = ["--kind", "sft", "--image", "trainer:1", "--config", "/c.yaml", "--env", "HOME=/tmp,A=b"]


def test_settings_after_two_hyphens_are_passed_to_gog_stage():
    (role,) = materialize_appdef(components.stage, [*BY_HAND, "--", "epochs=1", "lora.rank=4"]).roles
    assert [role.entrypoint, *role.args] == ["gog", "stage", "sft", "--config", "/c.yaml", "epochs=1", "lora.rank=4"]
    assert role.env == {"HOME": "/tmp", "A": "b"} and role.image == "trainer:1"


@pytest.mark.parametrize(("replica", "leader"), [(0, "localhost"), (1, "world-sft-trainer-0-0.world-sft")])
def test_each_replica_of_a_volcano_job_gets_its_rank_and_the_address_of_replica_0(replica, leader, monkeypatch):
    app = materialize_appdef(components.stage, [*BY_HAND, "--nodes", "2"])
    runner = Runner("test", {"kubernetes": lambda name, **_: kubernetes_scheduler.KubernetesScheduler(name, client=1)})
    info = runner.dryrun(app, "kubernetes", {"queue": "default", "validate_spec": False})
    command = info.request.resource["spec"]["tasks"][replica]["template"].spec.containers[0].command
    monkeypatch.setenv("TORCHX_RANK0_HOST", "localhost")
    monkeypatch.setenv("VC_TRAINER_0_HOSTS", "world-sft-trainer-0-0.world-sft")
    _, torchrun = stage_command.sort(command[command.index("sft") + 1 : command.index("--config")])
    assert f"--node_rank={replica}" in torchrun and f"--rdzv_endpoint={leader}:29500" in torchrun
