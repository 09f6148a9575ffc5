"""`python -m gog.metrics`: prints docs/metrics.md."""

from __future__ import annotations

import sys

from gog.metrics import document

sys.stdout.write(document.page())
