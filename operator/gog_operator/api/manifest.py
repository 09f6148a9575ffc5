"""A user's file -> a typed object, or one UserError that says everything wrong with it.

One document a file: a run is one object, and several in a file would leave open which of them `gog run` means. Keys
written twice are refused, because YAML would silently take the last. Besides the fields, what only makes sense together
is checked here: arms against the run they vary, skipped stages against those that need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, Field, ValidationError

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import arms, overrides, problems
from gog_operator.api.meta import API_VERSION, Metadata
from gog_operator.api.objects import KINDS, GoGRun, Object


class UserMetadata(Metadata):
    """Stricter than an object's: names of children are made from a user's."""

    name: settings.Name = Field(description="names the run and its folder")


def load(path: Path, sets: Sequence[str] = ()) -> Object:
    """Reads, changes by `path=value` sets, and checks. Raises UserError."""
    return check(read(path), where=str(path), sets=sets)


def read(path: Path) -> dict[str, Any]:
    """The one document of a YAML file. Raises UserError."""
    where = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such file", where=where, remedy="the path is relative to where gog is called") from None
    except IsADirectoryError:
        raise UserError("is a folder", where=where, remedy="name the manifest in it") from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=where, remedy="is this the manifest?") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from None
    return parse(text, where=where)


def parse(text: str, *, where: str) -> dict[str, Any]:
    try:
        documents = [each for each in yaml.load_all(text, _Loader) if each is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{line}not valid YAML: {error.problem}", where=where, remedy=_yaml_remedy(error)) from None
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {error}", where=where) from None
    if not documents:
        raise UserError("is empty", where=where, remedy="start from examples/world.yaml")
    if len(documents) > 1:
        raise UserError(f"holds {len(documents)} documents", where=where, remedy="one object a file")
    if not isinstance(documents[0], dict):
        raise UserError(f"is {problems.shown(documents[0])}, should be a mapping", where=where, remedy=_HEAD)
    return documents[0]


_HEAD = f"a manifest starts with apiVersion: {API_VERSION} and kind: GoGRun"


def check(document: dict[str, Any], *, where: str, sets: Sequence[str] = ()) -> Object:
    """The typed object of a document; its status, if it has one, is dropped, as a cluster would. Raises UserError."""
    document = {key: value for key, value in document.items() if key != "status"}
    for assignment in sets:
        document = overrides.apply(document, *overrides.parse(assignment))
    if document.get("apiVersion") != API_VERSION:
        given = "missing" if "apiVersion" not in document else f"is {document['apiVersion']}"
        raise UserError(given, where=f"{where}: apiVersion", remedy=f"write {API_VERSION}")
    kind = document.get("kind")
    if kind not in KINDS:
        given = "missing" if kind is None else f"is {problems.shown(kind)}"
        remedy = problems.guess(str(kind), list(KINDS)) if kind else "write GoGRun"
        raise UserError(given, where=f"{where}: kind", remedy=remedy)
    model = _user_model(KINDS[cast(str, kind)])
    try:
        model.model_validate(document)
        thing = KINDS[cast(str, kind)].model_validate(document)
    except ValidationError as error:
        raise problems.explain(error, model, where=where) from None
    if isinstance(thing, GoGRun):
        _check_run(thing, where)
    return thing


def _user_model(kind: type[Object]) -> type[BaseModel]:
    """The kind's model with the metadata that a user may write."""
    namespace = {"__annotations__": {"metadata": UserMetadata}, "__module__": __name__}
    return cast(type[BaseModel], type(kind.__name__, (kind,), namespace))


def _check_run(run: GoGRun, where: str) -> None:
    names = [arm.name for arm in run.spec.arms]
    for arm in run.spec.arms:
        if names.count(arm.name) > 1:
            raise UserError(f"two arms are called {arm.name}", where=f"{where}: spec.arms", remedy="rename one")
        if not arms.repeated(run.spec, arms.spec_of(run.spec, arm, where=f"{where}: spec.arms")):
            raise UserError("changes nothing", where=f"{where}: spec.arms: arm {arm.name}", remedy="remove it")
    _check_skips(run, where)


def _check_skips(run: GoGRun, where: str) -> None:
    """A skipped stage's checkpoint must come from somewhere: from a store that the user names."""
    skipped = run.spec.stages.skip
    if set(skipped) == set(settings.STAGES):
        raise UserError("every stage is skipped", where=f"{where}: spec.stages.skip", remedy="leave one in")
    if run.spec.store is not None:
        return
    for stage in settings.STAGES:
        for needed in settings.NEEDS[stage]:
            optional = stage == "evaluate" and needed == "grpo" and "grpo" not in _policies(run)
            optional = optional or (stage == "sft" and run.spec.stages.sft.demonstrations is not None)
            if needed in skipped and stage not in skipped and not optional:
                raise UserError(
                    f"{needed} is skipped, but {stage} starts from its checkpoint",
                    where=f"{where}: spec.stages.skip",
                    remedy=f"skip {stage} too, or name a spec.store that holds the checkpoint",
                )


def _policies(run: GoGRun) -> tuple[str, ...]:
    """The policies that evaluate is told to compare; without grpo when that is skipped and nothing was said."""
    evaluate = run.spec.stages.evaluate
    return evaluate.policies if "policies" in evaluate.model_fields_set else ()


def _yaml_remedy(error: yaml.MarkedYAMLError) -> str:
    return "indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""


class _Loader(yaml.SafeLoader):
    """Safe, and refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key} is written twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
