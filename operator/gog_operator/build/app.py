"""A stage object -> TorchX AppDef, by the component that the recipes ship.

The component is named by module string, so that this package needs no recipe installed to be imported. TorchX only
compiles here: names, retries and lifetimes are the operator's.
"""

from __future__ import annotations

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
    """The AppDef of one stage. kind: curate, sft, …; program: how `gog` is called there; nodes: pods; processes, gpu: of
    each. Raises what TorchX raises for a component that cannot be found."""
    from torchx.specs import finder

    component = finder.get_component(COMPONENT)
    app = component.fn(
        kind, config=config, name=name, image=image, program=program, nodes=nodes, processes=processes, gpu=gpu
    )
    for role in app.roles:
        role.env.update(env or {})
    return app
