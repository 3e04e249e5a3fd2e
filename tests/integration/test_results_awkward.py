"""`run table`, `best`, `compare`, `plot`, `report` on trials of every awkward kind."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.conftest import Project, Said

    Typed = Callable[..., Said]

ROWS = "step,lr,loss,accuracy\n1,0.1,5,0.2\n2,0.1,3,0.7\n3,0.1,4,0.6\n"
BIG = 2**70


def attempt(**end: Any) -> str:
    head = {"stage": "train", "attempt": 1}
    start = {"event": "start", **head, "slot": "gpu 0", "log": "log.train.20261121.120000"}
    return f"{json.dumps(start)}\n{json.dumps({'event': 'end', **head, 'seconds': 3600.0, **end})}\n"


@pytest.fixture
def make(project: Project) -> Callable[..., Path]:
    def write(name: str, params: Mapping[str, Any] | str, files: Mapping[str, str] | None = None) -> Path:
        path = project.output / name
        path.mkdir(parents=True)
        text = params if isinstance(params, str) else yaml.safe_dump({**params, "_name": name}, allow_unicode=True)
        for file, content in {"param": text, "stat": "train: finished\n", **(files or {})}.items():
            (path / file).write_text(content)
        return path

    return write


@pytest.fixture
def awkward(make: Callable[..., Path]) -> None:
    metrics = {"metrics.csv": ROWS}
    make("Lr_0.1", {"lr": 0.1, "seed": 0, "big": BIG, "flag": True, "depth": 2, "state": "NY"}, metrics)
    make("100% Größe 日本", {"lr": "auto", "seed": 1, "big": 3, "flag": "yes", "layers": [1, {"a": None}]}, metrics)
    make("$(x);`y`'\"&<b>", {"lr": 0.2, "seed": 0, "trial": 7, "step": 9, "loss": "mse"}, metrics)
    make("nan", {"lr": 0.2, "seed": 1}, {"metrics.csv": ROWS.replace("4,0.6", "nan,inf")})
    failed = {"stat": "train: failed\n", "attempts": attempt(exit_code=1, cause="oom", line="no memory <b>")}
    make("=1+1", {"lr": 0.2, "seed": 2}, failed)
    make("-text", {"lr": 0.2, "seed": 3}, {"metrics.csv": "step,loss,note\n1,2,x\n2,3,y\n"})
    make("half", "lr: [1\n", {"metrics.csv": ROWS})
    make("empty", "", {"metrics.csv": ""})
    (make("none", {"lr": 1}).parent / "plots").mkdir()


@pytest.mark.parametrize("form", [[], ["--md"], ["--csv"], ["--json"], ["--all"]])
def test_every_trial_is_in_the_table(awkward: None, project: Project, typed: Typed, form: list[str]) -> None:
    said = typed("table", *form)
    assert (said.code, said.err) == (0, "")
    for path in project.output.iterdir():
        if (path / "param").exists():
            name = path.name.replace('"', '""') if form == ["--csv"] else path.name
            assert (json.dumps(name) if form == ["--json"] else name) in said.out
    assert typed("table", *form).out == said.out


def test_what_a_cell_says(awkward: None, typed: Typed) -> None:
    found = {row["trial"]: row for row in map(json.loads, typed("table", "--all", "--json").out.splitlines())}
    first, odd = found["Lr_0.1"], found["$(x);`y`'\"&<b>"]
    assert (first["big"], first["flag"], first["depth"]) == (BIG, True, 2)
    assert (first["state"], first["run.state"], odd["loss"], odd["metric.loss"]) == ("NY", "finished", "mse", 4)
    assert (odd["param.trial"], odd["step"]) == (7, 9)
    assert found["100% Größe 日本"]["layers"] == [1, {"a": None}]
    assert [found[name]["run.state"] for name in ("half", "empty", "=1+1")] == ["damaged", "damaged", "failed"]
    told = {row["trial"]: row for row in csv.DictReader(io.StringIO(typed("table", "--csv").out))}
    # A value that was written as NaN is not the same as none.
    assert [told[name]["metric.loss"] for name in ("nan", "none", "=1+1")] == ["nan", "", ""]
    assert told["-text"]["note"] == "y"


def test_columns_are_aligned_by_what_the_terminal_shows(make: Callable[..., Path], typed: Typed) -> None:
    make("日本", {"lr": 1})
    make("a", {"lr": 2})
    lines = typed("table").out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["a", "日本"]
    assert lines[1].index("2") == lines[2].index("1") + 2  # each of the two is two columns wide


@pytest.mark.parametrize("column", ["lr", "layers", "note", "run.state", "big", "metric.loss"])
def test_values_of_any_kind_are_sorted(awkward: None, typed: Typed, column: str) -> None:
    rows = [json.loads(line)[column] for line in typed("table", "--sort", column, "--json").out.splitlines()]
    known = [row for row in rows if row is not None]
    numbers = [row for row in known if not isinstance(row, str | list)]
    assert rows == [*known, *[None] * (9 - len(known))]
    assert known[: len(numbers)] == sorted(numbers)


def test_means_over_settings_of_mixed_types(awkward: None, typed: Typed) -> None:
    rows = [json.loads(line) for line in typed("table", "--by", "lr", "--json").out.splitlines()]
    assert {row["lr"]: row["trials"] for row in rows} == {0.1: 1, "auto": 1, 0.2: 4, None: 2, 1: 1}
    best = [json.loads(line) for line in typed("best", "accuracy", "--by", "lr", "--json").out.splitlines()]
    # The finished and the failed are told apart although a parameter is called `state`.
    assert {row["lr"]: row["unfinished"] for row in best} == {0.1: 0, "auto": 0, 0.2: 0, None: 2, 1: 0}


def test_small_differences_are_seen(make: Callable[..., Path], typed: Typed) -> None:
    for name, lr, loss in (("a", 0.12345671, "2.0000001"), ("b", 0.12345672, "2.0000003")):
        make(name, {"lr": lr, "depth": 1}, {"metrics.csv": f"step,loss\n1,{loss}\n"})
    out = typed("compare", "a", "b").out
    assert out.splitlines()[:3] == [
        "Parameters:",
        "    " + "a".rjust(10) + "  " + "b".rjust(10),
        "lr  0.12345671  0.12345672",
    ]
    words = next(line.split() for line in out.splitlines() if line.startswith("loss "))
    assert words == ["loss", "2.0000001", "2.0000003", "2e-07"]
    assert typed("compare", "a", "a").out.startswith("Parameters: no difference")


PLOTS = [
    ["metric.loss"],
    ["accuracy", "--by", "trial"],
    ["accuracy", "--by", "lr"],
    ["accuracy", "--x", "seed"],
    ["accuracy", "--x", "seed", "--y", "lr"],
    ["accuracy", "--against", "metric.loss"],
    ["accuracy", "--against", "seed"],
]


@pytest.mark.parametrize("words", PLOTS)
def test_plots_draw_what_there_is(awkward: None, project: Project, typed: Typed, words: list[str]) -> None:
    said = typed("plot", *words)
    assert (said.code, said.err) == (0, "")
    assert Path(project.path, said.out.strip()).stat().st_size > 10_000


def test_a_character_that_the_font_lacks_is_a_box(make: Callable[..., Path], typed: Typed) -> None:
    for data in ("日本", "b"):
        make(data, {"data": data}, {"metrics.csv": ROWS})
    assert typed("plot", "loss").err == ""


def test_a_report_of_trials_whose_loss_is_a_word(make: Callable[..., Path], project: Project, typed: Typed) -> None:
    make("a", {"lr": 1}, {"metrics.csv": "step,loss\n1,diverged\n"})
    make("b", {"lr": 2}, {"metrics.csv": ROWS})
    make("c", {"lr": 3}, {"metrics.csv": ROWS})
    assert typed("report").code == 0
    assert "Curves of loss" in (project.output / "report.html").read_text()


def test_the_report_holds_them_all(awkward: None, project: Project, typed: Typed) -> None:
    assert typed("report").code == 0
    text = (project.output / "report.html").read_text()
    for name in (
        "$(x);`y`&#x27;&quot;&amp;&lt;b&gt;",
        "100% Größe 日本",
        "=1+1: failed (stage: train, cause: oom, exit_code: 1)",
    ):
        assert name in text
    assert "<b>" not in text.partition("<script")[0]
    assert "Curves of metric.loss" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plot", "loss"], "loss: is a parameter. Curves: "),
        (["plot", "note"], "note: no trial has a number there."),
        (["plot", "accuracy", "--against", "note"], "note: no trial has a number there."),
        (["best", "accuracy", "--by", "seed"], "seed: by which the best are chosen must be one of: "),
        (["compare", "plots", "nan"], "plots: no trial: output/plots has no 'param'."),
    ],
)
def test_what_can_not_be_shown_is_told(awkward: None, typed: Typed, words: list[str], said: str) -> None:
    told = typed(*words)
    assert (told.code, told.out) == (2, "")
    assert said in told.err


def test_a_name_that_is_no_text_and_a_stream_that_shows_little(
    make: Callable[..., Path], project: Project, typed: Typed
) -> None:
    make("caf\udce9", "lr: 1\n", {"metrics.csv": ROWS, "stat": "train: failed\n"})
    make("é", {"lr": 2}, {"metrics.csv": ROWS})
    project.environment["PYTHONIOENCODING"] = "ascii"
    assert "caf" in project.run("table").stdout
    project.environment["PYTHONIOENCODING"] = "utf-8:strict"
    rows = [json.loads(line) for line in project.run("table", "--json").stdout.splitlines()]
    assert {row["trial"] for row in rows} == {"caf\udce9", "é"}
    assert typed("report").code == 0
    assert "caf?: failed" in (project.output / "report.html").read_text()


def test_events_that_can_not_be_written_are_told(make: Callable[..., Path], typed: Typed) -> None:
    (make("a", {"lr": 1}, {"metrics.csv": ROWS}) / "events.out.tfevents.0.runner").mkdir()
    told = typed("tensorboard-sync")
    assert (told.code, told.out) == (1, "")
    assert told.err == "run: error: output/a/events.out.tfevents.0.runner: Is a directory.\n"


def test_one_trial_and_none(make: Callable[..., Path], project: Project, typed: Typed) -> None:
    make("only", {"lr": 1, "seed": 0}, {"metrics.csv": ROWS})
    assert typed("table").out.split()[:5] == ["trial", "loss", "loss_best", "accuracy", "accuracy_best"]
    row = json.loads(typed("best", "loss", "--json").out)
    assert (row["n"], row["mean"], row["std"]) == (1, 4, None)
    assert typed("plot", "loss").code == typed("report").code == 0
    (project.output / "only" / "param").unlink()
    assert typed("table", "--csv").out == "trial,state\n"
    assert typed("best", "loss").err == "run: error: loss: no such column.\n"
    assert typed("plot", "loss").code == 2
    assert typed("report").code == 0
