"""A recipe's configuration and its exit code.

The configuration is torchtune's YAML with `key=value` overrides, read into the typed specification. torchtune's own
parser costs ten seconds of imports, so it is used where torch is needed anyway; this one reads the same command line
with OmegaConf alone. Either way the recipe gets a validated pydantic model: an unknown or misspelt key is refused
before anything starts.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from gog import validation
from gog.errors import ServiceDown, UnreadableImage, Unwritable, UserError, is_storage_outage, unwritable
from gog.spec import StageConfig
from gog.store import Unavailable
from gog_recipes.runtime import interruption, termination

Config = TypeVar("Config", bound=StageConfig)
FAILED, INVALID_INPUT, INTERRUPTED = 1, 2, interruption.CODE
"""Exit codes of a stage that did not complete. 1 is retried by the control plane; 2 is not, because the same input would
fail again; 130 is an interrupted attempt, which a resume continues."""


def typed(kind: type[Config], values: Mapping[str, Any] | Any, *, where: str = "configuration") -> Config:
    """The configuration of a stage.

    Args:
        kind: its class
        values: a mapping or an OmegaConf node
        where: where the values come from, for messages

    Raises:
        UserError: naming field and cause and, for a misspelt name, the likely one.
    """
    plain = OmegaConf.to_container(values, resolve=True) if OmegaConf.is_config(values) else dict(values)
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        sentence = validation.first_sentence(error)
        raise UserError(sentence, where=where, remedy=_suggest(kind, error.errors()[0])) from None


def _suggest(kind: type[StageConfig], fault: Any) -> str:
    if fault["type"] != "extra_forbidden" or len(fault["loc"]) != 1:
        return ""
    near = difflib.get_close_matches(str(fault["loc"][0]), kind.model_fields, 1)
    return f"did you mean {near[0]}?" if near else f"{kind.kind} has no such setting"


def from_command_line(kind: type[Config], arguments: list[str]) -> Config:
    """The configuration of a stage from `--config FILE key=value …`. Raises UserError."""
    parser = argparse.ArgumentParser(description=f"the {kind.kind} recipe")
    parser.add_argument("--config", required=True, type=Path, help="YAML file")
    parser.add_argument("overrides", nargs="*", help="key=value")
    given = parser.parse_args(arguments)
    try:
        file = OmegaConf.load(given.config)
        return typed(kind, OmegaConf.merge(file, OmegaConf.from_dotlist(given.overrides)), where=str(given.config))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(given.config)) from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0], where=str(given.config)) from None


def exit_with(main: Callable[[], None]) -> None:
    """Runs a recipe and exits with its code; see docs/runbooks.md, "How a stage ends".

    What the user must change becomes one line and INVALID_INPUT. What may have passed by the next attempt (a tool, the
    judge or the store is down, a disk is full or fails) becomes one line and FAILED. SIGTERM and SIGINT become INTERRUPTED;
    after SIGTERM the stage first saves what it has done. Any other error is a bug and keeps its traceback. In a pod the
    reason is left as the termination message, too.
    """
    with interruption.PROCESS.installed():
        _run(main)


def _run(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        if isinstance(error, Unwritable) and error.may_pass:
            _exit("failed", error.sentence(), FAILED)
        _exit("error", error.sentence(), INVALID_INPUT)
    except ServiceDown as error:
        _exit("failed", f"{error} (the stage's next attempt resumes from its last checkpoint)", FAILED)
    except (Unavailable, UnreadableImage) as error:
        _exit("failed", str(error), FAILED)
    except (KeyboardInterrupt, interruption.Interrupted):
        _exit("interrupted", "the next attempt resumes from the last checkpoint", INTERRUPTED)
    except Exception as error:
        if not is_storage_outage(error):
            termination.leave_reason(f"{type(error).__name__}: {error}")
            raise
        _exit("failed", _of_storage(error), FAILED)
    sys.exit(0)


def _of_storage(error: Exception) -> str:
    """The sentence about an error of a disk, which some libraries raise as one of their own."""
    found = error if isinstance(error, OSError) else OSError(str(error))
    return unwritable(
        found, found.filename or "the stage's files", remedy="see to its volume, then `gog resume`"
    ).sentence()


def _exit(outcome: str, sentence: str, code: int) -> None:
    print(f"{outcome}: {sentence}", file=sys.stderr, flush=True)
    termination.leave_reason(f"{outcome}: {sentence}")
    sys.exit(code)
