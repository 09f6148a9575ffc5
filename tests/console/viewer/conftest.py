"""A real Chromium, and pages in it that must keep quiet."""

from support.browser import browser, page  # noqa: F401
