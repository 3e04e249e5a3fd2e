"""The cost of reading TensorBoard scalars: this reader, the bare protobuf records, and EventAccumulator.

    python -m bench.event_files [--scalars 50000] [--repeat 5]

One file with one scalar a record, of three tags in turn. The bare parse splits the file into its records and lets
protobuf parse each, nothing else. The best of several repetitions counts.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from runner.examine.eventfile import read_scalars

TAGS = ("loss/train", "loss/val", "lr")


def write(directory: str, count: int) -> Path:
    """Makes the file."""
    writer = EventFileWriter(directory)
    for index in range(count):
        value = Summary.Value(tag=TAGS[index % len(TAGS)], simple_value=1 / (index + 1))
        writer.add_event(Event(wall_time=1.7e9 + index, step=index // len(TAGS), summary=Summary(value=[value])))
    writer.close()
    return next(Path(directory).iterdir())


def parse_bare(path: Path) -> int:
    """Parses the records; returns how many there are."""
    data = path.read_bytes()
    position = count = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        Event.FromString(data[position + 12 : position + 12 + length])
        position += length + 16
        count += 1
    return count


def accumulate(path: Path) -> int:
    """Reads the scalars as TensorBoard does."""
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    return sum(len(accumulator.Scalars(tag)) for tag in TAGS)


def best_of(repeat: int, work: Callable[[], object]) -> float:
    """The least time of several, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scalars", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="events-") as directory:
        path = write(directory, options.scalars)
        assert sum(len(found.steps) for found in read_scalars(path).values()) == options.scalars
        bare = best_of(options.repeat, lambda: parse_bare(path))
        rows = {
            "bare protobuf parse": bare,
            "read_scalars": best_of(options.repeat, lambda: read_scalars(path)),
            "EventAccumulator": best_of(2, lambda: accumulate(path)),
        }
    print(f"{options.scalars:,} scalars{'':12}{'seconds':>10}{'times bare':>12}")
    for name, seconds in rows.items():
        print(f"{name:<26}{seconds:10.3f}{seconds / bare:12.1f}")


if __name__ == "__main__":
    main()
