"""HTML without a template language: `tag("p", text, class_="note")`.

Plain text is always escaped; only the output of `tag` is passed through. So a question, a tool's message or a run's
name cannot become markup. Style attributes are not used, because the page's content security policy forbids them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Union

Child = Union[str, int, float, None, "Markup", Iterable["Child"]]

VOID = ("br", "hr", "img", "input", "meta", "line", "rect", "circle", "path", "use")


class Markup(str):
    """HTML that needs no escaping."""

    __slots__ = ()


def tag(name: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element. `class_` is class, `data_x` is data-x; None and False leave an attribute out.

    >>> tag("b", "a < b", title='"x"')
    '<b title="&quot;x&quot;">a &lt; b</b>'
    """
    opened = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    if name in VOID and not children:
        return Markup(opened if name in ("br", "hr", "img", "input", "meta") else f"{opened[:-1]}/>")
    return Markup(f"{opened}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Concatenates children: text is escaped, None is left out, nested sequences are flattened."""
    return Markup("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return html.escape(str(child), quote=False)
    return join(child)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f" {name}" if value is True else f' {name}="{html.escape(shown)}"'
