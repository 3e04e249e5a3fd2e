"""TensorBoard: scalars, samples, and a row in the table of hyperparameters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from torch import Tensor
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

EVENTS = "events.out.tfevents.*"
# It tells this program's event files from those that others put into the directory.
SUFFIX = ".train"
OWN_EVENTS = f"{EVENTS}{SUFFIX}.*"
NAMES = ("seed", "order_seed")
"""Numbers that are names, not quantities: as a number a seed shows as 0.0000, and has a range to filter by."""


class EventLogger:
    """Writes one event file."""

    def __init__(self, directory: Path, done_steps: int) -> None:
        # A run that was killed has written events that the resumed one writes again: hide those.
        purge_step = done_steps + 1 if done_steps else None
        self.events = SummaryWriter(
            str(directory), purge_step=purge_step, flush_secs=10, filename_suffix=f"{SUFFIX}.run"
        )

    def hyperparameters(self, values: dict[str, Any]) -> None:
        """Begin the run's session in TensorBoard's table; it finds the metrics among the scalars itself."""
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            if isinstance(value, int | float) and name not in NAMES:
                info.hparams[name].number_value = value
            else:
                info.hparams[name].string_value = str(value)
        self._session(metadata.SESSION_START_INFO_TAG, 0, HParamsPluginData(session_start_info=info))

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def samples(self, samples: Tensor | str, step: int) -> None:
        if isinstance(samples, str):
            # Indented by four: Markdown leaves such lines as they are.
            self.events.add_text("samples", "".join(f"    {line}\n" for line in samples.splitlines()), step)
        else:
            self.events.add_images("samples", samples, step)

    def end(self, step: int, metrics: dict[str, float], completed: bool) -> None:
        """End the session in TensorBoard's table."""
        for column, value in metrics.items():
            split, _, metric = column.rpartition("_")
            self.events.add_scalar(f"{metric}/final_{split}", value, step)
        status = api_pb2.STATUS_SUCCESS if completed else api_pb2.STATUS_FAILURE
        info = SessionEndInfo(status=status, end_time_secs=time.time())
        self._session(metadata.SESSION_END_INFO_TAG, step, HParamsPluginData(session_end_info=info))

    def sync(self) -> None:
        self.events.flush()

    def close(self) -> None:
        self.events.close()

    def _session(self, tag: str, step: int, data: HParamsPluginData) -> None:
        # SummaryWriter.add_hparams would put the session into a directory of its own.
        content = metadata.create_summary_metadata(data)
        value = Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)
        writer: FileWriter = self.events._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(Summary(value=[value]), global_step=step)


def append_scalars(directory: Path, name: str, values: dict[str, float], step: int) -> None:
    """Add scalars to a run that has ended; they replace those that were added under this name before."""
    suffix = f"{SUFFIX}.{name}"
    for earlier in directory.glob(f"{EVENTS}{suffix}"):
        earlier.unlink()
    with SummaryWriter(str(directory), filename_suffix=suffix) as events:
        for tag, value in values.items():
            events.add_scalar(tag, value, step)
