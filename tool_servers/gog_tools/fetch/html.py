"""The visible text of an HTML page, without what only a machine would read.

Scripts, styles and templates are no text. Elements that a browser does not show (attribute `hidden`, `aria-hidden`, no
size, transparent, off the page) are left out, whether their style is their own or a simple rule of the page's <style>.
Style sheets of other files are not fetched, colours are compared only within one style, and no script runs; so a page can
still hide text from people and show it to us. What remains is cut to a number of characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree, html

MAX_DEPTH = 200
"""Elements inside each other; deeper ones are left out."""
MAX_ELEMENTS = 50_000
"""Elements that are looked at; the text after them is left out."""
MAX_STYLES = 200_000
"""Characters of <style> that are read."""
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
_RULE = re.compile(r"([^{}]{1,500})\{([^{}]{0,2000})\}")
_SELECTOR = re.compile(r"([a-z][a-z0-9]*)?([.#][A-Za-z_][\w-]*)?")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_PRINT = re.compile(r"@media[^{}]{0,200}\bprint\b[^{}]{0,200}\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
"""Rules for paper, which hide what a screen shows."""


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

    Args:
        body: the document.
        charset: from Content-Type; empty: from the document itself.
        limit: most characters of text.

    Returns:
        Title and text; both empty for a document without elements.
    """
    parser = html.HTMLParser(encoding=_encoding(charset) or _encoding(_declared(body)) or "utf-8", recover=True)
    try:
        root = html.document_fromstring(body or b"<p></p>", parser=parser)
    except (etree.LxmlError, ValueError, AssertionError):
        return Page("", "")
    titles = root.iter("title")
    title = next(titles, None)
    walk = _Walk(_hidden_by_rules(root), limit)
    walk.add(root)
    return Page(" ".join((title.text_content() if title is not None else "").split())[:500], walk.result())


_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


def _declared(body: bytes) -> str:
    found = _META.search(body, 0, 4_096)
    return found[1].decode() if found else ""


def _encoding(name: str) -> str:
    """A name of an encoding that lxml knows; empty for others."""
    try:
        etree.HTMLParser(encoding=name) if name else None
    except LookupError:
        return ""
    return name


def _hidden_by_rules(root: html.HtmlElement) -> frozenset[str]:
    """Simple selectors (tag, .class, #id) that the page's own <style> hides; their combinations are not read."""
    css = "".join(style.text_content() for style in root.iter("style"))[:MAX_STYLES]
    found: set[str] = set()
    for selectors, declarations in _RULE.findall(_PRINT.sub("", _COMMENT.sub("", css))):
        if hides(declarations):
            found.update(each.strip() for each in selectors.split(",") if _SELECTOR.fullmatch(each.strip()))
    return frozenset(found - {"", "html", "body"})


@dataclass
class _Walk:
    """Collects visible text, element by element."""

    hidden: frozenset[str]
    """Selectors that are hidden."""
    limit: int
    """Most characters."""
    _parts: list[str] = field(default_factory=list)
    """Pieces of text; a line break for each edge of a block."""
    _size: int = 0
    """Characters so far."""
    _elements: int = 0
    """Elements so far."""

    def add(self, root: html.HtmlElement) -> None:
        """Walks without recursion, because a page may nest its elements as deeply as it likes."""
        stack: list[tuple[html.HtmlElement, Iterator[html.HtmlElement]]] = []
        if not self._enters(root, 0):
            return
        stack.append((root, iter(root)))
        while stack and self._size < self.limit and self._elements < MAX_ELEMENTS:
            element, children = stack[-1]
            child = next(children, None)
            if child is None:
                stack.pop()
                self._leave(element)
                if stack:
                    self._text(element.tail)
            elif self._enters(child, len(stack)):
                stack.append((child, iter(child)))
            else:
                self._text(child.tail)

    def _enters(self, element: html.HtmlElement, depth: int) -> bool:
        self._elements += 1
        if not isinstance(element.tag, str) or depth >= MAX_DEPTH or self._is_hidden(element):
            return False
        if element.tag in _BLOCKS:
            self._parts.append("\n")
        self._text(element.text)
        return True

    def _leave(self, element: html.HtmlElement) -> None:
        if element.tag in _BLOCKS:
            self._parts.append("\n")

    def _text(self, text: str | None) -> None:
        if text:
            self._parts.append(text)
            self._size += len(text)

    def _is_hidden(self, element: html.HtmlElement) -> bool:
        if element.tag in _SKIPPED or "hidden" in element.attrib or element.get("aria-hidden", "").lower() == "true":
            return True
        style = element.get("style")
        if style and hides(style[:2_000]):
            return True
        if not self.hidden:
            return False
        marks = [f"#{element.get('id')}", *(f".{each}" for each in (element.get("class") or "").split()[:20])]
        return not self.hidden.isdisjoint([element.tag, *marks, *(element.tag + mark for mark in marks)])

    def result(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line)[: self.limit]
