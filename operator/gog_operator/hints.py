"""Commands and paths as a person would type them here."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")
"""Where run folders are when nothing is said."""


def call(command: str, folder: Path, suffix: str = "") -> str:
    """`gog resume world`, with --dir where that is needed. folder: the run's."""
    parent = folder.absolute().parent
    where = "" if parent == RUNS.absolute() else f" --dir {shown(parent)}"
    return f"gog {command} {folder.name}{suffix}{where}"


def shown(path: Path) -> str:
    """Relative to here when it is below."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
