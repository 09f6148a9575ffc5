"""Starts recipes: `python -m gog_recipes.runtime.launch [options of torchrun] -m gog_recipes.sft --config FILE`.

Without options of torchrun the recipe runs in this process. It takes seconds to import, and SIGTERM must end it then, too:
the first process of a container would ignore the signal, and elsewhere its code would count as a failure.

With options it is the same as `tune run` with torchrun's options, with two differences. It does not import torchtune, which
costs seconds before the first worker starts and again in each worker. And it exits as its first failed worker did: with 2
for invalid input, with 128 + n for signal n, where torchrun exits with 1 for everything and logs a traceback of its own.

SIGTERM is passed on to the workers, which get 30 seconds to save what they have done; then this process exits as an
interrupted stage does. A second SIGTERM in that time changes nothing. Before the workers have started it exits at once.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable
from types import FrameType

from gog_recipes.runtime import interruption

Handler = Callable[[int, FrameType | None], None]
"""Of a signal."""


def main(arguments: list[str]) -> int:
    """Runs a recipe, or its workers, to the end; returns the exit code."""
    signal.signal(signal.SIGTERM, _end)
    if arguments[:1] == ["-m"]:
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    api._terminate_process_handler = _once(api._terminate_process_handler)
    try:
        run.run(run.parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"launch: rank {rank} ended with {failure.exitcode}", file=sys.stderr, flush=True)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except api.SignalException as ended:
        return interruption.CODE if ended.sigval == signal.SIGTERM else 128 + int(ended.sigval)
    return 0


def _once(handler: Handler) -> Handler:
    """torchrun's handler, which raises, for the first SIGTERM only: raised while torchrun waits for its workers, a second
    exception would end it at once and leave them behind."""

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        handler(number, frame)

    return handle


def _end(number: int, _: FrameType | None) -> None:
    os._exit(interruption.CODE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
