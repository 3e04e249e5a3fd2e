"""What a trial's records say of it: its parameters, its state, and what its attempts cost."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from runner.examine import paramfile
from runner.examine.tables import is_private

DAMAGED, PENDING, RUNNING, FINISHED = "damaged", "pending", "running", "finished"
# The first that any stage has is the trial's; a word that is not among them comes first.
_ORDER = (
    *(RUNNING, "held", "submitted", "failed", "timeout", "blocked", "canceled", "interrupted", "pruned"),
    *(PENDING, FINISHED),
)
_EXIT = '{"event": "exit"'
_IS_PROCESS = '"event": "process"'
_GPUS = re.compile(r"gpu ([^ ]+)")

_UNREADABLE = (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError)

Facts = dict[str, Any]


def describe(param: bytes, stat: bytes | None, attempts: bytes | None) -> Facts:
    """Return `param`, `state`, `stages` and the sums over the attempts; what is not on record is left out.

    `duration_s` and `gpu_hours` are sums over all attempts that ended, also over those that failed; a GPU that several
    attempts share counts for each of them. `cause`, `exit_code` and `log` are those of the stage that gives the trial
    its state.
    """
    faults: list[str] = []
    try:
        params = _mapping(param)
    except _UNREADABLE as error:
        return _damaged({}, "param", error)
    own = {key: value for key, value in params.items() if not is_private(key)}
    try:
        stages = dict(_stages(stat)) if stat else {}
    except _UNREADABLE as error:
        return _damaged(own, "stat", error)
    scripts = params.get("_scripts")
    if isinstance(scripts, dict):
        stages = {str(stage): PENDING for stage in scripts} | stages
    state = trial_state(stages.values())
    facts: Facts = {"param": own, "state": state, "stages": stages, "faults": faults}
    try:
        started, ended = _attempts(attempts or b"")
        if started:
            facts |= _sums(started, ended)
            keys = [key for key in started if stages.get(key[0]) == state] or list(started)
            facts |= _last_attempt(keys, started, ended)
    except (ValueError, TypeError, KeyError) as error:
        faults.append(f"attempts: {error}")
    return facts


def _damaged(params: Mapping[Any, Any], file: str, error: Exception) -> Facts:
    cause = f"{file}: {' '.join(str(error).split())[:200]}"
    return {"param": params, "state": DAMAGED, "stages": {}, "cause": cause, "faults": []}


def trial_state(states: Iterable[str]) -> str:
    """Return the one word for the states of all stages: `running` where any runs, `finished` where all are."""
    found = set(states) or {PENDING}
    unknown = sorted(found - set(_ORDER))
    return unknown[0] if unknown else next(state for state in _ORDER if state in found)


@functools.lru_cache(maxsize=4096)
def _stages(stat: bytes) -> Mapping[str, str]:
    """The states of all stages; in most trials they are the same few lines."""
    return {str(stage): str(state) for stage, state in _mapping(stat).items()}


def _mapping(content: bytes) -> dict[Any, Any]:
    value = paramfile.load(content.decode())
    if not isinstance(value, dict):
        raise TypeError(f"holds a {type(value).__name__}, not a mapping")
    return value


_Key = tuple[str, int]


def _attempts(content: bytes) -> tuple[dict[_Key, Facts], dict[_Key, Facts]]:
    """Return the records of starts and of ends; a last line that is being written does not count."""
    started: dict[_Key, Facts] = {}
    ended: dict[_Key, Facts] = {}
    lines = content.decode().split("\n")[:-1]
    # A kill may have cut a line off, after which the attempt's shell wrote its own.
    whole = (line[max(0, line.rfind(_EXIT)) :] for line in lines if _IS_PROCESS not in line)
    for record in json.loads(f"[{','.join(whole)}]"):
        key = record["stage"], record["attempt"]
        if record["event"] == "start":
            started[key] = record
        else:  # the exit code alone, then all that is known of the end
            ended[key] = record
    return started, ended


def _sums(started: Mapping[_Key, Facts], ended: Mapping[_Key, Facts]) -> Facts:
    seconds = {key: record["seconds"] for key, record in ended.items() if record.get("seconds") is not None}
    facts: Facts = {"attempts": len(started)}
    if seconds:
        facts["duration_s"] = round(sum(seconds.values()), 3)
        facts["gpu_hours"] = sum(spent * _gpus(started.get(key, {})) for key, spent in seconds.items()) / 3600
    for name in ("peak_vram_mib", "peak_rss_mib"):
        peaks = [record[name] for record in ended.values() if record.get(name) is not None]
        if peaks:
            facts[name] = max(peaks)
    return facts


def _gpus(start: Mapping[str, Any]) -> int:
    found = _GPUS.match(str(start.get("slot", "")))
    return found[1].count(",") + 1 if found else 0


def _last_attempt(keys: list[_Key], started: Mapping[_Key, Facts], ended: Mapping[_Key, Facts]) -> Facts:
    start, end = started[keys[-1]], ended.get(keys[-1], {})
    known = {"stage": keys[-1][0], "host": start.get("host"), "started": start.get("started"), "log": start.get("log")}
    known |= {name: end.get(name) for name in ("ended", "exit_code", "cause", "line")}
    known["code"] = start.get("code")
    return {name: value for name, value in known.items() if value is not None}


def read_facts(directory: Path | str) -> Facts:
    """Return the facts of the trial in a directory; raises FileNotFoundError where it has no `param`."""

    def content(name: str) -> bytes | None:
        try:
            return (Path(directory) / name).read_bytes()
        except FileNotFoundError:
            return None

    param = (Path(directory) / "param").read_bytes()
    return describe(param, content("stat"), content("attempts"))
