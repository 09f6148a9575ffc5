"""TorchX components: how a stage's process is laid out, once for every scheduler.

    torchx run gog_recipes.components:stage sft --config final.yaml

A stage is one role called `trainer` (no hyphen: Volcano makes environment variables of role names) that calls
`gog stage KIND --config FILE`, which lays the preset under the file and becomes `tune run`. With several processes the
torchrun options go the same way, and ranks meet at replica 0.
"""

from __future__ import annotations

import shlex

from torchx import specs


def stage(
    kind: str,
    config: str,
    name: str = "",
    image: str = "gog-trainer",
    program: str = "gog",
    nodes: int = 1,
    processes: int = 1,
    cpu: int = -1,
    gpu: int = 0,
    memory_mb: int = -1,
) -> specs.AppDef:
    """One stage of a run.

    Args:
        kind: curate, sft, stratify, grpo or evaluate
        config: path of the stage's configuration, as the processes see it
        name: name of the job; default: the kind
        image: image of the trainer; ignored on one machine
        program: how gog is called there
        nodes: replicas of the role
        processes: processes on each of them
        cpu: cores of a replica; -1 for no limit
        gpu: GPUs of a replica
        memory_mb: memory of a replica in MiB; -1 for no limit
    """
    entrypoint, *first = shlex.split(program)
    role = specs.Role(
        name="trainer",
        image=image,
        entrypoint=entrypoint,
        args=[*first, "stage", kind, *_torchrun(nodes, processes), "--config", config],
        num_replicas=nodes,
        resource=specs.Resource(cpu=cpu, gpu=gpu, memMB=memory_mb),
        max_retries=0,
    )
    return specs.AppDef(name=name or kind, roles=[role])


def _torchrun(nodes: int, processes: int) -> list[str]:
    """torchrun's options; none for a single process, which then runs without torchrun."""
    if nodes == 1 and processes == 1:
        return []
    line = [f"--nnodes={nodes}", f"--nproc_per_node={processes}"]
    if nodes > 1:
        host = f"$${specs.macros.rank0_env}"  # TorchX leaves `$NAME`, which `gog stage` looks up
        line += ["--rdzv_backend=c10d", f"--rdzv_endpoint={host}:29500", f"--rdzv_id={specs.macros.app_id}"]
    return line
