"""TorchX components: how a stage's process is laid out, once for every scheduler.

    torchx run -s local_cwd gog_recipes.runtime.components:stage --kind sft --config stage.yaml -- epochs=1
    torchx run --workspace= -s kubernetes -cfg queue=default,reserved_millicpu=0,reserved_memmb=0 gog_recipes.runtime.components:stage \\
        --kind sft --image gog-trainer --nodes 2 --config /etc/gog/config.yaml --env HOME=/tmp -- store.uri=s3://b/p

A stage is one role called `trainer` (without a hyphen, because Volcano makes environment variables of role names) that
calls `gog stage KIND --config FILE key=value`, which merges the preset with the file and replaces itself with the
recipe. With several processes torchrun's options are passed the same way, and ranks rendezvous at replica 0. Secrets, mounts
and other parts of a pod that TorchX cannot express are added by the operator.
"""

import shlex  # no deferred annotations here: TorchX reads the types of the arguments below

from torchx import specs

PORT = 29500
PATIENCE = 900
"""Seconds of the rendezvous of all replicas. Pods of a gang start together, but a node may pull the image for minutes, and a new
pod's name takes time to reach the others' DNS; torchrun's own default of a minute is too short."""


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
    env: dict[str, str] | None = None,
    *overrides: str,
) -> specs.AppDef:
    """One stage of a run.

    Args:
        kind: curate, sft, stratify, grpo or evaluate
        config: path of the stage's configuration, as the processes see it
        name: name of the job; default: the kind
        image: image of the trainer; ignored on one machine
        program: command that runs gog there
        nodes: replicas of the role
        processes: processes on each of them
        cpu: cores of a replica; -1 for no limit
        gpu: GPUs of a replica
        memory_mb: memory of a replica in MiB; -1 for no limit
        env: environment of the processes
        overrides: settings as key=value, which win over the file
    """
    entrypoint, *first = shlex.split(program)
    role = specs.Role(
        name="trainer",
        image=image,
        entrypoint=entrypoint,
        args=[*first, "stage", kind, *_torchrun(nodes, processes), "--config", config, *overrides],
        env=dict(env or {}),
        num_replicas=nodes,
        resource=specs.Resource(cpu=cpu, gpu=gpu, memMB=memory_mb),
        max_retries=0,
    )
    return specs.AppDef(name=name or kind, roles=[role])


def _torchrun(nodes: int, processes: int) -> list[str]:
    """torchrun's options; none for a single process, which runs without torchrun."""
    if nodes == 1 and processes == 1:
        return []
    line = [f"--nnodes={nodes}", f"--nproc_per_node={processes}"]
    if nodes > 1:
        host = f"$${specs.macros.rank0_env}"  # TorchX leaves `$NAME`, which `gog stage` expands
        # Static, because progress is read from replica 0, which must be rank 0: c10d numbers replicas arbitrarily.
        line += ["--rdzv_backend=static", f"--node_rank={specs.macros.replica_id}", f"--rdzv_endpoint={host}:{PORT}"]
        line += [f"--rdzv_id={specs.macros.app_id}", f"--rdzv_conf=timeout={PATIENCE}"]
    return line
