"""A real Chromium, and pages in it that must keep quiet. A conftest imports the fixtures that its tests use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from support.operator_builders import until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [], timeout=60_000
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser, request: pytest.FixtureRequest) -> Iterator:
    """A page of its own; at the end it must have been quiet and have kept to its server."""
    options = getattr(request, "param", {})
    context = browser.new_context(viewport={"width": 1280, "height": 860}, **options)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    said, requested = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: requested.append(request.url))
    opened.add_init_script("addEventListener('securitypolicyviolation', (e) => console.error('refused', e.blockedURI))")
    opened.expected = []  # what a test provokes on purpose
    yield opened
    places_asked = {urlsplit(url).netloc for url in requested if not url.startswith(("data:", "blob:"))}
    assert [line for line in said if not any(part in line for part in opened.expected)] == []
    assert len(places_asked) <= 1, places_asked
    context.close()


def wait_until(page, expression: str, arg: object = None) -> None:
    """Waits until a JavaScript expression or function is true in a page. Playwright's own wait evaluates a string in the page
    each time but the first, which our pages' policy forbids."""
    until(lambda: page.evaluate(expression, arg), 20, pause=0.02)
