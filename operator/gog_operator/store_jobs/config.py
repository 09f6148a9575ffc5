"""The settings of a store job: one YAML file for each command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import AwareDatetime, Field, ValidationError

from gog import validation
from gog.errors import UserError
from gog.spec import GateSpec, RetentionSpec, Spec, StoreSpec, WorldSpec


class Check(Spec):
    """Settings of `gog move check`."""

    store: StoreSpec = Field(description="The run's store.")
    keys: tuple[str, ...] = Field((), description="Keys of stages in the store.")
    verify: bool = Field(False, description="Whether every file of the newest checkpoint is checked.")
    promote_to: StoreSpec | None = Field(None, description="Where complete checkpoints are copied. Default: nowhere.")
    retention: RetentionSpec | None = Field(None, description="Which checkpoints are kept. Default: all.")


class Data(Spec):
    """Settings of `gog move data`."""

    store: StoreSpec = Field(description="Where the dataset is published.")
    world: WorldSpec = Field(WorldSpec(), description="The embedded world to make.")


class Report(Spec):
    """Settings of `gog move report`."""

    store: StoreSpec = Field(description="Where the report is written, and the checkpoints are.")
    objects: tuple[dict[str, Any], ...] = Field(description="The run, its stages and ToolServers, as documents.")
    events: tuple[dict[str, Any], ...] = Field((), description="Events of these objects, in order.")


class Publish(Spec):
    """Settings of `gog move publish`."""

    store: StoreSpec = Field(description="The run's store.")
    target: StoreSpec = Field(description="The agent's store.")
    agent: str = Field(description="Name of the agent, and key of its versions.")
    run: str = Field(description="Name and uid of the run.")
    checkpoint: str = Field(description="The trained checkpoint: `grpo/60`.")
    policy: str = Field(description="Its name in the evaluation.")
    evaluation: str = Field(description="The evaluation's checkpoint.")
    served: str = Field("", description="Version that is served now. Default: none.")
    gate: GateSpec = Field(GateSpec(), description="What the evaluation must show.")


class Fetch(Spec):
    """Settings of `gog move fetch`."""

    store: StoreSpec = Field(description="The run's store, whose options hold for sources at s3://.")
    root: str = Field(description="Folder below which each source gets a folder.")
    base: str | None = Field(None, description="Base model, at hf:// or s3://. Default: none.")
    judge: str | None = Field(None, description="Model of the judge, of any type. Default: none.")
    data: str | None = Field(None, description="Dataset at hf://, or in a store at s3://. Default: none.")


class Erase(Spec):
    """Settings of `gog move erase`."""

    store: StoreSpec = Field(description="The run's store.")
    run: str = Field(description="Name of the run, as its checkpoints record it.")
    uid: str = Field(description="uid of the run, by which it is registered in the store.")
    since: AwareDatetime = Field(description="When the run was created; an older checkpoint is another's.")


Kind = TypeVar("Kind", bound=Spec)


def read(path: Path, kind: type[Kind]) -> Kind:
    """The settings in a file. Raises UserError naming file and field."""
    try:
        body = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path)) from None
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {' '.join(str(error).split())}", where=str(path)) from None
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        field, cause = validation.first_problem(error)
        raise UserError(cause, where=f"{path}: {field}" if field else str(path)) from None


def _parsed(text: str) -> Any:
    """Parses JSON, which the operator writes and which is a hundred times faster to parse, or YAML."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)
