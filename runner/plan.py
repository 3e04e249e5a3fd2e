"""The journal of an output directory: `output/.runner/plan.jsonl`, append-only, a checksum per line.

It says what was asked for and when; the trials' own records say what came of it.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

from runner.appendfile import append_line, whole_lines
from runner.errors import RunnerError, SystemFaultError
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from runner.values import Params, Value

Entry: TypeAlias = "dict[str, Any]"

VERSION = 1
_ENDS = {"stop", "done"}  # kinds of entries after which nothing that was asked before is left to do


class DamagedJournalError(RunnerError):
    """The journal holds a line that was not written like this."""


class Journal:
    """Reads and extends the plan journal of one output directory."""

    def __init__(self, output: Path) -> None:
        self.path = output / STATE_DIRECTORY / "plan.jsonl"

    def entries(self) -> list[Entry]:
        """All entries, oldest first. A last line that a crash cut off does not count.

        Raises:
            DamagedJournalError: an earlier line is damaged, or a newer version wrote the file.
            SystemFaultError: it may not be read.
        """
        try:
            lines = whole_lines(self.path)
        except PermissionError as error:
            raise SystemFaultError(f"{self.path}: {error.strerror}.") from error
        except OSError as error:
            raise DamagedJournalError(f"{self.path}: {error.strerror}; move it away or mend it.") from error
        if not lines and self.path.exists() and any(self.path.parent.parent.glob("[!.]*/param")):
            raise DamagedJournalError(f"{self.path}: holds no whole line; restore it, or delete it to begin a new one.")
        return [self._decode(line, number) for number, line in enumerate(lines, start=1)]

    def size(self) -> int:
        """Its size in bytes, which every `run` makes larger."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, entry: Entry) -> None:
        """Adds an entry and makes it durable."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, _encode(entry), is_durable=True)

    def open_entries(self) -> list[Entry]:
        """What was asked for since everything was last done or stopped."""
        entries: list[Entry] = []
        for entry in self.entries():
            entries = [] if entry["kind"] in _ENDS else [*entries, entry]
        return entries

    def open_plans(self) -> list[str]:
        """The plans of which something may be left to do."""
        entries = self.open_entries()
        replaced = {entry["plan"] for entry in entries if entry["kind"] == "replaced"}
        return [
            entry["plan"]
            for entry in entries
            if entry["kind"] == "plan" and entry.get("plan", "") not in replaced | {""}
        ]

    def is_open(self) -> bool:
        """Whether a daemon left work behind."""
        return any(entry["kind"] == "plan" for entry in self.open_entries())

    def is_done(self) -> bool:
        """Whether something was asked for, and nothing of it is left to do."""
        entries = self.entries()
        return bool(entries) and entries[-1]["kind"] == "done"

    def asked(self, plans: Collection[str]) -> list[Entry]:
        """How these plans, and retries after the first of them, were asked for, each once, oldest first."""
        found: dict[str, Entry] = {}
        for entry in self.entries():
            if entry["kind"] == "plan" and entry.get("plan") in plans:
                found.setdefault(entry["plan"], entry)
            elif entry["kind"] == "retry" and found:
                found.setdefault(entry["ask"], entry)
        return list(found.values())

    def introduced(self) -> Params:
        """The default with which each parameter was first given one in this output directory."""
        introduced: Params = {}
        for entry in self.entries():
            introduced = entry.get("introduced", {}) | introduced
        return introduced

    def _decode(self, line: bytes, number: int) -> Entry:
        checksum, _, text = line.partition(b" ")
        if checksum != _checksum(text):
            raise DamagedJournalError(f"{self.path}, line {number}: damaged; move the file away or mend it.")
        entry: Entry = json.loads(text)
        if entry["version"] > VERSION:
            raise DamagedJournalError(f"{self.path}, line {number}: written by a newer version of run; use that one.")
        return entry


def newly_introduced(default: Mapping[str, Value], introduced: Mapping[str, Value]) -> Params:
    """The defaults that this output directory has not seen before."""
    return {key: value for key, value in default.items() if key not in introduced}


def _encode(entry: Entry) -> bytes:
    text = json.dumps({"version": VERSION, **entry}).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()
