"""Log lines as JSON, one object a line: for machines first."""

from __future__ import annotations

import json
import logging
import sys
import time

LOG = logging.getLogger("cast_sdk.service")


class JsonLines(logging.Formatter):
    """`time`, `level`, `message`, and the fields that `extra={"fields": {...}}` gives."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line["message"] = record.getMessage()
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start(level: int) -> None:
    """Write the service's and uvicorn's lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOG.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    LOG.setLevel(level)


def say(message: str, **fields: object) -> None:
    """One line."""
    LOG.info(message, extra={"fields": fields})
