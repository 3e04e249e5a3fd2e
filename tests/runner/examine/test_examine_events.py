"""TensorBoard event files."""

from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from runner.examine import read_events


def write(path: Path, points: list[tuple[int, str, float]]) -> Path:
    before = set(path.glob("events.*"))
    writer = EventFileWriter(str(path))
    for step, tag, value in points:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=step, wall_time=1.0, summary=summary))
    writer.close()
    (file,) = set(path.glob("events.*")) - before
    return file


def test_tags_are_columns_and_later_attempts_count(tmp_path: Path) -> None:
    write(tmp_path, [(10, "loss", 4.0), (20, "loss", 3.0), (30, "loss", 2.5), (20, "lr", 0.5)])
    write(tmp_path, [(20, "loss", 3.25), (30, "loss", 2.75), (30, "acc", float("nan"))])
    frame = read_events(str(tmp_path))
    assert list(frame.columns) == ["step", "acc", "loss", "lr"]
    assert frame["step"].tolist() == [10, 20, 30]
    assert frame["loss"].tolist() == [4.0, 3.25, 2.75]
    assert frame["lr"].isna().tolist() == [True, False, True]


def test_subdirectories_name_their_tags(tmp_path: Path) -> None:
    (tmp_path / "tb").mkdir()
    write(tmp_path / "tb", [(1, "loss", 4.0)])
    assert list(read_events(tmp_path).columns) == ["step", "tb/loss"]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_record_being_written_is_left_out(tmp_path: Path, cut: int) -> None:
    file = write(tmp_path, [(1, "loss", 4.0), (2, "loss", 3.0)])
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_events(tmp_path)["loss"].tolist() == [4.0]


def test_no_event_files(tmp_path: Path) -> None:
    frame = read_events(tmp_path)
    assert frame.empty
    assert list(frame.columns) == ["step"]
    assert frame["step"].dtype == "int64"
