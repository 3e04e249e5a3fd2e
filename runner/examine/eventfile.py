"""TensorBoard's event files, read straight from their records.

The records are framed as TFRecord (length, its checksum, data, its checksum); each is a protobuf `Event`. What
TensorBoard's own EventAccumulator would show is what comes out, without its reservoirs and in a fraction of its time.

Nearly all records of a file are one scalar each, and those of one tag differ in three places only: time, step and
value. One record of a kind is parsed by protobuf; the others of its kind are taken apart together.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

_HEADER = struct.Struct("<QI")
_CHECKSUM_BYTES = 4
_SCALARS_PLUGIN = "scalars"
# From this file version on, a restart is said and not guessed from the steps.
_SAYS_RESTARTS = 2.0
# Protobuf's bytes before the time (a double), the step (a varint) and the value (a float) of a plain record.
_TIME_MARK, _STEP_MARK, _VALUE_MARK = 0x09, 0x10, 0x15
_TIME_BYTES, _VALUE_BYTES, _STEP_BYTES_MAX, _LENGTH_MAX = 8, 4, 9, 512
_STEP_AT = 2 + _TIME_BYTES


@dataclass
class Scalars:
    """One tag: its steps, its values (of single precision) and when each was written, in seconds since the epoch."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times: NDArray[np.float64]


def event_files(path: str | Path) -> list[Path]:
    """Return the event files in a directory (not below it) in TensorBoard's order, or the one file that `path` is."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if "tfevents" in file.name and file.is_file())


def record_spans(data: bytes) -> tuple[list[int], list[int]]:
    """Return where each record's data begins and its length, up to one that is not whole or has a damaged length."""
    # Few lengths occur, so that their checksums are worked out once.
    lengths: dict[bytes, int] = {}
    begins, found = [], []
    start, size, header_bytes = 0, len(data), _HEADER.size
    while (begin := start + header_bytes) <= size:
        header = data[start:begin]
        length = lengths.get(header)
        if length is None:
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                break
            lengths[header] = length
        start = begin + length + _CHECKSUM_BYTES
        if start > size:
            break
        begins.append(begin)
        found.append(length)
    return begins, found


@dataclass
class _Part:
    """Scalars of one tag with the place of each one's record in the run."""

    places: NDArray[np.int64]
    scalars: Scalars


@dataclass
class _Run:
    """What the events of a run have said so far."""

    parts: dict[str, list[_Part]] = field(default_factory=lambda: defaultdict(list))
    restarts: list[tuple[int, int, set[str] | None]] = field(default_factory=list)
    """Place and step from which earlier scalars no longer count, of some tags or of all."""
    plugins: dict[str, str] = field(default_factory=dict)
    file_version: float = 0.0
    newest_step: int = 0
    places: int = 0

    def add(self, places: Iterable[int], tag: str, steps: Any, values: Any, times: Any) -> None:
        """Take in scalars of one tag."""
        scalars = Scalars(np.array(steps, np.int64), np.array(values, np.float64), np.array(times, np.float64))
        self.parts[tag].append(_Part(np.array(places, np.int64), scalars))

    def add_event(self, place: int, event: Any) -> None:
        """Take in any event."""
        kind = event.WhichOneof("what")
        if kind == "file_version":
            self.file_version = _version(event.file_version)
        if self.file_version < _SAYS_RESTARTS:
            self._guess_restart(place, event, kind)
        elif kind == "session_log" and event.session_log.status == SessionLog.START:
            self.restarts.append((place, event.step, None))
        for value in event.summary.value:
            number = value.simple_value if value.HasField("simple_value") else self._tensor(value)
            if number is not None:
                self.add([place], value.tag, [event.step], [number], [event.wall_time])

    def _guess_restart(self, place: int, event: Any, kind: str | None) -> None:
        if kind == "summary" and event.step < self.newest_step:
            self.restarts.append((place, event.step, {value.tag for value in event.summary.value}))
        else:
            self.newest_step = event.step

    def _tensor(self, value: Any) -> float | None:
        """The scalar that TensorFlow 2 writes as a tensor; None for whatever else a value may be."""
        if value.HasField("metadata"):
            self.plugins.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
        if not value.HasField("tensor") or self.plugins.get(value.tag) != _SCALARS_PLUGIN:
            return None
        numbers = tensor_util.make_ndarray(value.tensor)
        return float(numbers.item()) if numbers.size == 1 else None

    def scalars(self) -> dict[str, Scalars]:
        """What still counts, by tag."""
        found = {}
        for tag, parts in self.parts.items():
            places = np.concatenate([part.places for part in parts])
            columns = [
                np.concatenate([getattr(part.scalars, name) for part in parts]) for name in ("steps", "values", "times")
            ]
            is_kept = np.ones(len(places), dtype=bool)
            for place, step, tags in self.restarts:
                if tags is None or tag in tags:
                    is_kept &= (places >= place) | (columns[0] < step)
            order = np.argsort(places, kind="stable")
            order = order[is_kept[order]]
            if len(order):
                found[tag] = Scalars(*(column[order] for column in columns))
        return found


def _version(text: str) -> float:
    _, _, number = text.rpartition("brain.Event:")
    try:
        return float(number)
    except ValueError:
        return -1.0


def _add_file(run: _Run, data: bytes) -> None:
    begins, lengths = record_spans(data)
    first, run.places = run.places, run.places + len(begins)
    rest = range(len(begins))
    if begins and run.file_version == 0:
        run.add_event(first, Event.FromString(data[begins[0] : begins[0] + lengths[0]]))
        rest = range(1, len(begins))
    # Restarts that are guessed from the steps need one event after the other.
    plain = _add_plain(run, data, begins, lengths, first, rest) if run.file_version >= _SAYS_RESTARTS else set()
    for index in rest:
        if index not in plain:
            run.add_event(first + index, Event.FromString(data[begins[index] : begins[index] + lengths[index]]))


def _add_plain(run: _Run, data: bytes, begins: list[int], lengths: list[int], first: int, chosen: range) -> set[int]:
    """Add the records that hold one scalar and nothing else; returns which these are."""
    if not chosen:
        return set()
    characters = np.frombuffer(data, dtype=np.uint8)
    all_begins, all_lengths = np.array(begins), np.array(lengths)
    done: list[NDArray[np.intp]] = []
    for length in np.unique(all_lengths[chosen.start :]):
        if not _STEP_AT + 1 + _VALUE_BYTES < length <= _LENGTH_MAX:
            continue
        indices = chosen.start + np.flatnonzero(all_lengths[chosen.start :] == length)
        rows = characters[all_begins[indices][:, None] + np.arange(length)]
        for members in _of_one_kind(rows):
            tag = _only_scalar(rows[members[0]].tobytes())
            if tag is not None:
                steps, values, times = _fields(rows[members])
                run.add(indices[members] + first, tag, steps, values, times)
                done.append(indices[members])
    return set(np.concatenate(done).tolist()) if done else set()


def _of_one_kind(rows: NDArray[np.uint8]) -> Iterator[NDArray[np.intp]]:
    """Yield the indices of rows of one length that are alike in all but their time, step and last four bytes."""
    step_bytes = _step_bytes(rows)
    is_plain = (rows[:, 0] == _TIME_MARK) & (rows[:, _STEP_AT - 1] == _STEP_MARK)
    is_plain &= (rows[:, -_VALUE_BYTES - 1] == _VALUE_MARK) & (step_bytes > 0)
    for size in np.unique(step_bytes[is_plain]):
        members = np.flatnonzero(is_plain & (step_bytes == size))
        middles = np.ascontiguousarray(rows[members, _STEP_AT + size : -_VALUE_BYTES])
        if middles.shape[1]:
            _, kinds = np.unique(middles.view(f"V{middles.shape[1]}").ravel(), return_inverse=True)
            for kind in range(kinds.max() + 1):
                yield members[kinds == kind]


def _step_bytes(rows: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many bytes the step takes: up to the first without the bit that says that more follow; 0: too many."""
    is_last = rows[:, _STEP_AT : _STEP_AT + _STEP_BYTES_MAX] < 0x80
    return np.where(is_last.any(axis=1), is_last.argmax(axis=1) + 1, 0)


def _only_scalar(record: bytes) -> str | None:
    """The tag of a record whose last bytes are the value of its only scalar; None for any other record."""
    try:
        event = Event.FromString(record)
    except DecodeError:
        return None
    values = event.summary.value
    if len(values) != 1 or not values[0].HasField("simple_value"):
        return None
    tag: str = values[0].tag
    value = Summary.Value(tag=tag, simple_value=values[0].simple_value)
    plain = Event(wall_time=event.wall_time, step=event.step, summary=Summary(value=[value]))
    return tag if plain.SerializeToString(deterministic=True) == record else None


def _fields(rows: NDArray[np.uint8]) -> tuple[Any, Any, Any]:
    """The steps, values and times of rows of one kind."""
    size = _step_bytes(rows[:1])[0]
    steps = np.zeros(len(rows), dtype=np.int64)
    for index in range(size):
        steps |= (rows[:, _STEP_AT + index].astype(np.int64) & 0x7F) << (7 * index)
    values = np.ascontiguousarray(rows[:, -_VALUE_BYTES:]).view("<f4").ravel()
    times = np.ascontiguousarray(rows[:, 1 : 1 + _TIME_BYTES]).view("<f8").ravel()
    return steps, values, times


def read_scalars(path: str | Path) -> dict[str, Scalars]:
    """Return tag → scalars of an event file, or of a directory's event files one after the other.

    A file that is being written, or was cut off, is read up to its last whole record. A restart that the file tells of
    replaces what it repeats. Raises ValueError where a whole record is damaged.
    """
    run = _Run()
    for file in event_files(path):
        try:
            _add_file(run, file.read_bytes())
        except DecodeError as error:
            raise ValueError(f"{file.name} holds a record that is no event ({error})") from None
    return run.scalars()
