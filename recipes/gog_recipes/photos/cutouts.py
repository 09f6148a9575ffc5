"""Photographs without background, by class, with their names: the stamps of Tux Paint, or a folder of the same form.

A cut-out is a PNG with alpha beside a text file: its first line is the English name (`An Adelaide Rosella.`), the others
are names in other languages (`de.utf8=Ein Adelaidesittich.`). The folder decides the class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from gog.errors import UserError

CLASSES: Mapping[str, tuple[str, ...]] = {
    "bird": ("animals/birds",),
    "mammal": ("animals/mammals", "animals/marsupials"),
    "fish": ("animals/fish",),
    "insect": ("animals/insects",),
    "fruit": ("food/fruit",),
    "vegetable": ("food/vegetables",),
    "flower": ("plants/flowers",),
    "tool": ("household/tools",),
}
"""Folders below the stamps, by the word that a question has for what is in them."""
LANGUAGES: Mapping[str, tuple[str, str]] = {
    "de": ("German", "ein eine einen der die das"),
    "fr": ("French", "un une le la les des du"),
    "es": ("Spanish", "un una unos unas el la los las"),
    "it": ("Italian", "un uno una il lo la i gli le dei delle"),
    "nl": ("Dutch", "een de het"),
    "pt": ("Portuguese", "um uma uns umas o a os as"),
    "sv": ("Swedish", "en ett"),
    "fi": ("Finnish", ""),
    "pl": ("Polish", ""),
    "hu": ("Hungarian", "egy a az"),
    "ja": ("Japanese", ""),
    "zh_CN": ("Chinese", ""),
}
"""English name and articles of each language, by its code in the text files."""
ENGLISH_ARTICLES = "a an the some"
LEFT_OUT = ("cartoon", "plastic", "mirror", "edward_bear", "slug", "woodlouse", "lobster", "shrimp")
"""Words in the path of what is no photograph, or not of its folder's class."""
MAX_WORDS = 4
"""A longer English name is a description."""
LEAST_COLOURS = 0.1
"""Distinct colours of a photograph, as a share of its opaque pixels; a drawing has fewer."""
OPAQUE = 128
"""Alpha from which on a pixel belongs to the thing."""


@dataclass(frozen=True)
class Cutout:
    """One thing."""

    path: Path
    """Its PNG."""
    kind: str
    """A key of CLASSES."""
    name: str
    """English, without article."""
    names: Mapping[str, str]
    """One word each, by the English name of the language."""

    def picture(self) -> PILImage.Image:
        """Its pixels with alpha, cropped to what is opaque."""
        opened = PILImage.open(self.path).convert("RGBA")
        return opened.crop(opened.getchannel("A").point(lambda alpha: 255 * (alpha >= OPAQUE)).getbbox())


def read(stamps: Path) -> list[Cutout]:
    """All photographs of the classes, in the order of their paths; of two with the same name the first.

    Raises:
        UserError: the folder holds none.
    """
    found: dict[str, Cutout] = {}
    for kind, folders in CLASSES.items():
        for path in sorted(path for folder in folders for path in (stamps / folder).rglob("*.png")):
            left_out = any(word in str(path.relative_to(stamps)).lower() for word in LEFT_OUT)
            cutout = None if left_out else _cutout(path, kind)
            if cutout is not None and _is_photograph(path):
                found.setdefault(cutout.name.lower(), cutout)
    if not found:
        raise UserError(
            "no cut-outs", where=str(stamps), remedy="name the folder `stamps` of the package tuxpaint-stamps-default"
        )
    return list(found.values())


def _cutout(path: Path, kind: str) -> Cutout | None:
    """None for what has no text, or a description in place of a name."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    first, *others = text.read_text(encoding="utf-8").splitlines() or [""]
    name = without_article(first, ENGLISH_ARTICLES)
    if not name or len(name.split()) > MAX_WORDS:
        return None
    names = {}
    for line in others:
        code, _, value = line.partition(".utf8=")
        if code in LANGUAGES:
            language, articles = LANGUAGES[code]
            word = without_article(value, articles)
            if word and " " not in word:  # one word can be checked
                names[language] = word
    return Cutout(path, kind, name, names)


def without_article(text: str, articles: str) -> str:
    """A name without article and full stop. articles: of its language, separated by spaces."""
    words = re.sub(r"[.。！!]\s*$", "", text.strip()).split()
    if words and words[0].lower() in articles.split():
        words = words[1:]
    return " ".join(words)


def _is_photograph(path: Path) -> bool:
    pixels = np.asarray(PILImage.open(path).convert("RGBA"))
    shown = pixels[pixels[..., 3] >= OPAQUE][:, :3].astype(np.int64)
    if not len(shown):
        return False
    distinct = np.unique(shown @ np.array([65536, 256, 1]))
    return len(distinct) >= LEAST_COLOURS * len(shown)
