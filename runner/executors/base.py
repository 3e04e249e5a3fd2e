"""The contract of an executor: it starts attempts, tells when they end, and signals them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.process import ExitRecord
    from runner.records import Record


@dataclass(frozen=True)
class Launch:
    """What an executor needs to start one attempt."""

    command: str
    exit_record: ExitRecord
    log_path: str
    environment: Mapping[str, str]
    cwd: str
    umask: int
    inherited: int | None = None  # a descriptor that the attempt keeps open


@dataclass(frozen=True)
class Ended:
    """An attempt that is over; `exit_code` is None when only its records can tell it."""

    native_id: int
    exit_code: int | None = None
    cpu_s: float | None = None
    peak_rss_mib: float | None = None
    is_watched: bool = False  # its end was seen as it came
    signal: int | None = None  # what killed its shell
    was_oom_killed: bool = False


class Executor(Protocol):
    """Starts and watches attempts. Ids are the executor's own, unique while the attempt lives."""

    def start(self, launch: Launch) -> tuple[int, Record]:
        """Starts an attempt; returns its native id and what it takes to find it again."""

    def adopt(self, process: Record | None, exit_record: ExitRecord) -> int | None:
        """Watches an attempt that an earlier daemon started; None when it lives no more."""

    def poll(self) -> list[Ended]:
        """The attempts that have ended since the last call; they are forgotten."""

    @property
    def poll_s(self) -> float | None:
        """How often `poll` must be called; None: when the wake-up descriptor says so."""

    def signal(self, native_id: int, number: int) -> None:
        """Sends a signal to every process of an attempt."""

    def release(self, native_id: int) -> None:
        """Watches an adopted attempt no more; it goes on."""

    def close(self) -> None:
        """Gives the executor's own resources back; attempts are left alone."""
