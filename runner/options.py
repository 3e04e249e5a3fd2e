"""What a stage may be told beside its command: limits, retries, environment, where and when it runs."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from runner.halving import Rule
from runner.model import LOCAL

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_S = 20.0
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)\s*", re.ASCII)

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(MiB|GiB|MB|GB)\s*", re.ASCII)
_MIB_OF = {"MiB": 1.0, "GiB": 1024.0, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}


@dataclass(frozen=True)
class Retry:
    """How often a failed job is tried again, `delay_s` after its end, and for which causes (any when empty)."""

    times: int = 0
    delay_s: float = 0.0
    on: tuple[str, ...] = ()

    def allows(self, failures: int, cause: str | None) -> bool:
        """Whether a job that has failed so often, the last time for this cause, is tried again."""
        return failures <= self.times and (not self.on or cause in self.on)


@dataclass(frozen=True)
class StageOptions:
    """The options of one stage. Times in seconds.

    `keep` maps a pattern of files to how many of them a finished trial keeps; `gpus` 0 says that the stage needs none,
    None is one. So many attempts as `per_gpu` share one; None: as many as are learned to fit. `cpus` are the cores of
    an attempt. `on_oom` are the parameters of the attempt after one that was out of memory. `batch` is what was said to
    the `executor`, in its own words.
    """

    timeout_s: float | None = None
    retry: Retry = Retry()
    grace_s: float = GRACE_S
    stall_s: float | None = None
    stagger_s: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    gpus: int | None = None
    per_gpu: int | None = 1
    vram_by: tuple[str, ...] = ()
    cpus: int | None = None
    on_oom: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, int] = field(default_factory=dict)
    prune: Rule | None = None
    executor: str = LOCAL
    batch: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults, for the plan's file."""
        default = asdict(StageOptions())
        return {key: value for key, value in asdict(self).items() if value != default[key]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StageOptions:
        """The inverse of `to_json`."""
        retry = record.get("retry")
        given = dict(record)
        if retry is not None:
            given["retry"] = Retry(retry["times"], retry["delay_s"], tuple(retry["on"]))
        given["vram_by"] = tuple(record.get("vram_by", ()))
        prune = record.get("prune")
        if prune is not None:
            given["prune"] = Rule(**{**prune, "rungs": tuple(prune["rungs"])})
        return cls(**given)


def seconds(value: object) -> float:
    """A duration: a number of seconds, or `30s`, `20m`, `1.5h`, `2d`, `1h 30m`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    if isinstance(value, str):
        parts = list(_DURATION.finditer(value))
        if parts and "".join(match[0] for match in parts) == value:
            return sum(float(match[1]) * _UNITS[match[2]] for match in parts)
    raise ValueError("is no duration; allowed: a number of seconds, or a text such as 30s, 20m, 1.5h, 2d")


def mib(value: object) -> int:
    """An amount of memory, such as `20GiB` or `500MB`, in MiB.

    Raises:
        ValueError: it is none.
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is no amount of memory; allowed: a text such as 20GiB or 500MiB")
    return int(float(match[1]) * _MIB_OF[match[2]])
