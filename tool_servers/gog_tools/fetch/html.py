"""The visible text of an HTML page, without what only a machine would read.

Scripts, styles and templates are no text. Elements that a browser does not show (attribute `hidden`, `aria-hidden`, no
size, transparent, off the page) are left out, whether their style is their own or a simple rule of the page's <style>.
Style sheets of other files are not fetched, colours are compared only within one style, and no script runs; so a page can
still hide text from people and show it to us. What remains is cut to a number of characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

MAX_DEPTH = 200
"""Elements inside each other; deeper ones are left out."""
MAX_ELEMENTS = 50_000
"""Elements that are looked at; the text after them is left out."""
MAX_STYLES, MAX_TITLE = 200_000, 500
"""Characters of all <style> elements of a page, and of its title, that are read."""
MAX_HEAD, MAX_DECLARATIONS = 500, 2_000
"""Characters of a rule's selectors, and of its declarations; the selectors before, and a longer rule, are not read."""
PIECE = 1 << 16
"""Bytes that are parsed at once."""
_SKIPPED = frozenset(
    [
        *("script", "style", "template", "noscript", "title", "iframe", "object", "svg", "math", "canvas", "audio"),
        *("video", "select", "option", "textarea", "button", "input", "datalist", "nav", "footer", "dialog", "map"),
    ]
)
"""Elements without text, or whose text belongs to the site instead of the page."""
_BLOCKS = frozenset(
    [
        *("p", "div", "br", "li", "ul", "ol", "tr", "table", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article"),
        *("header", "main", "aside", "blockquote", "pre", "dd", "dt", "dl", "figure", "figcaption", "hr", "td", "th"),
    ]
)
"""Elements before and after which a line ends."""
_HIDING = re.compile(
    r"display:none|visibility:(hidden|collapse)|opacity:0(\.0*)?(;|$|%)|font-size:0(\.0*)?(px|pt|em|rem|%)?(;|$)"
    r"|(left|right|top|bottom|text-indent|margin-left|margin-top):-\d{3,}|transform:scale\(0|clip:rect\(0|clip:rect\(1px"
    r"|clip-path:inset\((50|100)%|content-visibility:hidden|color:transparent|-webkit-text-fill-color:transparent"
    r"|color:rgba\([^)]*,0(\.0*)?\)"
)
_SIZE = re.compile(r"(?:^|;)(?:max-)?(?:width|height):[01](?:\.0*)?(?:px)?(?:;|$)")
_COLOURS = re.compile(r"(?:^|;)(color|background|background-color):([^;]+)")
_SELECTOR = re.compile(r"([a-z][a-z0-9]*)?([.#][A-Za-z_][\w-]*)?")
_BRACE = re.compile(r"([{}])")
_PRINT = re.compile(r"\bprint\b")


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    title: str
    """Its title; empty if it has none."""
    text: str
    """Its visible text; a line for each block."""


def hides(style: str) -> bool:
    """Whether declarations of CSS make an element invisible.

    >>> hides("Display : NONE !important")
    True
    """
    plain = re.sub(r"\s|!important", "", style.lower())
    if _HIDING.search(plain) or ("overflow:hidden" in plain and _SIZE.search(plain)):
        return True
    colours = dict(_COLOURS.findall(plain))
    behind = colours.get("background-color") or colours.get("background")
    return behind is not None and colours.get("color") == behind


def read(body: bytes, charset: str = "", *, limit: int = 30_000) -> Page:
    """The visible text of a page.

    No tree is built: a page of two megabytes may have half a million elements, each of which would take hundreds of bytes.

    Args:
        body: the document.
        charset: from Content-Type; empty: from the document itself.
        limit: most characters of text.

    Returns:
        Title and text; both empty for a document without elements.
    """
    visible = _Visible(limit)
    encoding = known(charset) or known(_declared(body)) or "utf-8"
    parser = etree.HTMLParser(target=visible, encoding=encoding, recover=True)
    try:
        for start in range(0, len(body), PIECE):
            if visible.is_full:
                break
            parser.feed(body[start : start + PIECE])
        parser.close()
    except (etree.LxmlError, ValueError, AssertionError):
        pass  # no document, or one that cannot be repaired; what was read of it is text
    return visible.page()


_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


def _declared(body: bytes) -> str:
    found = _META.search(body, 0, 4_096)
    return found[1].decode() if found else ""


def known(name: str) -> str:
    """A name of an encoding that lxml knows, the same or Python's (latin-1 is iso8859-1); empty for others."""
    try:
        return name if _is_known(name) else next(filter(_is_known, [codecs.lookup(name).name]), "")
    except (LookupError, ValueError):
        return ""


def _is_known(name: str) -> bool:
    try:
        return bool(name) and etree.HTMLParser(encoding=name) is not None
    except (LookupError, ValueError):  # ValueError: characters that no name has, as a header may hold them
        return False


def _rules(css: str) -> set[str]:
    """Simple selectors (tag, .class, #id) that a <style> hides; their combinations are not read."""
    found: set[str] = set()
    for selectors, declarations in _blocks(_without_comments(css)):
        if len(declarations) <= MAX_DECLARATIONS and hides(declarations):
            found.update(each.strip() for each in selectors.split(",") if _SELECTOR.fullmatch(each.strip()))
    return found - {"", "html", "body"}


def _without_comments(css: str) -> str:
    """A style sheet without comments; one that is not closed goes to its end. No pattern: it would be quadratic."""
    parts, end = [], 0
    while (begin := css.find("/*", end)) >= 0:
        parts.append(css[end:begin])
        close = css.find("*/", begin + 2)
        end = close + 2 if close >= 0 else len(css)
    return "".join((*parts, css[end:]))


def _blocks(css: str) -> Iterator[tuple[str, str]]:
    """What is before each pair of braces and the last text in it, without rules for paper, which a screen does not apply."""
    opened: list[tuple[str, bool]] = []
    text = ""
    for piece in _BRACE.split(css):
        if piece == "{":
            head = text[-MAX_HEAD:]
            opened.append((head, _is_for_paper(head) or (bool(opened) and opened[-1][1])))
        elif piece == "}" and opened:
            head, is_for_paper = opened.pop()
            if not is_for_paper:
                yield head, text
        text = "" if piece in ("{", "}") else piece


def _is_for_paper(head: str) -> bool:
    _, media, query = head.partition("@media")
    return bool(media) and _PRINT.search(query) is not None


class _Visible:
    """Receives a document's elements in order, and keeps the text that shows."""

    def __init__(self, limit: int) -> None:
        """limit: most characters."""
        self._limit = limit
        self._parts: list[str] = []
        self._size = self._elements = self._depth = 0
        self._hidden_depth = 0
        """Open elements from the outermost hidden one on; 0 outside of one."""
        self._rules: set[str] = set()
        self._collecting = ""
        """`style` or `title` inside such an element."""
        self._collected: dict[str, list[str]] = {"style": [], "title": []}
        self._room = {"style": MAX_STYLES, "title": MAX_TITLE}
        """Characters that are still collected of such elements, all of a page together."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more is kept."""
        return self._size >= self._limit or self._elements >= MAX_ELEMENTS

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._hidden_depth or self._depth > MAX_DEPTH or self._hides(tag, attributes):
            self._hidden_depth += 1
            self._collecting = tag if self._hidden_depth == 1 and tag in self._collected else self._collecting
        elif tag in _BLOCKS:
            self._parts.append("\n")

    def end(self, tag: str) -> None:
        self._depth -= 1
        if not self._hidden_depth:
            if tag in _BLOCKS:
                self._parts.append("\n")
            return
        self._hidden_depth -= 1
        if not self._hidden_depth and self._collecting:
            if self._collecting == "style":
                self._rules |= _rules("".join(self._collected["style"]))
                self._collected["style"].clear()
            self._collecting = ""

    def data(self, text: str) -> None:
        if self._collecting:
            self._collect(text[: self._room[self._collecting]])
        elif not self._hidden_depth and not self.is_full:
            self._parts.append(text)
            self._size += len(text)

    def _collect(self, text: str) -> None:
        if text:
            self._room[self._collecting] -= len(text)
            self._collected[self._collecting].append(text)

    def comment(self, text: str) -> None:
        return

    def close(self) -> None:
        return

    def _hides(self, tag: str, attributes: Mapping[str, str]) -> bool:
        if tag in _SKIPPED or "hidden" in attributes or attributes.get("aria-hidden", "").lower() == "true":
            return True
        style = attributes.get("style")
        if style and hides(style[:2_000]):
            return True
        if not self._rules:
            return False
        names = attributes.get("class", "")[:1_000].split()[:20]
        marks = [f"#{attributes.get('id')}", *(f".{each}" for each in names)]
        return not self._rules.isdisjoint([tag, *marks, *(tag + mark for mark in marks)])

    def page(self) -> Page:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        text = "\n".join(line for line in lines if line)[: self._limit]
        return Page(" ".join("".join(self._collected["title"]).split()), text)
