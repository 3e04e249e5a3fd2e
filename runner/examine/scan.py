"""Everything on record of every trial of an output directory, each file read once."""

from __future__ import annotations

import gc
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine import cachefile, facts, readers
from runner.examine.cachefile import Signature
from runner.examine.metrics import METRICS_FILE, NOT_RESULTS, last_cells, read_evaluation, read_metrics
from runner.examine.readers import SHARED_DIRECTORY, natural_key, shared_directories, shared_name, trial_directories
from runner.examine.sources import JSONL_FILE, is_event_file, jsonl_rows, read_scalars

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from runner.examine.columns import Builder, Trials

_CHUNK = 256
# Below this share of new trials the cache isn't worth being written again.
_WORTH_SAVING = 0.02
# In a signature: not even the same the next time.
_NEVER = -1


def read_trials(output: str | Path = "output", regex: str = ".*", use_cache: bool = True) -> Trials:
    """Return what is on record of each trial whose name matches `regex`, in natural order.

    Directories without a `param` are no trials. What can't be read is said in the trial's `faults`.
    """
    from runner.examine import cache
    from runner.examine.columns import Trials, join

    output = Path(output)
    with many_objects():
        known = cache.load(output) if use_cache else Trials()
        names = _directories(output, regex, known.names)
        rows = {name: row for row, name in enumerate(known.names)}
        kept = [
            rows[name]
            for name in names
            if name in rows and cachefile.is_current(f"{output}/{name}", known.signatures[rows[name]])
        ]
        is_kept = set(kept)
        left = [name for name in names if rows.get(name, -1) not in is_kept]
        read_at_ns = time.time_ns()
        fresh = _read(output, left)
        if not len(fresh) and len(kept) == len(known):
            return _matching(known, regex)
        found = _in_order(join([known.take(kept), fresh]), names)
        if use_cache and len(fresh) > _WORTH_SAVING * len(names):
            cache.save(output, _with_others(output, found, known, names), read_at_ns)
        return _matching(found, regex)


def _with_others(output: Path, trials: Trials, known: Trials, names: Sequence[str]) -> Trials:
    """The trials in natural order with those that are known and still there, but were not asked for."""
    from runner.examine.columns import join

    listed = set(names)
    others = [row for row, name in enumerate(known.names) if name not in listed and (output / name).is_dir()]
    if not others:
        return trials
    everything = join([trials, known.take(others)])
    return _in_order(everything, sorted(everything.names, key=_order))


def _directories(output: Path, regex: str, ordered: Sequence[str]) -> list[str]:
    """The names of the directories of trials in natural order, which is at hand for those that are known already."""
    shared = shared_directories(output)
    listed = {*trial_directories(output, regex), *shared}
    if listed.issubset(ordered):
        return [name for name in ordered if name in listed]
    return sorted(listed, key=_order)


def _order(name: str) -> tuple[bool, Any]:
    return name.startswith(SHARED_DIRECTORY), natural_key(name)


def _in_order(trials: Trials, names: Sequence[str]) -> Trials:
    rows = {name: row for row, name in enumerate(trials.names)}
    return trials if trials.names == names else trials.take([rows[name] for name in names if name in rows])


def labels(trials: Trials) -> list[str]:
    """Return the names of the trials: those of their directories, where each has its own."""
    if not any(name.startswith(SHARED_DIRECTORY) for name in trials.names[-1:]):
        return trials.names
    own = [name or directory for name, directory in zip(trials.column("facts", "name"), trials.names, strict=True)]
    return list(readers.labels(dict(zip(trials.names, own, strict=True))).values())


def _matching(trials: Trials, regex: str) -> Trials:
    """The trials in natural order, without those that have no directory of the name that is asked for."""
    names = labels(trials)
    if names is trials.names:
        return trials
    rows = sorted(range(len(names)), key=lambda row: natural_key(names[row]))
    return trials.take([row for row in rows if re.search(regex, names[row])])


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


@dataclass(slots=True)
class _Trial:
    """What the files of one trial say; of its curves either the content of metrics.csv or the name of another file."""

    signature: Signature
    param: dict[Any, Any]
    facts: facts.Facts
    faults: list[str]
    content: bytes | None
    source: str | None
    values: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Mapping[Any, Any]]:
        told = {"faults": "; ".join(self.faults)} if self.faults else {}
        return {"param": self.param, "metrics": self.metrics, "values": self.values, "facts": self.facts | told}


def _read(output: Path, names: Sequence[str]) -> Trials:
    from runner.examine.columns import Builder

    builder = Builder(len(names))
    for start in range(0, len(names), _CHUNK):
        chunk: dict[str, _Trial] = {}
        for name in names[start : start + _CHUNK]:
            with suppress(FileNotFoundError):  # deleted meanwhile
                trial = _read_trial(f"{output}/{name}")
                if trial is not None:
                    chunk[name] = trial
        _add_metrics(output, chunk, builder)
        for name, trial in chunk.items():
            builder.add(name, trial.signature, trial.record())
    return builder.trials()


def _read_trial(directory: str) -> _Trial | None:
    # The signature says how each file was before it was read: what changes meanwhile is read again the next time.
    numbers = [os.stat(directory).st_mtime_ns]  # noqa: PTH116 - called for every trial
    try:
        files = os.listdir(directory)  # noqa: PTH208
    except PermissionError as error:  # another user's, who may allow it without a sign
        cause = f"the directory can't be read: {error.strerror}"
        return _Trial(Signature((), [_NEVER]), {}, {"state": facts.DAMAGED, "cause": cause}, [], None, None)
    if "param" not in files:
        return None
    signed = [name for name in ("param", "stat", "attempts", METRICS_FILE) if name in files]
    contents = {name: _content(directory, name, numbers) for name in signed}
    content = contents.get(METRICS_FILE)
    if content is None:
        signed += [JSONL_FILE] if JSONL_FILE in files else sorted(filter(is_event_file, files))
    source = next(iter(signed[len(contents) :]), None)
    evaluations = sorted(name for name in files if name.startswith("eval_") and name.endswith(".json"))
    signed += evaluations
    for name in signed[len(contents) :]:
        cachefile.sign(numbers, os.stat(f"{directory}/{name}"))  # noqa: PTH116
    told = facts.describe(contents["param"] or b"", contents.get("stat"), contents.get("attempts"))
    told.pop("stages")
    faults = [*told.pop("faults"), *(f"{name}: can't be read" for name in contents if contents[name] is None)]
    trial = _Trial(Signature(tuple(signed), numbers), told.pop("param"), told, faults, content, source)
    if f"/{SHARED_DIRECTORY}/" in directory:
        trial.facts["name"] = shared_name(directory)
    for name in evaluations:
        try:
            trial.values |= read_evaluation(Path(directory) / name)
        except (ValueError, OSError) as error:
            trial.faults.append(str(error))
    return trial


def _content(directory: str, name: str, numbers: list[int]) -> bytes | None:
    """The content of a file, which is signed; None where it can't be read."""
    try:
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY)
        try:
            found = os.fstat(descriptor)
            content = os.read(descriptor, found.st_size + 1)
            while len(content) > found.st_size and (more := os.read(descriptor, 1 << 20)):
                content += more
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError:  # a directory of this name, or no permission, which may be given without a sign
        numbers += (_NEVER, _NEVER)
        return None
    cachefile.sign(numbers, found)
    return content


def _add_metrics(output: Path, chunk: Mapping[str, _Trial], builder: Builder) -> None:
    from runner.examine import batch

    names, trials = list(chunk), list(chunk.values())
    contents = {place: trial.content for place, trial in enumerate(trials) if trial.content is not None}
    plain = list(contents)
    blocks, rest = batch.parse(list(contents.values()))
    for block in blocks:
        titles, found = batch.summaries(block, NOT_RESULTS)
        places = [plain[file] for file in block.files]
        for column, title in enumerate(titles):
            builder.summarize(title, [len(builder) + place for place in places], found[:, column])
        # What is there has a step.
        for place, has in zip(places, (found[:, :, 1] == found[:, :, 1]).tolist(), strict=True):
            trials[place].metrics = dict.fromkeys(itertools.compress(titles, has))
    for place in rest:
        _add_slowly(output / names[plain[place]], METRICS_FILE, trials[plain[place]])
    for name, trial in chunk.items():
        if trial.source is not None:
            _add_slowly(output / name, trial.source, trial)


def _add_slowly(directory: Path, source: str, trial: _Trial) -> None:
    try:
        if source == METRICS_FILE:
            trial.metrics = _summaries(read_metrics(directory), last_cells(directory / METRICS_FILE))
        elif source == JSONL_FILE:
            rows = jsonl_rows(directory / JSONL_FILE)
            trial.metrics = _summaries(rows.frame(), rows.last())
        else:
            trial.metrics = _scalar_summaries(directory)
    except (ValueError, OSError) as error:
        trial.faults.append(f"{source}: {error}")


def _scalar_summaries(directory: Path) -> dict[str, Any]:
    return {
        tag: _summary(scalars.steps.astype(float), scalars.values.astype(float), float(scalars.values[-1]))
        for tag, scalars in read_scalars(directory).items()
        if tag not in NOT_RESULTS and len(scalars.values)
    }


def _summaries(frame: pd.DataFrame, last: Mapping[str, Any]) -> dict[str, Any]:
    """The summaries of a frame's columns, given what was written last in each."""
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
        if name in last or (values == values).any():
            found[name] = _summary(steps, values, last.get(name))
    return found


def _summary(steps: NDArray[np.float64], values: NDArray[np.float64], last: Any) -> list[Any]:
    """One column's summary; where the last thing that was written is no number, it is the last value."""
    from runner.examine import batch

    if not (values == values).any():
        return [last, float(steps[-1]), None, None, None, None]
    found = batch.summary_of(steps, values)
    return [last, float(steps[-1]), *found[2:]] if last != last else found
