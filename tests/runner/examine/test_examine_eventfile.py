"""TensorBoard's event files: what its own EventAccumulator reads, from whole files and from files cut anywhere."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

from runner.examine import curves, read_scalars, wide_table

Found = dict[str, list[tuple[int, float, float]]]


def framed(event: Any) -> bytes:
    data: bytes = event.SerializeToString()
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def scalar(tag: str, step: int, value: float, time: float = 1.5e9) -> bytes:
    return framed(Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])))


def tensor(tag: str, step: int, value: Any, is_first: bool) -> bytes:
    entry = Summary.Value(tag=tag, tensor=tensor_util.make_tensor_proto(value))
    if is_first:
        entry.metadata.CopyFrom(SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars")))
    return framed(Event(wall_time=1.5e9, step=step, summary=Summary(value=[entry])))


VERSION = framed(Event(wall_time=1.5e9, file_version="brain.Event:2"))


def restart(step: int) -> bytes:
    return framed(Event(wall_time=1.5e9, step=step, session_log=SessionLog(status=SessionLog.START)))


def several(step: int) -> bytes:
    histogram = Summary.Value(tag="h", histo=HistogramProto(min=0, max=1, num=1, bucket_limit=[1], bucket=[1]))
    values = [Summary.Value(tag=tag, simple_value=step / 7) for tag in ("x", "y")]
    return framed(Event(wall_time=1.5e9, step=step, summary=Summary(value=[*values, histogram])))


def mixed(rng: random.Random) -> list[bytes]:
    """Records of every kind, with steps that go back and values that are no numbers."""
    kinds: list[Callable[[int], bytes]] = [
        lambda step: scalar("loss", step, rng.choice([0.0, 1 / 3, float("nan"), float("inf"), -1e30]), 1e9 + step),
        lambda step: scalar("a/much/longer/tag " + "é" * 20, step, rng.random()),
        several,
        lambda step: framed(Event(wall_time=1.0, step=step)),
        lambda step: restart(step // 2),
        lambda step: framed(Event(wall_time=1.0, step=step, graph_def=b"graph")),
    ]
    steps = [rng.choice([0, 1, 127, 128, 16383, 16384, 2**31, 2**40, -1]) for _ in range(60)]
    return [rng.choices(kinds, [8, 4, 2, 1, 1, 1])[0](step) for step in steps]


def found(path: Path) -> Found:
    return {
        tag: [(int(s), float(v), float(t)) for s, v, t in zip(each.steps, each.values, each.times, strict=True)]
        for tag, each in read_scalars(path).items()
    }


def accumulated(path: Path) -> Found:
    make: Any = EventAccumulator
    accumulator = make(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    of_tag = {tag: [(each.step, each.value, each.wall_time) for each in accumulator.Scalars(tag)] for tag in tags}
    return {tag: each for tag, each in of_tag.items() if each}


def same(path: Path) -> None:
    assert repr(sorted(found(path).items())) == repr(sorted(accumulated(path).items()))


@pytest.mark.parametrize("seed", range(8))
def test_mixed_records_are_read_as_tensorboard_reads_them(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    head = [] if seed % 4 == 3 else [VERSION]
    path.write_bytes(b"".join([*head, *mixed(random.Random(seed))]))
    same(path)


@pytest.mark.parametrize("is_long", [True, False])
def test_a_file_cut_at_any_byte_is_read_as_tensorboard_reads_it(tmp_path: Path, is_long: bool) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    middle = (
        [scalar("loss", step, 1 / (step + 1), step) for step in range(6)] if is_long else mixed(random.Random(1))[:6]
    )
    content = b"".join([VERSION, *middle, restart(3), scalar("loss", 3, 0.5), several(4)])
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        same(path)


def test_several_files_of_a_directory_follow_each_other(tmp_path: Path) -> None:
    first = [VERSION, *(scalar("loss", step, step) for step in range(10))]
    (tmp_path / "events.out.tfevents.100.host").write_bytes(b"".join(first)[:-5])
    second = [VERSION, restart(4), *(scalar("loss", step, -step) for step in range(4, 12))]
    (tmp_path / "events.out.tfevents.200.host").write_bytes(b"".join(second))
    same(tmp_path)
    assert [step for step, _, _ in found(tmp_path)["loss"]] == list(range(12))


def test_scalars_of_tensorflow_2_are_scalars(tmp_path: Path) -> None:
    records = [tensor("acc", 0, 0.5, True), tensor("acc", 1, 0.75, False), tensor("text", 0, "words", False)]
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"".join([VERSION, *records]))
    assert found(tmp_path) == {"acc": [(0, 0.5, 1.5e9), (1, 0.75, 1.5e9)]}


def test_what_follows_a_damaged_length_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    start = VERSION + scalar("loss", 0, 1)
    for tail in (b"\0" * 64, b"\xff" * 64, scalar("loss", 1, 2)[1:]):
        path.write_bytes(start + tail)
        same(path)
        assert found(path) == {"loss": [(0, 1.0, 1.5e9)]}


def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path: Path, make_trial: Any, output: Path) -> None:
    damaged = scalar("loss", 5, 1).replace(b"loss", b"\xff\xff\xff\xff")
    (make_trial("a", {"x": 1}) / "events.out.tfevents.1.host").write_bytes(VERSION + damaged)
    with pytest.raises(ValueError, match=r"events.out.tfevents.1.host holds a record"):
        read_scalars(output / "a")
    assert "no event" in str(wide_table(output).loc["a", "faults"])


def test_event_files_are_a_trials_metrics_where_it_has_no_others(make_trial: Any, output: Path) -> None:
    path = make_trial("a", {"x": 1})
    records = [VERSION, *(scalar("loss/val", step, 2 - step) for step in (1, 2, 1)), scalar("lr", 2, 0.5)]
    (path / "events.out.tfevents.1.host").write_bytes(b"".join(records))
    row = wide_table(output, concise=False).loc["a"]
    assert (row["loss/val"], row["loss/val_best"], row["loss/val_best_step"]) == (1, 0, 2)
    frame = curves(output)
    assert frame["step"].tolist() == [1, 2]
    assert frame["loss/val"].tolist() == [1, 0]


def test_a_scalar_that_ends_in_nan_is_nan_in_the_table(make_trial: Any, output: Path) -> None:
    path = make_trial("a", {"x": 1})
    (path / "events.out.tfevents.1").write_bytes(scalar("loss", 1, 2.0) + scalar("loss", 2, float("nan")))
    row: Any = wide_table(output, concise=False).loc["a"]
    assert str(row["loss"]) == "nan"
    assert row[["loss_step", "loss_best", "loss_best_step"]].tolist() == [2, 2, 1]
