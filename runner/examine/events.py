"""The scalars of a trial's TensorBoard event files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.examine.readers import time_key

if TYPE_CHECKING:
    import pandas as pd

_PATTERN = "events.out.tfevents.*"


def read_events(path: str | Path) -> "pd.DataFrame":
    """Return the scalars in the event files under `path`: a column `step`, then one per tag, steps ascending.

    Files of resumed attempts are joined, the later value of a step first; tags of files in a
    subdirectory begin with its name. A last record that is being written is left out. The frame is
    empty, but for the column `step`, where there are no event files.
    """
    import pandas as pd

    path = Path(path)
    tags: dict[str, dict[int, float]] = {}
    for file in sorted(path.rglob(_PATTERN), key=lambda file: (file.parent, time_key(file))):
        folder = file.parent.relative_to(path).as_posix()
        _read_file(file, "" if folder == "." else f"{folder}/", tags)
    columns = {tag: pd.Series(tags[tag], dtype=float) for tag in sorted(tags)}
    frame = pd.DataFrame(columns).sort_index()
    return frame.rename_axis("step").reset_index().astype({"step": "int64"})


def _read_file(file: Path, prefix: str, tags: dict[str, dict[int, float]]) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            scalar = _scalar(value)
            if scalar is not None:
                tags.setdefault(prefix + value.tag, {})[event.step] = scalar


def _scalar(value: Any) -> float | None:
    from tensorboard.util import tensor_util

    if value.metadata.plugin_data.plugin_name != "scalars" or not value.HasField("tensor"):
        return None
    return float(tensor_util.make_ndarray(value.tensor).item())
