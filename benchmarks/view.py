"""Measures the time until `gog view` shows the first page of 100,000 trajectories.

    python benchmarks/view.py [--run runs/world] [--trajectories 100000] [--repeats 5]

The evaluated trajectories of a finished run are duplicated under other names, in fifty checkpoints of one store. `gog
view` runs in a process of its own with an empty cache, and Chromium opens its page. The measurement starts at the
request of the page and ends when a trajectory is drawn. It is made in a fresh browser and again in the same one, both
during and after indexing. The duration of indexing and the cost of filters are also measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import outcome

from gog import store, trajectory_zip

HERE = Path(__file__).parent
CHECKPOINTS = 50
GOAL = 1.0
"""Seconds until the first page."""
FILTERS = {"policy error": "trouble=error", "a word": "text=red", "most tool calls first": "sort=calls&down=1"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def made(run: Path, count: int, folder: Path) -> None:
    """A store of `count` trajectories."""
    kept = store.Store(run / "store")
    newest = kept.latest("evaluate")
    assert newest is not None, f"{run} has evaluated nothing"
    kept.fetch(newest, folder / "source")
    source = trajectory_zip.Archive(folder / "source" / "trajectories.zip")
    given = source.trajectories()
    images = {image: source.image(image) for each in given for image in trajectory_zip.shown(each) if source.png(image)}
    target, size = store.Store(folder / "store"), count // CHECKPOINTS
    for step in range(1, CHECKPOINTS + 1):
        some = [given[(step * size + number) % len(given)] for number in range(size)]
        named = [
            each.model_copy(update={"question_id": f"{each.question_id}-{step}-{n}"}) for n, each in enumerate(some)
        ]
        path = folder / "trajectories.zip"
        trajectory_zip.write(path, named, images)
        target.publish("evaluate", step, {"trajectories.zip": path})


@contextlib.contextmanager
def viewer(folder: Path, cache: Path) -> Iterator[str]:
    """The address that `gog view` prints."""
    command = [sys.executable, "-m", "gog_console", "view", str(folder / "store")]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=root)
        yield launched
        launched.close()


def first_page(context: Any, address: str) -> float:
    page = context.new_page()
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(".detail article")
    seconds = time.perf_counter() - started
    page.close()
    return seconds


def pages(address: str, repeats: int) -> dict[str, list[float]]:
    """Seconds until the first page in a fresh browser, and in one that has opened the page before."""
    fresh, warm = [], []
    for _ in range(repeats):
        with browser() as launched:
            context = launched.new_context(viewport={"width": 1280, "height": 860})
            fresh.append(first_page(context, address))
            warm.append(first_page(context, address))
    return {"fresh browser": fresh, "same browser": warm}


def timed_get(address: str, path: str) -> tuple[float, Any]:
    """Duration in seconds and response of an API request of the page, sent with its cookie."""
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    opener.open(address).read()
    started = time.perf_counter()
    answer = json.load(opener.open(address.partition("/?")[0] + path))
    return time.perf_counter() - started, answer


def indexed(address: str) -> None:
    while timed_get(address, "/api/run")[1]["busy"]:
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=HERE.parent / "runs" / "world")
    parser.add_argument("--trajectories", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if CHROMIUM is None:
        print("Chromium is not installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gog-view-") as name:
        folder = Path(name)
        made(given.run, given.trajectories, folder)
        with viewer(folder, folder / "cache") as address:
            started = time.perf_counter()
            early = pages(address, 1)
            indexed(address)
            index_seconds = time.perf_counter() - started
        with viewer(folder, folder / "cache") as address:
            indexed(address)
            late = pages(address, given.repeats)
            filters = {
                title: statistics.median(timed_get(address, f"/api/list?{query}")[0] for _ in range(given.repeats))
                for title, query in FILTERS.items()
            }
            total = timed_get(address, "/api/run")[1]["total"]
    found = {
        "trajectories": total,
        "index_seconds": round(index_seconds, 1),
        "first_page_while_indexing_seconds": {title: round(each[0], 3) for title, each in early.items()},
        "first_page_seconds": {title: round(statistics.median(each), 3) for title, each in late.items()},
        "first_page_slowest_seconds": {title: round(max(each), 3) for title, each in late.items()},
        "filter_seconds": {title: round(seconds, 3) for title, seconds in filters.items()},
        "load_average": round(os.getloadavg()[0], 1),
    }
    for title, value in found.items():
        print(f"{title:<36}{value}")
    goals = {f"first page < {GOAL:g} s": found["first_page_seconds"]["fresh browser"] < GOAL}
    return outcome.finish("view", found, goals)


if __name__ == "__main__":
    sys.exit(main())
