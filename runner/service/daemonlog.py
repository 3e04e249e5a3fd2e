"""The daemon's own log: one line a record, in UTC, kept small, and silent where it cannot be written."""

from __future__ import annotations

import contextlib
import logging
import os
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import TextIOWrapper
    from pathlib import Path

_BYTES = 1_000_000
_FILES = 3  # the current one and those before it, `.1` the newest


def open_log(path: Path) -> logging.Logger:
    """A logger that writes to the file alone, which only its owner may read.

    A record that cannot be written, as the disk is full, is lost; the next ones are tried again. Opening the log of
    another path closes the one before.
    """
    logger = logging.getLogger("runner.daemon")
    close_log(logger)
    handler = _Handler(path, maxBytes=_BYTES, backupCount=_FILES - 1, encoding="utf-8", delay=True)
    handler.setFormatter(_OneLine())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def close_log(logger: logging.Logger) -> None:
    """Closes the file; what is logged from then on goes nowhere."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(logging.NullHandler())


class _Handler(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        stream = open(  # noqa: SIM115 - with an opener
            self.baseFilename,
            "a",
            encoding="utf-8",
            errors="backslashreplace",
            opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600),
        )
        if stream.tell() and not _ends_a_line(self.baseFilename):
            stream.write("\n")  # a full disk, or a crash, cut the record before
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Drops the record and what is left of it in the buffer; the file is opened anew for the next one."""
        stream, self.stream = self.stream, None  # the library opens it anew when it is None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # what it still held does not fit on the disk, either
                stream.close()


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return f"{time} {record.levelname.lower()} {_escaped(text)}"


def _ends_a_line(path: str) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _escaped(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
