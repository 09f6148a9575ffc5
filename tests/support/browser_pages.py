"""A page in a real Chromium, and a reader's hands on it."""

from __future__ import annotations

from pathlib import Path

import support.view_builders as viewers
from gog import store
from gog_console.viewer import sources
from gog_console.viewer.tokens import Vocabulary
from support.browser import wait_until


def visit(page, viewer, link: str = "") -> None:
    """Opens a viewer, as its printed address does, and waits for a trajectory."""
    page.goto(viewer.server.url + link)
    page.wait_for_selector(".detail article")


def current(page) -> str:
    return page.locator(".item.here").get_attribute("data-id")


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def opened(page, id: str) -> None:
    """Waits until a trajectory is the one that is open."""
    wait_until(page, "id => document.querySelector('.where a')?.href.endsWith(`/t/${id}`)", arg=id)


def one(tmp_path: Path, *made, reviews: Path | None = None, vocabulary: Vocabulary | None = None):
    """A viewer over a store of these trajectories."""
    kept = store.Store(tmp_path / "store")
    viewers.publish(kept, made, tmp_path)
    return viewers.viewing(sources.of_store(kept, "x"), tmp_path, reviews=reviews, vocabulary=vocabulary)
