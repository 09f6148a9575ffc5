"""SIGTERM: before a stage works it ends at once; while it works it saves what it has done and ends as interrupted."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

from gog_recipes.runtime.interruption import Interruption

PROGRAM = """
import asyncio, os, signal, sys
from gog_recipes.runtime import config, interruption

async def work():
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await interruption.PROCESS.race(asyncio.sleep(600))
    finally:
        print("saved", flush=True)

def main():
    with interruption.PROCESS.deferred():
        asyncio.run(work())

config.exit_with(main)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def test_a_stage_that_works_saves_and_ends_as_interrupted() -> None:
    done = run(PROGRAM)
    assert (done.returncode, done.stdout) == (130, "saved\n")
    assert done.stderr == "interrupted: the next attempt resumes from the last checkpoint\n"


def test_a_stage_that_has_not_begun_to_work_ends_at_once() -> None:
    done = run(PROGRAM.replace("with interruption.PROCESS.deferred():", "if True:"))
    assert (done.returncode, done.stdout) == (130, "")


def test_a_second_request_ends_it_at_once() -> None:
    hung = PROGRAM.replace('print("saved", flush=True)', "os.kill(os.getpid(), signal.SIGTERM); print('never')")
    done = run(hung)
    assert (done.returncode, done.stdout) == (130, "")


def test_a_request_of_another_rank_is_no_first_sigterm() -> None:
    asked = PROGRAM.replace("    os.kill(", "    interruption.PROCESS.request(); os.kill(")
    done = run(asked)
    assert (done.returncode, done.stdout) == (130, "saved\n")


def test_a_request_ends_a_wait() -> None:
    async def wait() -> None:
        interruption = Interruption()
        asyncio.get_running_loop().call_soon(interruption.request)
        await interruption.sleep(600)
        await interruption.sleep(600)  # later ones too

    asyncio.run(asyncio.wait_for(wait(), 30))


def test_work_that_ended_before_the_request_counts() -> None:
    async def play() -> int:
        interruption = Interruption()

        async def work() -> int:
            interruption.request()
            return 7

        return await interruption.race(work())

    assert asyncio.run(play()) == 7


def test_the_handler_is_installed_by_the_main_thread_only_and_only_while_the_stage_runs() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def look() -> None:
        with Interruption().installed():
            inside.append(signal.getsignal(signal.SIGTERM))

    asyncio.run(asyncio.to_thread(look))
    look()
    assert inside[0] is before is signal.getsignal(signal.SIGTERM) and inside[1] is not before
