"""The examples of docs/architecture.md, applied to copies of the checkout as a contributor would, and counted with git.

    python tests/architecture/extension_points.py        prints how many files each addition touches

A section "How to add …" holds files to create, changes of files (`diff`) and shell lines, in order. What `make manifests
docs dashboards` derives is made again where the example changes the catalogue, the step metrics or the specification, and
counted apart.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
PACKAGES = ("core", "console", "operator", "recipes", "tool_servers", ".")
SOURCES_OF_GENERATED = ("core/gog/catalog.py", "core/gog/step_metrics.py", "core/gog/spec/")
GENERATED = re.compile(r"(charts/gog/(dashboards|files)|manifests)/|docs/(metrics|reference)\.md$")
LIMITS = {
    "tool the policy may call": 8,
    "step metric with a panel": 4,
    "loss": 2,
    "model family": 7,
    "back end of a tool server": 2,
    "dataset or benchmark format": 2,
    "engine": 2,
    "field of a stage": 3,
}
"""Most files that an addition may touch, its test included. A family has a file of code and a preset for each stage."""

_SECTION = re.compile(r"^## How to add an? (.+)$", re.MULTILINE)
_BLOCK = re.compile(
    r"(?:New file `(?P<path>[^`]+)`:\n\n)?^```(?P<kind>python|diff|sh)\n(?P<body>.*?)^```$", re.M | re.S
)
_ALSO = re.compile(r"Also run: ((?:`[^`]+`,?\s*)+)")


@dataclass(frozen=True)
class Block:
    """One step of an example."""

    kind: str
    """python: a new file; diff: changes of a file; sh: shell lines."""
    path: str
    """The file, relative to the checkout; empty for shell lines."""
    body: str
    """Content of the file, its hunks, or the lines."""


@dataclass(frozen=True)
class Example:
    """One section "How to add …"."""

    title: str
    """What is added."""
    blocks: tuple[Block, ...]
    """The steps, in order."""
    neighbours: tuple[str, ...]
    """Existing tests that must pass afterwards; paths relative to the checkout."""

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests that the example adds."""
        return tuple(block.path for block in self.blocks if block.path.startswith("tests/"))


def examples(text: str) -> list[Example]:
    """The examples of the document, in order.

    Raises:
        ValueError: a block says neither which file it is nor which it changes.
    """
    titles = list(_SECTION.finditer(text))
    ends = [title.start() for title in titles[1:]] + [len(text)]
    return [_example(title[1], text[title.end() : end]) for title, end in zip(titles, ends, strict=True)]


def _example(title: str, section: str) -> Example:
    also = re.findall(r"`([^`]+)`", " ".join(_ALSO.findall(section)))
    neighbours = tuple(path for names in also for path in names.split())
    return Example(title, tuple(_block(title, found) for found in _BLOCK.finditer(section)), neighbours)


def _block(title: str, found: re.Match[str]) -> Block:
    kind, path, body = found["kind"], found["path"] or "", found["body"]
    if kind == "diff" and body.startswith("--- "):
        head, _, body = body.partition("\n")
        path = head.removeprefix("--- ")
    if kind != "sh" and not path:
        raise ValueError(f"{title}: a block of {kind} without a file: {body[:80]!r}")
    return Block(kind, path, body)


def patched(text: str, hunks: str, where: str) -> str:
    """A file's text with hunks applied, each at the only place where its unchanged and removed lines are.

    Raises:
        ValueError: the place is missing or not the only one.
    """
    for hunk in hunks.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
        new = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
        if not old or text.count(old) != 1:
            raise ValueError(f"{where}: {text.count(old)} places for\n{old}")
        text = text.replace(old, new)
    return text


def copy_checkout(folder: Path) -> None:
    """A copy of the checkout with all files that git knows or would add, as a repository with one commit."""
    listed = _run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    identity = ("-c", "user.name=gog", "-c", "user.email=gog@example.org")
    for command in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "the checkout")):
        _run(folder, "git", *command)


def apply(example: Example, folder: Path) -> None:
    """Makes the example's changes in a copy."""
    for block in example.blocks:
        path = folder / block.path
        if block.kind == "sh":
            _run(folder, "bash", "-euc", block.body)
        elif block.kind == "diff":
            path.write_text(patched(path.read_text(encoding="utf-8"), block.body, block.path), encoding="utf-8")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")


def generate(folder: Path) -> None:
    """`make manifests docs dashboards` without the chart's rendering and the images, which need more programs."""
    gog = (sys.executable, "-m", "gog_console")
    _run(folder, *gog, "crds", "--dir", "manifests/crds")
    shutil.copytree(folder / "manifests/crds", folder / "charts/gog/files/crds", dirs_exist_ok=True)
    (folder / "docs/reference.md").write_text(_run(folder, *gog, "crds", "--reference"), encoding="utf-8")
    (folder / "docs/metrics.md").write_text(_run(folder, sys.executable, "-m", "gog.metrics"), encoding="utf-8")
    _run(folder, *gog, "dashboards", "--dir", "charts/gog/dashboards", "--rules", "charts/gog/files/rules.yaml")


def touched(folder: Path) -> tuple[list[str], list[str]]:
    """Files changed since the copy was made: (those written by hand, those derived)."""
    lines = _run(folder, "git", "status", "--porcelain", "--untracked-files=all").splitlines()
    names = sorted(line[3:] for line in lines)
    derived = [name for name in names if GENERATED.match(name)]
    return [name for name in names if name not in derived], derived


def run_tests(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Runs tests of a copy against the copy's packages."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow and not cluster and not exhaustive", *tests]
    return subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)


def _environment(folder: Path) -> dict[str, str]:
    """Finds the copy's packages before the installed ones."""
    path = os.pathsep.join(str(folder / name) for name in PACKAGES)
    return {**os.environ, "PYTHONPATH": path}


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    """Prints the table. Returns 1 if an addition touches more files than LIMITS allow."""
    too_many = 0
    print(f"{'addition':<30} {'files':>5} {'limit':>5} {'derived':>7}  written by hand")
    for example in examples(DOCUMENT.read_text(encoding="utf-8")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_checkout(folder)
            apply(example, folder)
            if any(block.path.startswith(SOURCES_OF_GENERATED) for block in example.blocks):
                generate(folder)
            written, derived = touched(folder)
        limit = LIMITS[example.title]
        too_many += len(written) > limit
        print(f"{example.title:<30} {len(written):>5} {limit:>5} {len(derived):>7}  {', '.join(written)}")
    return int(too_many > 0)


if __name__ == "__main__":
    sys.exit(main())
