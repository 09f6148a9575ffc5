"""The operator's log as one JSON object per line, for collectors that would otherwise split tracebacks into entries."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class Json(logging.Formatter):
    """Formats a record as time, level, logger, message and, after an error, its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
