"""Reports as they are written: page, summary, data of the viewer; and stores that rot."""

import json
import re
from pathlib import Path

from gog import store
from gog_console import report
from support import report_objects

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\u2028"


def page_of(folder: Path) -> str:
    return (folder / "report" / "index.html").read_text()


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "report" / "summary.json").read_text())


def data_of(html: str) -> dict:
    """What the viewer reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def without_data(html: str) -> str:
    return re.sub(r'(<script type="application/json" id="data">).*?(</script>)', r"\1\2", html, flags=re.DOTALL)


def write(folder: Path) -> tuple[str, dict]:
    report.write(folder, now=report_objects.NOW)
    return page_of(folder), summary_of(folder)


def rot(folder: Path, stage: str, name: str, step: int | None = None) -> None:
    """Changes a byte of a checkpoint's file."""
    kept = store.Store(folder / "store")
    manifest = kept.manifest(stage, step) if step else kept.latest(stage)
    assert manifest
    path = kept.open(manifest, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(bytes(data))
