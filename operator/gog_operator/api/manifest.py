"""A user's file -> a typed object, or one UserError that lists everything that is wrong with it.

What the API server accepts is accepted here, and what it refuses is refused, so that `gog validate` speaks for
`kubectl apply`: types are not converted, keys are camelCase, null means absent. Local folders are the exception: they
are valid for `gog run`, and `cluster_problems` lists what a cluster refuses. Beyond the API server, an arm's `set` is
checked against the run, and skipped stages against the stages that need them.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from gog import spec as settings
from gog import wording
from gog.errors import UserError
from gog_operator.api import arms, broken_rules, names, overrides, problems, strict, user_metadata, yaml_reader
from gog_operator.api.meta import API_VERSION
from gog_operator.api.objects import GoGRun, Object
from gog_operator.api.presets import ALL_KINDS
from gog_operator.api.user_metadata import UserMetadata


def load(path: Path, sets: Sequence[str] = ()) -> Object:
    """The object of a file.

    Args:
        path: The file.
        sets: Changes to it: `path=value`.

    Raises:
        UserError: the file cannot be read, or its object is not valid.
    """
    return check(yaml_reader.read(path), where=str(path), sets=sets)


def check(
    document: dict[str, Any], *, where: str, sets: Sequence[str] = (), rng: random.Random | None = None
) -> Object:
    """The typed object of a document. Its status is dropped, as the API server drops it.

    Args:
        document: The object as plain JSON values.
        where: Name of the document in errors.
        sets: Changes to it: `path=value`.
        rng: Source of the name where the document has only `metadata.generateName`; the system's by default.

    Raises:
        UserError: the object is not valid.
    """
    document = {key: value for key, value in document.items() if key != "status"}
    for assignment in sets:
        document = overrides.apply(document, *overrides.parse(assignment))
    document = strict.without_nulls(document)
    kind = _kind(document, where)
    metadata = _metadata(document, kind, where)
    if not metadata.name:
        metadata = metadata.model_copy(
            update={"name": names.generated(metadata.generate_name, rng or random.SystemRandom())}
        )
    head = metadata.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(user_metadata.READ))
    thing = strict.validate(ALL_KINDS[kind], {**document, "metadata": head})
    _refuse(broken_rules.broken(thing.spec, cluster=False), where)
    if isinstance(thing, GoGRun):
        _check_run(thing, where)
    return thing


def cluster_problems(thing: Object) -> tuple[UserError, ...]:
    """Why the API server would refuse an object that is valid on one machine; empty if it would not."""
    return tuple(UserError(message, where=path) for path, message in broken_rules.broken(thing.spec, cluster=True))


def _kind(document: dict[str, Any], where: str) -> str:
    if document.get("apiVersion") != API_VERSION:
        given = "missing" if "apiVersion" not in document else f"is {problems.shown(document['apiVersion'])}"
        raise UserError(given, where=f"{where}: apiVersion", remedy=f"write {API_VERSION}")
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in ALL_KINDS:
        given = "missing" if kind is None else f"is {problems.shown(kind)}"
        remedy = wording.guess(str(kind), list(ALL_KINDS)) if kind else "write GoGRun"
        raise UserError(given, where=f"{where}: kind", remedy=remedy)
    return kind


def _metadata(document: dict[str, Any], kind: str, where: str) -> UserMetadata:
    """The document's metadata; the spec is validated with it, so that one error lists all the problems."""
    document = {**document, "metadata": _without_empty(document.get("metadata"))}
    model = _user_model(ALL_KINDS[kind])
    try:
        metadata = cast(UserMetadata, cast(Any, strict.validate(model, document)).metadata)
    except ValidationError as error:
        raise problems.explain(error, model, where=where) from None
    user_metadata.check(
        metadata,
        where=f"{where}: metadata",
        longest=names.longest(kind),
        longest_prefix=names.longest_prefix(kind),
    )
    return metadata


def _without_empty(metadata: Any) -> Any:
    """Metadata without texts that are empty, which the API server takes for absent; {} where there is none."""
    if not isinstance(metadata, dict):
        return {} if metadata is None else metadata
    return {key: value for key, value in metadata.items() if value != ""}


@functools.cache
def _user_model(kind: type[Object]) -> type[BaseModel]:
    """The kind's model with the metadata that a user may write."""
    namespace = {"__annotations__": {"metadata": UserMetadata}, "__module__": __name__}
    return cast(type[BaseModel], type(kind.__name__, (kind,), namespace))


def _refuse(broken: Iterable[tuple[str, str]], where: str) -> None:
    """Raises UserError for the rules that are broken, if any."""
    found = [(path, message, "") for path, message in broken]
    if found:
        raise problems.joined(found, where=where)


def _check_run(run: GoGRun, where: str) -> None:
    """Checks the arms, and the skipped stages."""
    arm_names = [arm.name for arm in run.spec.arms]
    for arm in run.spec.arms:
        if arm_names.count(arm.name) > 1:
            raise UserError(f"two arms are called {arm.name}", where=f"{where}: spec.arms", remedy="rename one")
        if not arms.repeated(run.spec, arms.spec_of(run.spec, arm, where=f"{where}: spec.arms")):
            raise UserError("changes nothing", where=f"{where}: spec.arms: arm {arm.name}", remedy="remove it")
    _check_skips(run, where)


def _check_skips(run: GoGRun, where: str) -> None:
    """A stage that starts from the checkpoint of a skipped one needs a store that holds it."""
    skipped = run.spec.stages.skip
    if run.spec.store is not None:
        return
    for stage in settings.STAGES:
        for needed in settings.NEEDS[stage]:
            optional = stage == "evaluate" and not any(needed in settings.POLICIES[each] for each in _policies(run))
            optional = optional or (stage == "sft" and run.spec.stages.sft.demonstrations is not None)
            if needed in skipped and stage not in skipped and not optional:
                raise UserError(
                    f"{needed} is skipped, but {stage} starts from its checkpoint",
                    where=f"{where}: spec.stages.skip",
                    remedy=f"skip {stage} too, or name a spec.store that holds the checkpoint",
                )


def _policies(run: GoGRun) -> tuple[str, ...]:
    """The policies that evaluate compares. A skipped grpo is among them only if the manifest names it."""
    evaluate = run.spec.stages.evaluate
    named = "policies" in evaluate.model_fields_set
    return tuple(policy for policy in evaluate.policies if named or policy != "grpo")
