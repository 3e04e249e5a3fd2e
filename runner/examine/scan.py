"""Everything on record of every trial of an output directory, each file read once."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine import cache, facts, readers
from runner.examine.metrics import METRICS_FILE, NOT_RESULTS, last_cells, read_evaluation, read_metrics
from runner.examine.readers import SHARED_DIRECTORY, natural_key, shared_directories, shared_name, trial_names
from runner.examine.sources import JSONL_FILE, is_event_file, read_jsonl, read_scalars

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
"""A trial's facts with `metrics`: name → summary, `values`: name → number, and `faults`: files that can't be read."""

_CHUNK = 256
# Below this share of new trials the cache isn't worth being written again.
_WORTH_SAVING = 0.02


def read_entries(output: str | Path = "output", regex: str = ".*", use_cache: bool = True) -> dict[str, cache.Entry]:
    """Return what is on record of each trial whose name matches `regex` by its directory within `output`, in natural
    order, with the signature of the files that say so.

    Directories without a `param` are no trials. What can't be read is said in the trial's `faults`.
    """
    output = Path(output)
    with many_objects():
        names = [*trial_names(output, regex), *shared_directories(output)]
        started_ns = cache.now_ns()
        known = cache.load(output) if use_cache else {}
        found = {
            name: known[name]
            for name in names
            if name in known and cache.is_current(f"{output}/{name}", known[name][0])
        }
        fresh = dict(_read(output, [name for name in names if name not in found]))
        if use_cache and len(fresh) > _WORTH_SAVING * len(names):
            plain = {name: entry for name, entry in fresh.items() if cache.is_plain(entry[1]["param"])}
            cache.save(output, {**known, **plain}, started_ns)
        found |= fresh
        entries = {name: found[name] for name in names if name in found}
        return _matching(entries, regex) if len(entries) and names[-1].startswith(SHARED_DIRECTORY) else entries


def labels(entries: Mapping[str, cache.Entry]) -> dict[str, str]:
    """Return the names of the trials by their directories: those of the directories, where each has its own."""
    return readers.labels({name: record.get("name", name) for name, (_, record) in entries.items()})


def _matching(entries: Mapping[str, cache.Entry], regex: str) -> dict[str, cache.Entry]:
    """The entries in natural order, without those trials that have no directory of the name that is asked for."""
    names = sorted(labels(entries).items(), key=lambda item: natural_key(item[1]))
    return {directory: entries[directory] for directory, name in names if re.search(regex, name)}


@contextmanager
def many_objects() -> Iterator[None]:
    """Leave what is read to itself: it is kept, and the garbage collector would look at all of it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(output: Path, names: Sequence[str]) -> Iterator[tuple[str, cache.Entry]]:
    for start in range(0, len(names), _CHUNK):
        chunk: dict[str, cache.Entry] = {}
        metrics: dict[str, bytes] = {}
        for name in names[start : start + _CHUNK]:
            try:
                found = _read_records(f"{output}/{name}")
            except FileNotFoundError:  # deleted meanwhile
                continue
            if found is not None:
                chunk[name] = found[:2]
                if found[2] is not None:
                    metrics[name] = found[2]
        _add_metrics(output, chunk, metrics)
        yield from chunk.items()


def _read_records(directory: str) -> tuple[cache.Signature, Record, bytes | None] | None:
    """The signature of all files that count, what the records and the evaluations say, and metrics.csv, unparsed."""
    # The signature says how each file was before it was read: what changes meanwhile is read again the next time.
    signature: cache.Signature = [os.stat(directory).st_mtime_ns]  # noqa: PTH116 - called for every trial
    try:
        files = os.listdir(directory)  # noqa: PTH208
    except PermissionError:
        return None
    if "param" not in files:
        return None
    param, stat, attempts, metrics = (
        _content(directory, name, signature) if name in files else None
        for name in ("param", "stat", "attempts", METRICS_FILE)
    )
    others = (
        [] if metrics is not None else [JSONL_FILE] if JSONL_FILE in files else sorted(filter(is_event_file, files))
    )
    evaluations = sorted(name for name in files if name.startswith("eval_") and name.endswith(".json"))
    for name in (*(others if metrics is None else ()), *evaluations):
        cache.sign(signature, name, os.stat(f"{directory}/{name}"))  # noqa: PTH116
    record = facts.describe(param or b"", stat, attempts)
    record |= {"metrics": {}, "values": {}}
    if f"/{SHARED_DIRECTORY}/" in directory:
        record["name"] = shared_name(directory)
    for name in evaluations:
        try:
            record["values"] |= read_evaluation(Path(directory) / name)
        except (ValueError, OSError) as error:
            record["faults"].append(str(error))
    return signature, record, metrics


def _content(directory: str, name: str, signature: cache.Signature) -> bytes | None:
    """The content of a file, which is signed; None where it can't be read."""
    try:
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY)
        try:
            found = os.fstat(descriptor)
            cache.sign(signature, name, found)
            content = os.read(descriptor, found.st_size + 1)
            while len(content) > found.st_size and (more := os.read(descriptor, 1 << 20)):
                content += more
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError:  # a directory of this name, or no permission
        return None
    return content


def _add_metrics(output: Path, chunk: Mapping[str, cache.Entry], contents: Mapping[str, bytes]) -> None:
    from runner.examine import batch

    names = list(contents)
    blocks, rest = batch.parse(list(contents.values()))
    for block in blocks:
        for place, found in batch.summaries(block, NOT_RESULTS):
            chunk[names[place]][1]["metrics"] = found
    left = {names[place]: METRICS_FILE for place in rest}
    for name, (signature, record) in chunk.items():
        source = left.get(name) or next(
            (file for file in signature[1::3] if file == JSONL_FILE or is_event_file(file)), None
        )
        if source is not None:
            _add_slowly(output / name, source, record)


def _add_slowly(directory: Path, source: str, record: Record) -> None:
    try:
        if source == METRICS_FILE:
            record["metrics"] = _summaries(read_metrics(directory), last_cells(directory / METRICS_FILE))
        elif source == JSONL_FILE:
            record["metrics"] = _summaries(read_jsonl(directory / JSONL_FILE), {})
        else:
            record["metrics"] = _scalar_summaries(directory)
    except (ValueError, OSError) as error:
        record["faults"].append(f"{source}: {error}")


def _scalar_summaries(directory: Path) -> dict[str, Any]:
    from runner.examine import batch

    return {
        tag: batch.summary_of(scalars.steps.astype(float), scalars.values)
        for tag, scalars in read_scalars(directory).items()
        if tag not in NOT_RESULTS and (scalars.values == scalars.values).any()
    }


def _summaries(frame: pd.DataFrame, last: Mapping[str, Any]) -> dict[str, Any]:
    """The summaries of a frame's columns; where the last thing that was written is no number, it is the last value."""
    from runner.examine import batch

    found: dict[str, Any] = {}
    steps = frame["step"].to_numpy(float) if "step" in frame else frame.index.to_numpy(float)
    for name in frame.columns:
        if name in NOT_RESULTS:
            continue
        if frame[name].dtype.kind not in "iufb":
            if name in last:
                found[name] = [last[name], steps[-1], None, None, None, None]
            continue
        values = frame[name].to_numpy(float)
        end = last.get(name)
        if (values == values).any():
            found[name] = batch.summary_of(steps, values)
            if end != end:
                found[name][:2] = [end, float(steps[-1])]
        elif end is not None:
            found[name] = [end, float(steps[-1]), None, None, None, None]
    return found
