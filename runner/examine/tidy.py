"""All curves in one tidy frame: a row for each logged step of each trial."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine import curvecache
from runner.examine.metrics import METRICS_FILE, read_metrics
from runner.examine.scan import labels, many_objects, read_trials
from runner.examine.sources import JSONL_FILE, is_event_file, read_jsonl, read_scalars
from runner.examine.tables import several, typed

if TYPE_CHECKING:
    import pandas as pd

    from runner.examine.cachefile import Signature
    from runner.examine.columns import Trials

_CHUNK = 256
_OWN = ("trial", "step")
# Below this share of new curves the cache isn't worth being written again.
_WORTH_SAVING = 0.02


@many_objects()
def curves(
    output: str | Path = "output",
    columns: str | Sequence[str] | None = None,
    regex: str = ".*",
    concise: bool = True,
    use_cache: bool = True,
) -> pd.DataFrame:
    """Return every logged step of every trial as one long frame: `trial`, the parameters, `step` and the columns.

    The numbers come from metrics.csv, or else metrics.jsonl, or else TensorBoard's event files (with NaN where a tag
    has no value at a step). Where a trial repeated steps after an interruption, the later ones count. Trials without
    any have no rows; `wide_table` has them all.

    Args:
        columns: only these, such as `["loss"]`; rows in which all of them are empty are left out.
        regex: only directories whose name it matches anywhere.
        concise: without the parameters that are the same everywhere.
        use_cache: read what did not change from `output/.runner/curves.cache`, and keep it up to date.
    """
    import pandas as pd

    output = Path(output)
    columns = None if columns is None else several(columns)
    trials = read_trials(output, regex, use_cache)
    parameters = trials.parameters(varying=concise)
    frame = long_frame(output, trials, columns, use_cache)
    if frame.empty:
        return pd.DataFrame(columns=["trial", *map(title, parameters), "step", *(columns or [])])
    codes = frame.pop("code").to_numpy()
    names = pd.Index(labels(trials), dtype="object")
    heads: dict[Any, Any] = {"trial": pd.Categorical.from_codes(codes, categories=names)}
    for name in parameters:
        heads[title(name)] = pd.Series(typed(trials.column("param", name))).array.take(codes)
    logged = {f"metric.{name}" if name in heads else name: frame[name].array for name in frame}
    return pd.DataFrame({**heads, **logged}, copy=False)  # of what may be gigabytes


def title(parameter: Any) -> Any:
    """Return the column of a parameter: its name, but for those that the frame has itself."""
    return f"param.{parameter}" if parameter in _OWN else parameter


def long_frame(output: Path, trials: Trials, columns: Sequence[str] | None, use_cache: bool = True) -> pd.DataFrame:
    """Return each trial's rows, with the trial's place among all as `code`, in their order."""
    import pandas as pd

    signed = zip(trials.names, trials.signatures, strict=True)
    sources = {name: found for name, signature in signed if (found := _source(signature))}
    codes = {name: code for code, name in enumerate(trials.names)}
    kept = curvecache.load(output, sources, columns) if use_cache else []
    known = {name for block in kept for name in block.trials}
    left = [name for name in sources if name not in known]
    read_at_ns = time.time_ns()
    fresh = list(_read(output, left, sources))
    if use_cache and len(left) > _WORTH_SAVING * len(sources):
        curvecache.save(output, fresh, sources, read_at_ns)
    parts = [_part(block, codes, columns) for block in (*kept, *fresh)]
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame({"code": [], "step": []})
    frame = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0].reset_index(drop=True)
    if not frame["code"].is_monotonic_increasing:
        frame = frame.sort_values("code", kind="stable", ignore_index=True)
    if frame["step"].dtype.kind == "f" and (frame["step"] % 1 == 0).all():
        frame = frame.astype({"step": "int64"})
    return frame


def _source(signature: Signature) -> curvecache.Source:
    """What a signature says of the files that the curves come from."""
    files, numbers = signature
    for is_source in (METRICS_FILE.__eq__, JSONL_FILE.__eq__, is_event_file):
        places = [place for place, name in enumerate(files) if is_source(name)]
        if places:
            return [word for at in places for word in (files[at], numbers[2 * at + 1], numbers[2 * at + 2])]
    return []


def _read(output: Path, names: Sequence[str], sources: Mapping[str, curvecache.Source]) -> Iterator[curvecache.Block]:
    import numpy as np
    import pandas as pd

    from runner.examine import batch

    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        blocks, rest = batch.parse([_content(output / name, sources[name][0]) for name in chunk])
        for block in blocks:
            counts = np.diff(block.starts, append=len(block.rows)).tolist()
            frame = pd.DataFrame(block.rows, columns=block.names)
            yield curvecache.Block([chunk[place] for place in block.files], counts, frame)
        for place in rest:
            slow = _slowly(output / chunk[place], sources[chunk[place]][0])
            if slow is not None:
                yield curvecache.Block([chunk[place]], [len(slow)], slow)


def _content(directory: Path, source: str) -> bytes:
    try:
        return (directory / METRICS_FILE).read_bytes() if source == METRICS_FILE else b""
    except OSError:
        return b""


def _slowly(directory: Path, source: str) -> pd.DataFrame | None:
    try:
        if source == METRICS_FILE:
            frame = read_metrics(directory)
            return frame if "step" in frame else frame.rename_axis("step").reset_index()
        return read_jsonl(directory / JSONL_FILE) if source == JSONL_FILE else _scalars_frame(directory)
    except (OSError, ValueError):  # wide_table tells of it
        return None


def _scalars_frame(directory: Path) -> pd.DataFrame:
    import pandas as pd

    columns = {}
    for tag, scalars in read_scalars(directory).items():
        column = pd.Series(scalars.values, index=pd.Index(scalars.steps, name="step"))
        columns[tag] = column[~column.index.duplicated(keep="last")]
    return pd.DataFrame(columns).sort_index().reset_index() if columns else pd.DataFrame({"step": []})


def _part(block: curvecache.Block, codes: Mapping[str, int], columns: Sequence[str] | None) -> pd.DataFrame:
    import numpy as np

    frame = block.frame
    chosen = [name for name in columns if name in frame] if columns is not None else frame.columns.drop("step").tolist()
    part = frame[["step", *chosen]]
    part.insert(0, "code", np.repeat([codes[name] for name in block.trials], block.counts))
    return part if columns is None else part[part[chosen].notna().any(axis=1)]
