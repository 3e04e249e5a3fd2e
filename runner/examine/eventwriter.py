"""TensorBoard events for trials whose program writes none: from metrics.csv, with the parameters for the HParams tab.

Each trial gets one event file that only grows, so that a TensorBoard that is open follows it. What a resumed program
wrote anew is preceded by a restart mark, which makes TensorBoard forget what it replaces: curves never double.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from runner.examine.eventfile import Scalars, read_scalars, record_spans
from runner.examine.facts import FINISHED, PENDING, RUNNING, read_facts
from runner.examine.metrics import METRICS_FILE, collect_final_values, read_metrics
from runner.examine.sources import is_event_file

FILE = "events.out.tfevents.0.runner"
_TIMES = {"time", "time_s"}
_GOES_ON = {PENDING, RUNNING, "held", "submitted", "interrupted"}
_START_TAG = metadata.SESSION_START_INFO_TAG.encode()
_END_TAG = metadata.SESSION_END_INFO_TAG.encode()


def sync_trial(directory: str | Path) -> int:
    """Add to a trial's event file what is new in its records; returns how many events were added.

    A program that writes event files itself gets no second curves: only the parameters, if it doesn't write those.

    Raises:
        FileNotFoundError: the directory holds no trial.
    """
    directory = Path(directory)
    facts = read_facts(directory)
    foreign = [path for path in directory.rglob("*") if is_event_file(path.name) and path.name != FILE]
    if any(map(_has_parameters, foreign)):
        # A sync may have come before the program's own events.
        (directory / FILE).unlink(missing_ok=True)
        return 0
    descriptor = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # held by one reader at a time, until the file is closed
        content = file.read()
        begins, lengths = record_spans(content)
        whole = begins[-1] + lengths[-1] + 4 if begins else 0
        if whole < len(content):  # cut off by a kill
            os.ftruncate(file.fileno(), whole)
            content = content[:whole]
        scalars = {} if foreign else _scalars(directory)
        known = read_scalars(directory / FILE)
        time = _time(directory)
        events = [] if content else [Event(wall_time=time, file_version="brain.Event:2")]
        events += [] if _START_TAG in content else [_session_start(facts, time)]
        events += _new_scalars(known, scalars)
        if facts["state"] not in _GOES_ON and (events or _END_TAG not in content):
            events.append(_session_end(facts["state"], time))
        file.write(b"".join(map(_framed, events)))
    return len(events)


def _has_parameters(path: Path) -> bool:
    """Whether an event file begins with parameters, as those of programs that write any do."""
    with path.open("rb") as file:
        return _START_TAG in file.read(1 << 20)


def _time(directory: Path) -> float:
    path = directory / METRICS_FILE
    return (path if path.exists() else directory / "param").stat().st_mtime


def _scalars(directory: Path) -> dict[str, Scalars]:
    """The columns of metrics.csv, and at the last step the values of evaluations."""
    if not (directory / METRICS_FILE).is_file():
        return {}
    try:
        frame = read_metrics(directory)
    except (OSError, ValueError):
        return {}
    if "step" not in frame or frame.empty:
        return {}
    changed = _time(directory)
    elapsed = next((frame[name].to_numpy(float) for name in frame if name in _TIMES and _is_numeric(frame[name])), None)
    times = (
        np.full(len(frame), changed) if elapsed is None else changed - np.nanmax([*elapsed, 0]) + np.nan_to_num(elapsed)
    )
    steps = frame["step"].to_numpy(np.int64)
    found = {}
    for name in frame.columns:
        if name == "step" or name in _TIMES or not _is_numeric(frame[name]):
            continue
        chosen = frame[name].notna().to_numpy()
        if chosen.any():
            values = frame[name].to_numpy(np.float32).astype(float)
            found[name] = Scalars(steps[chosen], values[chosen], times[chosen])
    finals, _ = collect_final_values(directory)
    for name, value in finals.items():
        if name not in found and isinstance(value, int | float):
            found[name] = Scalars(steps[-1:], np.array([value], np.float32).astype(float), times[-1:])
    return found


def _is_numeric(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "iufb"


def _new_scalars(known: Mapping[str, Scalars], wanted: Mapping[str, Scalars]) -> list[Any]:
    """The events that are missing, after a restart mark where what is known isn't the beginning of what is wanted."""
    starts = [_first_difference(known.get(tag), wanted.get(tag)) for tag in {*known, *wanted}]
    restart = min((step for step in starts if step is not None), default=None)
    events = []
    if restart is not None:
        mark = SessionLog(status=SessionLog.START)
        events.append(Event(wall_time=_last_time(wanted), step=restart, session_log=mark))
    rows = []
    for tag, scalars in wanted.items():
        old = known.get(tag)
        new = (
            scalars.steps >= restart
            if restart is not None
            else np.arange(len(scalars.steps)) >= (len(old.steps) if old else 0)
        )
        columns = (scalars.steps[new].tolist(), scalars.values[new].tolist(), scalars.times[new].tolist())
        rows += [(step, time, tag, value) for step, value, time in zip(*columns, strict=True)]
    for step, time, tag, value in sorted(rows, key=lambda row: row[0]):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        events.append(Event(wall_time=time, step=step, summary=summary))
    return events


def _first_difference(old: Scalars | None, new: Scalars | None) -> int | None:
    """The step from which what is known doesn't hold any more; None where it holds."""
    if old is None:
        return None
    size = min(len(old.steps), len(new.steps)) if new else 0
    is_same = np.zeros(0, dtype=bool)
    if new is not None:
        is_same = (old.steps[:size] == new.steps[:size]) & _equal(old.values[:size], new.values[:size])
    if is_same.all() and size == len(old.steps):
        return None
    place = size if is_same.all() else int(np.argmin(is_same))
    steps = [each.steps[place] for each in (old, new) if each is not None and place < len(each.steps)]
    if new is not None and len(new.steps):
        # Its last row is written again at least: TensorBoard's own server knows a restart by steps that go back.
        steps.append(new.steps[-1])
    return int(min(steps))


def _equal(a: Any, b: Any) -> Any:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _last_time(scalars: Mapping[str, Scalars]) -> float:
    return max((float(each.times[-1]) for each in scalars.values() if len(each.times)), default=0.0)


def _framed(event: Any) -> bytes:
    data: bytes = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def _session_start(facts: Mapping[str, Any], time: float) -> Any:
    info = SessionStartInfo(start_time_secs=time)
    for name, value in facts["param"].items():
        entry = info.hparams[str(name)]
        if isinstance(value, bool):
            entry.bool_value = value
        elif isinstance(value, int | float) and name != "seed":  # a seed is a name, not a quantity
            entry.number_value = value
        else:
            entry.string_value = str(value)
    return _session(metadata.SESSION_START_INFO_TAG, time, HParamsPluginData(session_start_info=info))


def _session_end(state: str, time: float) -> Any:
    status = api_pb2.STATUS_SUCCESS if state == FINISHED else api_pb2.STATUS_FAILURE
    info = SessionEndInfo(status=status, end_time_secs=time)
    return _session(metadata.SESSION_END_INFO_TAG, time, HParamsPluginData(session_end_info=info))


def _session(tag: str, time: float, data: Any) -> Any:
    content = metadata.create_summary_metadata(data)
    value = Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)
    return Event(wall_time=time, summary=Summary(value=[value]))


def sync(output: Path, names: list[str]) -> Iterator[tuple[str, int]]:
    """Sync the trials of these names; yields each name with the number of events that were added."""
    for name in names:
        try:
            yield name, sync_trial(output / name)
        except FileNotFoundError:  # deleted meanwhile, or no trial
            continue
