"""Commands and paths for messages, as a user would type them in the current directory."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")
"""Folder of the run folders by default."""


def call(command: str, folder: Path, suffix: str = "") -> str:
    """A command about a run: `gog resume world`, with `--dir` where the run folder is elsewhere.

    Args:
        command: The subcommand.
        folder: The run folder.
        suffix: Text after the run's name: `/grpo`.
    """
    parent = folder.absolute().parent
    where = "" if parent == RUNS.absolute() else f" --dir {shown(parent)}"
    return f"gog {command} {folder.name}{suffix}{where}"


def shown(path: Path) -> str:
    """A path, relative to the current directory where it is below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
