"""A stage object -> TorchX AppDef, by the component that the recipes ship.

The component is named by module, so that this package can be imported without the recipes. TorchX only compiles here;
names, retries and lifetimes are the operator's.
"""

from __future__ import annotations

import shlex
from typing import Any

COMPONENT = "gog_recipes.runtime.components:stage"


def compile_stage(
    kind: str,
    *,
    name: str,
    config: str,
    image: str = "",
    program: str = "gog",
    env: dict[str, str] | None = None,
    nodes: int = 1,
    processes: int = 1,
    gpu: int = 0,
) -> Any:
    """The AppDef of one stage.

    Args:
        kind: curate, sft, stratify, grpo or evaluate.
        name: of the job.
        config: path of the stage's configuration where the stage runs.
        image: of the trainer; "" on one machine.
        program: how `gog` is called where the stage runs.
        env: environment of its processes, besides what they inherit.
        nodes: pods.
        processes: per pod.
        gpu: GPUs per pod.

    Raises:
        Whatever TorchX raises for a component that cannot be found.
    """
    from torchx.specs import finder

    component = finder.get_component(COMPONENT)
    entrypoint, *first = shlex.split(program)  # TorchX reads no macros in the entry point
    app = component.fn(
        kind,
        config=literal(config),
        name=name,
        image=image,
        program=shlex.join([entrypoint, *map(literal, first)]),
        nodes=nodes,
        processes=processes,
        gpu=gpu,
    )
    for role in app.roles:
        role.env.update({key: literal(value) for key, value in (env or {}).items()})
    return app


def literal(text: str) -> str:
    """The text, escaped for TorchX, which expands templates in arguments and environment: `${app_id}` is a macro."""
    return text.replace("$", "$$")
