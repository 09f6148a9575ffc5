"""The program behind `gog estimate`: a request as JSON in a file, the estimate as JSON on standard output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers

from gog import base_model, base_source
from gog.base_model import json_file
from gog.errors import UserError
from gog_recipes import world
from gog_recipes.estimate import published, report
from gog_recipes.estimate.request import Request
from gog_recipes.runtime import config


def configuration(model: str) -> tuple[str, Mapping[str, Any]]:
    """Name and config.json of a base model: of a folder, else of the published model that it is named after.

    Raises:
        UserError: it is neither, or the file is not usable.
    """
    folder = world.TINY if model == "tiny" else base_source.local(model)
    if folder is not None and (folder / base_model.CONFIG).is_file():
        return model, json_file.read(folder / base_model.CONFIG, folder, "model.base")
    name = published.name_of(model)
    if name is None:
        raise UserError(
            f"{model} is neither a folder with a config.json nor named after a known model",
            where="model.base",
            remedy=f"name a folder, or one of {', '.join(published.CONFIGS)} with --model",
        )
    return name, published.CONFIGS[name]


@contextlib.contextmanager
def output_apart() -> Iterator[None]:
    """What libraries print goes to standard error, because standard output is the answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def main() -> None:
    request = Request.model_validate_json(Path(sys.argv[1]).read_bytes())
    transformers.logging.set_verbosity_error()
    with output_apart():
        name, found = configuration(request.model)
        answer = report.estimate(request, name, found, lambda line: print(line, flush=True))
    print(answer.model_dump_json())


if __name__ == "__main__":
    config.exit_with(main)
