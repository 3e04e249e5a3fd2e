"""Numbers from logs and from JSON lines."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from runner.examine import Examiner, log_metrics, read_jsonl, read_log, sources

LOGS = {
    "key=value": ("epoch=1 loss=2.5, acc = .5\nepoch=2 loss=1e-3 acc=nan v=1.2.3\n", "key=value"),
    "key: value": ("{'loss': 2.5, 'acc': 0.5, 'epoch': 1}\nepoch: 2, loss: 1e-3, acc: nan\n", "key: value"),
    "key value": ("epoch 1/2 loss 2.5\nepoch 1 loss 2.5 acc 0.5\nepoch 2  loss  1e-3  acc nan\n", "key value"),
    "groups": (
        "Epoch 1: 2.5 (0.5)\nepoch?\nEpoch 2: 1e-3 (x)\n",
        r"Epoch (?P<epoch>\d+): (?P<loss>\S+) \((?P<acc>.+)\)",
    ),
    "progress bar": ("\repoch=1 loss=9\repoch=1 loss=2.5 acc=.5\n\repoch=2 loss=1e-3 acc=nan\r", "key=value"),
}


@pytest.mark.parametrize(("text", "pattern"), LOGS.values(), ids=LOGS.keys())
def test_the_usual_lines_of_logs(tmp_path: Path, text: str, pattern: str) -> None:
    (tmp_path / "log").write_text(text + "epoch=3 loss=1 acc")
    frame = read_log(tmp_path / "log", pattern)
    assert frame["step"].tolist() == [1, 2]
    assert frame["loss"].tolist() == [2.5, 1e-3]
    assert frame["acc"].isna().tolist() == [False, True]
    assert set(frame.columns) == {"step", "loss", "acc"}


@pytest.mark.parametrize("block_bytes", [1, 2, 7])
def test_lines_go_on_from_block_to_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(sources, "_BLOCK_BYTES", block_bytes)
    (tmp_path / "log").write_bytes("é step=1 loss=2.5\r\nstep=2\rstep=2 ñ loss=1e-3\n\nstep=3 los".encode())
    assert read_log(tmp_path / "log").to_dict("list") == {"step": [1, 2], "loss": [2.5, 1e-3]}


def test_a_long_log_takes_little_more_memory_than_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_BLOCK_BYTES", 4096)
    count = 20_000
    (tmp_path / "log").write_text("".join(f"step={step} loss=0.5 lr=0.1\n" for step in range(count)))
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f'{{"step": {step}, "loss": 0.5, "lr": 0.1}}\n' for step in range(count))
    )
    for read, name in ((read_log, "log"), (read_jsonl, "metrics.jsonl")):
        tracemalloc.start()
        frame = read(tmp_path / name)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert frame.shape == (count, 3)
        assert peak_bytes < 150 * count


def test_the_value_of_a_step_that_was_written_last_counts(tmp_path: Path) -> None:
    # Lines with different names are one row, in the order of the lines.
    lines = ["step=1 loss=9 acc=1", "step=1 loss=8", "step=2 loss=7", "step=1 acc=2 loss=6", "step=2 loss=nan"]
    (tmp_path / "log").write_text("\n".join([*lines, ""]))
    frame = read_log(tmp_path / "log")
    assert frame["loss"].tolist() == [6, 7]
    assert frame["acc"].fillna(0).tolist() == [2, 0]


def test_a_log_without_steps_or_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("starting\nloss=3\nsaved\nloss=2\n")
    assert read_log(tmp_path / "log").to_numpy().tolist() == [[1, 3], [2, 2]]
    (tmp_path / "log").write_text("starting\n")
    assert read_log(tmp_path / "log").empty
    with pytest.raises(ValueError, match="has no named group"):
        read_log(tmp_path / "log", r"loss (\d+)")
    with pytest.raises(ValueError, match=r"pattern '\(\?P<loss>' is not a regular expression: missing \)"):
        read_log(tmp_path / "log", "(?P<loss>")


def test_a_log_parser_for_the_examiner(make_trial: Any, output: Path) -> None:
    make_trial("a", {"x": 1}, {"log.test.20261121.120000": "loss=3 acc=0.5\nloss=2\n"})
    make_trial("b", {"x": 2})
    examiner = Examiner()
    examiner.add(log_metrics("test"))
    examiner.exam(output)
    assert examiner.errors == []
    assert examiner.table()[["acc", "loss"]].iloc[0].tolist() == [0.5, 2]
    assert len(examiner.experiments["a"].cache["log"]) == 2


def test_the_last_number_of_a_log_may_be_nan(make_trial: Any, output: Path) -> None:
    make_trial("a", {"x": 1}, {"log.a.20261121.120000": "lr=1 step=1 loss=2\nstep=2 loss=nan\n"})
    make_trial("b", {"x": 2}, {"log.a.20261121.120000": "loss=nan\n"})
    # The second epoch counts its steps anew.
    make_trial("c", {"x": 3}, {"log.a.20261121.120000": "step=1 loss=4\nstep=2 loss=3\nstep=1 loss=1\n"})
    examiner = Examiner()
    examiner.add(log_metrics("a"))
    examiner.exam(output)
    assert examiner.errors == []
    assert [str(experiment.metric["loss"]) for experiment in examiner.experiments.values()] == ["nan", "nan", "1.0"]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"global_step": 2, "loss": 1, "note": "x"}\n\n{"global_step": 1, "loss": 3}\n{"global_step": 2, "acc'
    )
    frame = read_jsonl(path)
    assert frame.to_dict("list") == {"step": [1, 2], "loss": [3, 1]}
    assert frame["loss"].dtype.kind == "i"
    path.write_text('{"step": 1, "loss": 2.0, "huge": 1' + 400 * "0" + ', "on": true}\n')
    assert read_jsonl(path).to_dict("list") == {"step": [1], "loss": [2.0]}
    path.write_text('{"loss": NaN}\n[1]\n')
    with pytest.raises(ValueError, match="line 2 is no JSON object"):
        read_jsonl(path)
