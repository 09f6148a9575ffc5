"""What a store job is told: one YAML file for each command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError

from gog.errors import UserError
from gog.spec import RetentionSpec, Spec, StoreSpec, WorldSpec


class Check(Spec):
    store: StoreSpec
    keys: tuple[str, ...] = Field((), description="Stages' keys in the store.")
    verify: bool = Field(False, description="Look whether every file of the newest checkpoint is there and whole.")
    promote_to: StoreSpec | None = Field(None, description="Where a complete checkpoint is copied to.")
    retention: RetentionSpec | None = Field(None, description="Which checkpoints stay. Default: all.")


class Data(Spec):
    store: StoreSpec
    world: WorldSpec = WorldSpec()


class Report(Spec):
    store: StoreSpec
    objects: tuple[dict[str, Any], ...] = Field(description="The run, its stages and endpoints, as documents.")
    events: tuple[dict[str, Any], ...] = Field((), description="What happened, in order.")


Kind = TypeVar("Kind", bound=Spec)


def read(path: Path, kind: type[Kind]) -> Kind:
    """Raises UserError naming file and field."""
    try:
        body = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path)) from None
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {' '.join(str(error).split())}", where=str(path)) from None
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(first["msg"], where=f"{path}: {field}" if field else str(path)) from None


def _parsed(text: str) -> Any:
    """The operator writes JSON, which is read a hundred times as fast as other YAML."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)
