"""The settings of a store job: one YAML file for each command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError

from gog import validation
from gog.errors import UserError
from gog.spec import RetentionSpec, Spec, StoreSpec, WorldSpec


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
    objects: tuple[dict[str, Any], ...] = Field(description="The run, its stages and endpoints, as documents.")
    events: tuple[dict[str, Any], ...] = Field((), description="Events of these objects, in order.")


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
