"""Back ends of the tool servers: found by name, configured by options.

What a server does (find boxes, search, give verdicts, write completions) is the work of one object, its back end. The
server around it owns HTTP, batches, limits and error forms, so a back end is one file that knows none of these. It is
chosen by `--backend NAME` or `--backend module:factory`, and configured by `--options` with a JSON object.

How to add a back end:

1. Write a class with the methods of the role's protocol: `grounding.backend.Detector`, `search.backend.ImageSearch` or
   `TextSearch`, `judge.backend.Judge`, `gog.completions.Model`. The protocol describes arguments and results.
2. Give its constructor typed parameters. A parameter named like one of the role's resources (`resources_of`) receives it;
   every other one is an option, checked against its annotation before the constructor runs:

       class Clip:
           def __init__(self, data: Path, *, model: str, top: Annotated[int, Field(ge=1)] = 5) -> None: ...

3. Start it as `--backend my_package.clip:Clip --options '{"model": "ViT-B-32"}'`; the module must be importable in the
   server's image. A back end of this project gets a name in gog.catalog instead, and its test.

How a back end fails: `UserError` is a fault of the request (400, not retried); `gog_tools.serving.errors.Unavailable` is
a fault that passes (503, retried by the client); `AuthFailed`, `NoCredit`, `RateLimited` and `Refused` of the same module
are what a vendor answered; anything else is a fault of the back end (500). Messages reach the client and may be
recorded, so they must hold no secrets. A secret comes from the environment, never from an option,
because options are part of the command line.

Threads: all calls come from one thread unless the class sets `threads` to more; the constructor runs in another one.
`max_batch` sets the most items in a call. A back end that waits for a remote service sets `max_batch = 1` and
`threads` to the number of calls that may be under way.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import operator
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from gog import catalog
from gog.errors import UserError
from gog_tools.serving import http_json, option_faults

NAMES = {server.command: server.backends for server in catalog.SERVERS}
"""`module:factory` of each back end, by role and name."""

RESOURCES = {
    "data": "folder of the dataset that --data names (pathlib.Path)",
    "scratch": "empty folder that is removed when the server ends (pathlib.Path)",
    "fetch_model": "finds the folder of a model by its name: a folder, file://, s3:// or hf:// "
    "(collections.abc.Callable[[str], pathlib.Path])",
    "store_options": "how s3:// addresses are read; None: as the environment says (gog.spec.StoreSpec | None)",
}
"""What every server passes to a back end that has a parameter of this name."""
POLICY_RESOURCES = {
    "folder": "folder of the base model (pathlib.Path)",
    "device": "torch device (str)",
    "dtype": "type of the weights, float32 or bfloat16 (str)",
    "pixels": "bounds of the size of images (gog.spec.PixelBounds)",
}
"""What the policy server passes besides. In other roles these names are options."""


IS_LOCAL = "local path"
"""Marks, in an annotation, an option that may name a file or folder; an option of type pathlib.Path needs no mark."""
LocalPath = Annotated[str, Field(min_length=1, max_length=1_024), IS_LOCAL]
"""An option with the path of a file or folder, or an address."""


def load(role: str, name: str, options: str, protocol: type[Any], resources: Mapping[str, Callable[[], Any]]) -> Any:
    """Creates the back end of a server.

    Args:
        role: a key of NAMES
        name: a key of NAMES[role], or `module:factory`
        options: a JSON object with values for the factory's parameters that are not resources
        protocol: what the back end must have; a runtime-checkable Protocol
        resources: makes each resource that this server can provide, by name; called for the factory's parameters only

    Returns:
        The back end, an instance of protocol.

    Raises:
        UserError: for a back end that cannot be found, an option that does not fit, or an object without the
            protocol's methods; also what the factory itself raises.
    """
    factory = find(role, name)
    parameters = _parameters(factory, name)
    known = resources_of(role)
    settings = _options(_choices(parameters, role), name, options)
    backend: Any = factory(**_provided(parameters, name, known, resources), **settings)
    if not isinstance(backend, protocol):
        raise UserError(
            f"{type(backend).__name__} is not a {protocol.__name__}",
            where=f"--backend {name}",
            remedy=f"give it the methods of {protocol.__module__}.{protocol.__name__}",
        )
    return backend


def find(role: str, name: str) -> Callable[..., Any]:
    """The factory of a back end. Raises UserError for one that cannot be found."""
    module, _, attribute = NAMES[role].get(name, name).partition(":")
    remedy = f"give one of {', '.join(NAMES[role])}, or module:factory"
    try:
        if not attribute:
            raise ValueError("it is neither a known name nor module:factory")
        return cast("Callable[..., Any]", operator.attrgetter(attribute)(importlib.import_module(module)))
    except ModuleNotFoundError as error:
        if name in NAMES[role]:
            remedy = "install gog[recipes] and gog[tools], or use the trainer's image"
        raise UserError(f"no back end {name!r}: {error}", where="--backend", remedy=remedy) from None
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"no back end {name!r}: {error}", where="--backend", remedy=remedy) from None


def describe(role: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is known about options of a back end, which is not created. Plain JSON.

    Args:
        role: a key of NAMES
        name: a key of NAMES[role], or `module:factory`
        options: values for the factory's parameters that are not resources

    Returns:
        `missing`: why the back end cannot be found here, empty if it can; `problems`: dotted name, fault and remedy of each
        option that does not fit; `local`: names of the options that may name a file or folder.
    """
    try:
        fields = _choices(_parameters(find(role, name), name), role)
        _adapter(fields).validate_python(options)
    except UserError as error:
        return {"missing": error.what, "problems": [], "local": []}
    except ValidationError as error:
        wrong = option_faults.explain(error, fields, name)
    else:
        wrong = []
    return {"missing": "", "problems": wrong, "local": [key for key, each in fields.items() if _is_local(each)]}


def _is_local(annotation: Any) -> bool:
    return annotation in (IS_LOCAL, Path) or any(map(_is_local, option_faults.parts(annotation)))


def _choices(parameters: Mapping[str, inspect.Parameter], role: str) -> dict[str, Any]:
    """Annotations of the parameters that are options."""
    known = resources_of(role)
    return {key: _field(each) for key, each in parameters.items() if key not in known}


def _parameters(factory: Callable[..., Any], name: str) -> dict[str, inspect.Parameter]:
    """The factory's parameters by name, with their annotations evaluated."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (ValueError, TypeError, NameError) as error:
        raise UserError(f"cannot read the factory's parameters: {error}", where=f"--backend {name}") from None
    return {key: value for key, value in signature.parameters.items() if value.kind not in variadic}


def resources_of(role: str) -> Mapping[str, str]:
    """Descriptions of the resources of a role, by name."""
    return {**RESOURCES, **(POLICY_RESOURCES if role == "policy" else {})}


def _provided(
    parameters: Mapping[str, inspect.Parameter],
    name: str,
    known: Mapping[str, str],
    resources: Mapping[str, Callable[[], Any]],
) -> dict[str, Any]:
    """The resources among the factory's parameters. One that is missing is an error unless it has a default."""
    wanted = [each for each in parameters if each in known]
    for each in wanted:
        if each not in resources and parameters[each].default is inspect.Parameter.empty:
            raise UserError(f"needs {each}: {known[each]}", where=f"--backend {name}", remedy=f"give --{each}")
    return {each: resources[each]() for each in wanted if each in resources}


def _options(fields: dict[str, Any], name: str, text: str) -> dict[str, Any]:
    """The values of --options, checked against the annotations of the parameters that are options."""
    try:
        return dict(_adapter(fields).validate_python(http_json.parse(text.encode())))
    except UserError as error:
        raise UserError(error.what, where="--options", remedy="give one JSON object") from None
    except ValidationError as error:
        path, what, remedy = option_faults.explain(error, fields, name)[0]
        raise UserError(what, where=f"--options {path}".rstrip(), remedy=remedy) from None


def _adapter(fields: dict[str, Any]) -> TypeAdapter[Any]:
    typed_dict: Any = TypedDict  # type checkers accept literal fields only
    kind = typed_dict("Options", fields)
    kind.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    return TypeAdapter(kind)


def _field(parameter: inspect.Parameter) -> Any:
    empty = inspect.Parameter.empty
    annotation = Any if parameter.annotation is empty else parameter.annotation
    return annotation if parameter.default is empty else NotRequired[annotation]


def add_arguments(parser: argparse.ArgumentParser, role: str) -> None:
    """Adds --backend, --options and --data."""
    names = list(NAMES[role])
    parser.add_argument("--backend", default=names[0], help=f"{', '.join(names)}, or module:factory")
    parser.add_argument("--options", default="{}", metavar="JSON", help="options of the back end, a JSON object")
    parser.add_argument(
        "--data", help="dataset for a back end that reads one: a folder or an s3:// address of the store"
    )


if __name__ == "__main__":  # `describe` for a program that does not import back ends: arguments and result are JSON
    print(json.dumps(describe(*json.load(sys.stdin))))
