"""Drops lines that libraries write into the log of every process and that say nothing about a run.

A user who opens a log looks for what went wrong, and these came first. Each is named by its own text, so any other warning
of the same library still appears. gog_recipes and gog_tools call `quiet` when they are imported, before those libraries are.
`tune run` imports them itself first, so it shows them.

    torchao        its C++ kernels do not fit this torch; nothing here uses them
    torchtune      the seed, which is in the settings of each checkpoint
    transformers   an old name that peft asks for; a progress bar, which in a file is one line of carriage returns
"""

from __future__ import annotations

import logging
import os
import warnings

LOG_LINES = {
    "torchao": "Skipping import of cpp extensions due to incompatible torch version",
    "torchtune.utils._logging": "Setting manual seed to local seed",
}
"""Beginning of a line to drop, by the logger that writes it."""
WARNINGS = ("`is_gradient_checkpointing` is deprecated",)
"""Beginnings of warnings to drop."""
PROGRESS_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"
"""Environment variable of huggingface_hub and transformers; one that is set stays as it is."""


class _Dropped(logging.Filter):
    """Drops the records that begin with a text."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self.beginning = beginning

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.beginning)


def quiet() -> None:
    """Drops these lines in this process and, of progress bars, in those that it starts."""
    for logger, beginning in LOG_LINES.items():
        logging.getLogger(logger).addFilter(_Dropped(beginning))
    for beginning in WARNINGS:
        warnings.filterwarnings("ignore", message=beginning)
    os.environ.setdefault(PROGRESS_BARS, "1")
