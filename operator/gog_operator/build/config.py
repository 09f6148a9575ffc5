"""A stage object -> its recipe's configuration, as YAML.

The recipe reads the model family's preset first and overrides it with this file. So the file holds only what the user
set, and what only the control plane knows: URLs of tools, the location of the dataset, the scratch folder. Its keys are
snake_case, as in all recipe configurations.
"""

from __future__ import annotations

from typing import Any

from gog import spec as settings
from gog.tracing import ids
from gog_operator.api.lifecycle import Lifecycle
from gog_operator.api.objects import Stage

RECIPE_KEYS = {"component": "_component_", "asynchronous": "async"}
"""Keys of recipes by the names of fields, where those differ."""


def render(
    stage: Stage, *, data: settings.DataSpec, endpoints: dict[str, str], judge_model: str = "", workdir: str
) -> dict[str, Any]:
    """The configuration as a dict, ready for YAML.

    Args:
        stage: The stage.
        data: Where the dataset is.
        endpoints: URL of each tool, by role.
        judge_model: Model to request from the judge's server; empty for its only one.
        workdir: Scratch folder.
    """
    body = stage.spec.model_dump(mode="json", exclude_unset=True, exclude=set(Lifecycle.model_fields))
    body |= {
        "stage": stage.store_key,
        "data": data.model_dump(mode="json", exclude_none=True),
        "endpoints": endpoints,
        "workdir": workdir,
    }
    if judge_model:
        body["judge_model"] = judge_model
    body.setdefault("run", stage.name[:40].rstrip("-"))
    body.setdefault("seed", stage.spec.seed)
    body.setdefault("inputs", {})
    if stage.spec.traces is not None:
        body["traces"] = {"traceparent": ids.root(root_uid(stage)).traceparent, **body["traces"]}
        body["traces"]["attempt"] = stage.status.attempt
    return recipe_keys(body)


def root_uid(stage: Stage) -> str:
    """uid of the run that owns the stage, or the stage's own uid where no run does."""
    return next((each.uid for each in stage.metadata.owner_references if each.kind == "GoGRun"), stage.metadata.uid)


def recipe_keys(value: Any) -> Any:
    """A value with its keys as recipes write them, some of which are no names of Python."""
    if isinstance(value, dict):
        return {RECIPE_KEYS.get(key, key): recipe_keys(each) for key, each in value.items()}
    return value
