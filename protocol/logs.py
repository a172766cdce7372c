"""How a line of a log is written: as JSON, or in words, and at which time by UTC."""

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

PLAIN_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"  # as Celery's


class JsonFormatter(logging.Formatter):
    """One JSON object a line; the attribute `facts` of a record becomes fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": record.processName,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start_log(log_format: str | None) -> None:
    """Log on stderr what is of level INFO or higher, in the form of a worker's log."""
    formatter = logging.Formatter(PLAIN_FORMAT)
    give_times_an_offset(formatter)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def give_times_an_offset(formatter: logging.Formatter) -> None:
    """Have a formatter of plain lines write times as `2026-11-28 11:28:50.123+00:00`."""
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%d %H:%M:%S"
    formatter.default_msec_format = "%s.%03d+00:00"
