"""What a run writes while it lasts: metrics.csv, TensorBoard events and lines on stdout."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from train.errors import TrainError
from train.files import replacing

METRICS = "metrics.csv"
HEADER = "step,lr,loss,val_loss,time_s"
EVENTS = "events.out.tfevents.*"
# It tells this program's event files from those that others put into the directory.
SUFFIX = ".lm"


@dataclass(frozen=True)
class Row:
    """One logged step: `step` steps are done, `loss` is the mean over those since the row before."""

    step: int
    lr: float
    loss: float
    val_loss: float | None
    time_s: float

    def __str__(self) -> str:
        val_loss = "" if self.val_loss is None else f"{self.val_loss:.6f}"
        return f"{self.step},{self.lr!r},{self.loss:.6f},{val_loss},{self.time_s:.3f}"


def open_metrics(directory: Path, last_step: int) -> TextIO:
    """Open metrics.csv behind the row of `last_step`, the last one that the checkpoint knows (0: none)."""
    path = directory / METRICS
    kept = [HEADER]
    if last_step:
        # A torn last line is beyond the checkpoint, as those before it are synced.
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        rows = [(int(first), line) for line in lines if (first := line.partition(",")[0]).isdecimal()]
        kept += [line for step, line in rows if step <= last_step]
        if not any(step == last_step for step, _ in rows):
            raise TrainError(f"{path} lacks the row of step {last_step}, which the checkpoint beside it counts on")
    with replacing(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())
    return path.open("a", buffering=1)


def remove_outputs(directory: Path) -> None:
    """Remove what an earlier run left in a directory where a run begins anew; files of others stay."""
    for pattern in (f"{EVENTS}{SUFFIX}.*", "eval_train.json", "eval_val.json", "eval_test.json"):
        for path in directory.glob(pattern):
            path.unlink()


class Log:
    """Streams the rows of one run, from the step where it begins or resumes."""

    def __init__(self, directory: Path, steps: int, done_steps: int, last_row_step: int) -> None:
        self.steps = steps
        if not done_steps:
            remove_outputs(directory)
        self.metrics = open_metrics(directory, last_row_step)
        # A run that was killed has written events that the resumed one writes again: hide those.
        purge_step = done_steps + 1 if done_steps else None
        self.events = SummaryWriter(
            str(directory), purge_step=purge_step, flush_secs=10, filename_suffix=f"{SUFFIX}.run"
        )

    def hyperparameters(self, values: dict[str, Any]) -> None:
        """Begin the run's session in TensorBoard's table; it finds the metrics among the scalars itself."""
        info = SessionStartInfo(start_time_secs=time.time())
        # A seed is a name, not a quantity: as a number it shows as 0.0000, and has a range to filter by.
        for name, value in {**values, "seed": str(values["seed"])}.items():
            kind = "string_value" if isinstance(value, str) else "number_value"
            setattr(info.hparams[name], kind, value)
        self._session(metadata.SESSION_START_INFO_TAG, 0, HParamsPluginData(session_start_info=info))

    def row(self, row: Row, steps_per_s: float) -> None:
        self.metrics.write(f"{row}\n")
        self.events.add_scalar("loss/train", row.loss, row.step)
        self.events.add_scalar("lr", row.lr, row.step)
        val = ""
        if row.val_loss is not None:
            self.events.add_scalar("loss/val", row.val_loss, row.step)
            val = f" val {row.val_loss:.4f}"
        left_s = (self.steps - row.step) / steps_per_s
        print(
            f"step {row.step}/{self.steps} loss {row.loss:.4f}{val} lr {row.lr:.2e} "
            f"{steps_per_s:.0f} steps/s left {left_s:.0f} s",
            flush=True,
        )

    def end(self, step: int, val_loss: float | None) -> None:
        """End the session in TensorBoard's table; without a loss it has failed."""
        if val_loss is not None:
            self.events.add_scalar("loss/final_val", val_loss, step)
        status = api_pb2.STATUS_FAILURE if val_loss is None else api_pb2.STATUS_SUCCESS
        info = SessionEndInfo(status=status, end_time_secs=time.time())
        self._session(metadata.SESSION_END_INFO_TAG, step, HParamsPluginData(session_end_info=info))

    def sync(self) -> None:
        """Put all rows and events where a killed program leaves them: a checkpoint counts on it."""
        os.fsync(self.metrics.fileno())
        self.events.flush()

    def close(self) -> None:
        self.metrics.close()
        self.events.close()

    def _session(self, tag: str, step: int, data: HParamsPluginData) -> None:
        # SummaryWriter.add_hparams would put the session into a directory of its own.
        content = metadata.create_summary_metadata(data)
        value = Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)
        writer: FileWriter = self.events._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(Summary(value=[value]), global_step=step)


def append_scalar(directory: Path, tag: str, value: float, step: int) -> None:
    """Add one scalar to a run that has ended; it replaces the one that was added before."""
    suffix = f"{SUFFIX}.{tag.replace('/', '_')}"
    for earlier in directory.glob(f"{EVENTS}{suffix}"):
        earlier.unlink()
    with SummaryWriter(str(directory), filename_suffix=suffix) as events:
        events.add_scalar(tag, value, step)
