"""What README and docs/ say exists: files behind links and paths, modules, `gog` commands."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from gog_console import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}

LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
QUOTED = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TOP = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - {"runs", "build"}
DOTTED = re.compile(r"(?:gog|gog_console|gog_operator|gog_recipes|gog_tools)(?:\.\w+)+")
SOURCES = "".join(
    path.read_text(encoding="utf-8") for top in ("core", "console", "operator") for path in (ROOT / top).rglob("*.py")
)
NEW_FILE = re.compile(r"New file `[^`]+`")
COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?gog ([a-z]+)\b", re.MULTILINE)


def prose(text: str) -> str:
    """The text without code blocks, and without the names of files that a reader is to create."""
    return NEW_FILE.sub("", FENCED.sub("", text))


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file(name):
    folder = (ROOT / name).parent
    targets = [target for target in LINK.findall(prose(TEXTS[name])) if "://" not in target]
    assert [target for target in targets if not (folder / target).exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_quoted_path_of_the_repository_exists(name):
    """Of code in backquotes, what begins with the name of a file or folder at the top; patterns match something."""
    quoted = [word for text in QUOTED.findall(prose(TEXTS[name])) for word in text.split()]
    paths = [word.rstrip(".,:") for word in quoted if word.split("/")[0] in TOP and re.fullmatch(r"[\w./*-]+", word)]
    assert [path for path in paths if not any(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_dotted_name_is_of_a_module_or_a_constant(name):
    """Constants: attributes of spans, the API group, groups of entry points."""
    names = sorted(set(DOTTED.findall(prose(TEXTS[name]))))
    assert [dotted for dotted in names if not exists(dotted) and f'"{dotted}' not in SOURCES] == []


def exists(dotted: str) -> bool:
    """Whether a dotted name can be imported, as a module or as an attribute of one."""
    module, rest = dotted, []
    while module:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
            continue
        for attribute in rest:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_is_one_of_gogs(name):
    known = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    used = {found for text in QUOTED.findall(prose(TEXTS[name])) for found in COMMAND.findall(text)}
    used |= {found for block in FENCED.findall(TEXTS[name]) for found in COMMAND.findall(block)}
    assert used - known == set()


def test_every_page_is_linked_from_another():
    linked = {
        (ROOT / name).parent.joinpath(target).resolve()
        for name, text in TEXTS.items()
        for target in [
            *LINK.findall(text),
            *(f"{ROOT}/{word}" for word in QUOTED.findall(text) if word.endswith(".md")),
        ]
        if "://" not in target
    }
    assert [str(path.relative_to(ROOT)) for path in PAGES if path.name != "README.md" and path not in linked] == []
