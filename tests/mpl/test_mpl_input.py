"""Bad input gives a right result or one clear line, exit code 2 and no file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpl import Curve, FitResult, MplError, cli, fit
from mpl.cli import main
from mpl.readers import read_csv, read_curve, read_schedule, read_trial, read_trials
from tests.mpl.curves import PARAMETERS, three
from train.schedules import Array, schedule

SPEC = "cosine:steps=1000,peak=1e-3,warmup=50"
LRS = schedule("cosine", 1000, 1e-3, 50)
STEPS = np.arange(60, 1000, 20)
ROWS = [f"{step},{float(LRS[step])},{4 - step / 1000}" for step in STEPS.tolist()]


def written(path: Path, rows: list[str], header: str = "step,lr,loss") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([*ROWS[:5], "200,0.0009,nan"], "step,lr,loss", "the loss in row 6 is nan: a diverged run has no curve"),
        ([*ROWS[:5], "200,0.0009,inf"], "step,lr,loss", "the loss in row 6 is inf"),
        ([], "step,lr,loss", "no rows"),
        ([], "", "no rows"),
        (ROWS[:1], "step,lr,loss", "1 points .*2 are needed"),
        (["x,0.1,3"], "step,lr,loss", "row 1: step is 'x'"),
        (["60,0.1"], "step,lr,loss", "0 points .*2 are needed"),
        (ROWS, "step,lr,lossy", "no column 'loss', did you mean lossy"),
        (ROWS, "when,lr,loss", "no column 'step'"),
        (ROWS, "step,loss,loss", "two columns are named loss"),
        ([*ROWS, "2000,1e-3,3.0"], "step,lr,loss", "step 2000 is beyond the schedule, which has 1000 steps"),
        (["-60,1e-3,4", *ROWS], "step,lr,loss", "step -60 is negative"),
        (["60.5,1e-3,4", *ROWS[1:]], "step,lr,loss", "step 60.5 is not whole"),
        ([ROWS[1], ROWS[0]], "step,lr,loss", "step 60 comes after step 80: steps must rise"),
        ([ROWS[0].replace(",4", ",-4").replace(",3", ",-3"), ROWS[1]], "step,lr,loss", "is -3.9.*positive"),
        ([row.replace(",0.0", ",0.1") for row in ROWS], "step,lr,loss", "the LR at step 60 is 0.1.*in the schedule"),
    ],
)
def test_a_bad_csv(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    with pytest.raises(MplError, match=message) as error:
        read_csv(written(tmp_path / "bad.csv", rows, header), SPEC)
    assert "\n" not in str(error.value)


def test_other_orders_and_names_of_columns_are_fine(tmp_path: Path) -> None:
    swapped = [",".join(reversed(row.split(","))) for row in ROWS]
    curve = read_csv(written(tmp_path / "a.csv", swapped, "loss,lr,step"), SPEC)
    assert curve.loss[0] == pytest.approx(3.94)
    without = [f"{row.split(',')[0]},7,{row.split(',')[2]}" for row in ROWS]
    assert read_csv(written(tmp_path / "b.csv", without, "step,tokens,loss"), SPEC).step[0] == 60


def test_a_row_at_the_very_end_is_left_out(tmp_path: Path) -> None:
    assert read_csv(written(tmp_path / "a.csv", [*ROWS, "1000,1e-4,3.0"]), SPEC).step[-1] == STEPS[-1]


def test_lrs_that_are_those_of_the_step_before_are_fine(tmp_path: Path) -> None:
    rows = [f"{step},{float(LRS[step - 1])},{4 - step / 1000}" for step in STEPS.tolist()]
    assert len(read_csv(written(tmp_path / "a.csv", rows), SPEC).step) == len(rows)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cosine", "steps and peak missing|peak missing"),
        ("cosin:steps=10,peak=1", "unknown schedule 'cosin', did you mean cosine"),
        ("cosine:steps=10,peek=1", "unknown option 'peek', did you mean peak"),
        ("cosine:steps=ten,peak=1", "steps is 'ten': a whole number is needed"),
        ("cosine:steps=10,peak=1/0", "peak is '1/0'"),
        ("cosine:steps=10.5,peak=1", "steps is '10.5': a whole number is needed"),
        ("cosine:steps=10,peak=inf", "peak is 'inf': a number is needed"),
        ("cosine:steps=10,peak=1,warmup=11", "warmup is 11"),
        ("absent.npy", r"cannot read absent\.npy"),
        ("absent.csv", r"cannot read absent\.csv: No such file"),
        (str(Path(__file__).with_name("absent.json")), r"cannot read .*absent\.json: No such file"),
        ("constant:steps=10,peak=0", "the LR is 0 at every step"),
    ],
)
def test_a_bad_schedule(spec: str, message: str) -> None:
    with pytest.raises(MplError, match=message):
        Curve.of("a", [1, 2], [3.0, 2.0], read_schedule(spec))


@pytest.mark.parametrize(
    ("lrs", "message"),
    [
        ([1.0, -1.0], "the LR of step 1 is -1.0"),
        ([1.0, float("nan")], "the LR in row 2 is nan"),
        ([], "no steps"),
        ([0.0, 0.0], "0 at every step"),
        ([[1.0], [1.0]], "shape"),
    ],
)
def test_lrs_that_are_none(lrs: list[float], message: str) -> None:
    with pytest.raises(MplError, match=message):
        FitResult.given("mpl", PARAMETERS[25]).predict(np.array(lrs))


def test_lrs_of_zero_restarts_and_step_zero_are_predicted() -> None:
    result = FitResult.given("mpl", PARAMETERS[25])
    for name, floor in (("linear", 0.0), ("cosine_restarts_3", 0.0)):
        assert np.isfinite(result.predict(schedule(name, 3000, 3e-4, 100, floor)).loss).all()
    curve = Curve.of("zero", [0, 1500, 2999], [10.0, 4.0, 3.5], schedule("linear", 3000, 3e-4, 100, 0.0))
    assert np.isfinite(result.evaluate(curve).mae)


def test_a_warm_up_longer_than_the_points_is_said() -> None:
    curve = Curve.of("short", [1, 5, 9], [5.0, 4.0, 3.0], schedule("cosine", 1000, 1e-3, 500))
    with pytest.raises(MplError, match="short: 0 points after the LR's peak at step 499"):
        FitResult.given("mpl", PARAMETERS[25]).evaluate(curve)


def trial(directory: Path, seed: int, name: str = "cosine") -> dict[str, object]:
    directory.mkdir(parents=True)
    curve = next(one for one in three("mpl", PARAMETERS[25], noise=1e-3, steps=2000) if one.name == name)
    np.save(directory / "lr.npy", curve.lrs)
    rng = np.random.default_rng(seed)
    rows = [
        f"{step + 1},{float(curve.lrs[step])},{loss * (1 + 1e-3 * rng.standard_normal())},"
        for step, loss in zip(curve.step.tolist(), curve.loss.tolist(), strict=True)
    ]
    written(directory / "metrics.csv", rows, "step,lr,loss,val_loss")
    return {"name": directory.name, "directory": str(directory), "parameters": {"schedule": name, "seed": seed}}


def test_a_trial_counts_the_steps_that_are_done(tmp_path: Path) -> None:
    trial(tmp_path / "t", 0)
    curve = read_trial(tmp_path / "t")
    # The loss of a row is the mean since the row before, here 50 steps: it stands in their middle.
    assert curve.step[0] == 125, "that of the first row, of 101 steps, has some of the warm-up"
    assert len(curve.lrs) == 2000
    with pytest.raises(MplError, match=r"t: 0 points|no column"):
        read_trial(tmp_path / "t", "val_loss")


def run_of(directory: Path, done: list[int], lrs: Array, **config: int) -> Path:
    """Return the directory of a trial with a row after each of so many steps."""
    directory.mkdir()
    np.save(directory / "lr.npy", lrs)
    written(directory / "metrics.csv", [f"{one},4.0,3.0" for one in done], "step,loss,val_loss")
    if config:
        (directory / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    return directory


def test_the_first_mean_of_a_run_that_went_on_from_another_begins_there(tmp_path: Path) -> None:
    done, lrs = [325, 350, 375], schedule("constant", 400, 1e-3, 20)
    assert read_trial(run_of(tmp_path / "told", done, lrs, begin=300)).step.tolist() == [312, 337, 362]
    assert read_trial(run_of(tmp_path / "untold", done, lrs)).step.tolist() == [337, 362]
    assert read_trial(run_of(tmp_path / "other", done, lrs, batch=32)).step.tolist() == [337, 362]
    assert read_trial(tmp_path / "told", "val_loss").step.tolist() == [324, 349, 374]
    (tmp_path / "told" / "config.yaml").write_text("begin: [\n")
    with pytest.raises(MplError, match=r"cannot read .*config\.yaml: it is no YAML"):
        read_trial(tmp_path / "told")


def test_a_mean_that_reaches_into_the_warm_up_is_left_out(tmp_path: Path) -> None:
    lrs = schedule("constant", 400, 1e-3, 30)
    assert read_trial(run_of(tmp_path / "a", [100, 200, 300, 400], lrs, begin=0)).step.tolist() == [149, 249, 349]
    assert read_trial(tmp_path / "a", "val_loss").step.tolist() == [99, 199, 299, 399]
    with pytest.raises(MplError, match=r"b: 1 rows with a mean loss of steps after the LR's peak at step 29 alone"):
        read_trial(run_of(tmp_path / "b", [200, 400], lrs, begin=0))


def test_a_row_before_the_first_step_is_left_out(tmp_path: Path) -> None:
    lrs = schedule("constant", 400, 1e-3)
    first = run_of(tmp_path / "first", [0, 100, 200, 300], lrs, begin=0)
    assert read_trial(first, "val_loss").step.tolist() == [99, 199, 299]
    assert read_trial(first).step.tolist() == [49, 149, 249]
    # Where a run goes on from another one's state, its first row is a measurement, but the mean of no step.
    later = run_of(tmp_path / "later", [100, 200, 300], lrs, begin=100)
    assert read_trial(later, "val_loss").step.tolist() == [99, 199, 299]
    assert read_trial(later).step.tolist() == [149, 249]


@pytest.mark.parametrize("digits", [3, 5, 9])
def test_lrs_of_few_digits_are_those_of_the_schedule(tmp_path: Path, digits: int) -> None:
    rows = [f"{step},{LRS[step]:.{digits}e},3.0" for step in STEPS.tolist()]
    assert len(read_csv(written(tmp_path / "a.csv", rows), SPEC).step) == len(rows)


@pytest.mark.parametrize("spec", ["wsd:steps=1000,peak=1e-3,warmup=50", "cosine:steps=1000,peak=1.01e-3,warmup=50"])
def test_another_schedule_is_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(MplError, match=r"the LR at step \d+ is [\d.e-]+, but [\d.e-]+ in the schedule") as error:
        read_csv(written(tmp_path / "a.csv", ROWS), spec)
    one, two = re.findall(r"is ([\d.e-]+), but ([\d.e-]+) in", str(error.value))[0]
    assert one != two


def test_a_header_as_other_programs_write_it(tmp_path: Path) -> None:
    assert read_csv(written(tmp_path / "a.csv", ROWS, "Step,LR,loss"), SPEC).step[0] == 60
    both = [f"{row.split(',')[0]},{row}" for row in ROWS]
    assert read_csv(written(tmp_path / "b.csv", both, "Step,step,lr,loss"), SPEC).step[0] == 60


def test_a_path_may_have_a_colon(tmp_path: Path) -> None:
    directory = tmp_path / "2026-11-22T08:30:00"
    directory.mkdir()
    path = written(directory / "cos.csv", ROWS)
    np.save(path.with_suffix(".npy"), LRS)
    for text in (f"{path}", f"{path}@{SPEC}", f"{path}@{path.with_suffix('.npy')}"):
        assert read_curve(text).lrs.tobytes() == LRS.tobytes()
    assert len(read_schedule(f"{path.with_suffix('.npy')}:steps=1000")) == 1000


def test_curves_of_one_name_are_named_by_their_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = tmp_path / "fit.json"
    FitResult.given("mpl", PARAMETERS[25]).save(law)
    files = []
    for name in ("cos", "con"):
        (tmp_path / name).mkdir()
        files.append(f"{written(tmp_path / name / 'loss.csv', ROWS)}")
    trial(tmp_path / "a" / "run", 0)
    trial(tmp_path / "b" / "run", 1)
    directories = [str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")]
    other = f"{written(tmp_path / 'other.csv', ROWS)}"
    typed = [*(f"{file}@{SPEC}" for file in (*files, other)), *directories]
    assert main(["evaluate", str(law), *typed, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [*files, "other", *directories]
    assert main(["fit", *directories, "--law", "power", "--out", str(tmp_path / "out"), "--no-plots"]) == 0
    assert main(["evaluate", str(law), *typed, typed[0]]) == 2
    assert f"two curves are named {files[0]}: give them different names" in capsys.readouterr().err


def test_a_fit_that_comes_to_no_end_is_written_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfinished(*arguments: Any) -> FitResult:
        return replace(fit(*arguments), success=False, message="1000 evaluations were not enough")

    monkeypatch.setattr(cli, "fit", unfinished)
    typed = ["fit", f"{written(tmp_path / 'a.csv', ROWS)}@{SPEC}", "--law", "power", "--out", str(tmp_path / "out")]
    assert main([*typed, "--no-plots", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["success"] is False
    file = tmp_path / "out" / "fit.json"
    told = f"mpl: the fit came to no end: 1000 evaluations were not enough; {file} has the best that was found\n"
    assert said.err == told
    assert not FitResult.load(file).success


def test_compare_says_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = [f"{written(tmp_path / f'{name}.csv', ROWS)}@{SPEC}" for name in "abc"]
    assert main(["compare", *typed, "--laws", "power"]) == 0
    assert "mean relative error on curves left out of the fit, 3 of 3\n" in capsys.readouterr().out
    assert main(["compare", *typed[:2], "--laws", "power"]) == 0
    assert "mean relative error on the last 40% of each curve, left out of the fit\n" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["csv", "json", "npy"])
def test_what_optimize_writes_can_be_predicted(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FitResult.given("mpl", PARAMETERS[25]).save(tmp_path / "fit.json")
    sizes = ["--steps", "500", "--peak", "3e-4", "--warmup", "50", "--floor", "0.1"]
    assert main(["optimize", str(tmp_path), *sizes, "--out", str(tmp_path), "--no-plots", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["loss"]
    assert main(["predict", str(tmp_path), "--schedule", str(tmp_path / f"schedule.{ending}"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 500
    assert said["loss"] == pytest.approx(expected)


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    lines = [
        trial(tmp_path / f"{name}-{seed}", seed, name)
        for name in ("cosine", "constant", "wsdcon_30")
        for seed in (0, 1)
    ]
    path = tmp_path / "trials.jsonl"
    failed = {"name": "gone", "directory": "nowhere", "state": "failed"}
    path.write_text("\n".join(json.dumps(line) for line in [*lines, failed]) + "\n")
    return path


def test_from_trials_to_a_schedule_and_a_report(
    trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "law"
    assert main(["fit", "--trials", str(trials), "--out", str(out), "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert set(fitted["metrics"]) == {"cosine", "constant", "wsdcon_30"}, "trials with the same LRs are averaged"
    assert json.loads((out / "fit.json").read_text()) == fitted
    assert (out / "fit.png").stat().st_size > 10_000

    sizes = ["--steps", "2000", "--peak", "3e-4", "--warmup", "100"]
    assert main(["optimize", str(out), *sizes, "--out", str(out), "--no-plots"]) == 0
    assert "expected final loss" in capsys.readouterr().out
    lrs = schedule(str(out / "schedule.npy"), 2000, 1.0)
    assert lrs.max() == pytest.approx(3e-4)

    assert main(["predict", str(out), "--schedule", str(out / "schedule.npy"), "--out", str(out), "--no-plots"]) == 0
    assert len((out / "prediction.csv").read_text().splitlines()) == 2001
    assert main(["evaluate", str(out), "--trials", str(trials), "--json"]) == 0
    assert "cosine" in capsys.readouterr().out
    assert main(["report", str(out), "--trials", str(trials), "--out", str(out), "--no-plots"]) == 0
    rows = json.loads((out / "report.json").read_text())
    assert [row["seeds"] for row in rows] == [2, 2, 2]
    assert all(row["within"] for row in rows)
    assert main(["compare", "--trials", str(trials), "--laws", "mpl", "power"]) == 0


def test_a_fit_without_bars_predicts_null_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FitResult.given("mpl", PARAMETERS[25]).save(tmp_path / "fit.json")
    assert main(["predict", str(tmp_path), "--schedule", SPEC, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["lower"] is None
    assert said["loss"] > 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: needed is a JSON object"),
        ('{"name": "a"}', "line 1: needed is a JSON object with `name` and `directory`"),
        ('{"name": "a", "directory": "b", "parameters": null}', "`parameters`, if there are, as an object: found"),
        ("", "no finished trial"),
        ('{"name": "a", "directory": "b", "state": "failed"}', "no finished trial"),
    ],
)
def test_a_bad_list_of_trials(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(MplError, match=message):
        read_trials(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "absent.csv@cosine:steps=9,peak=1", "--out", "{out}"], "cannot read absent.csv: No such file"),
        (["fit", "--out", "{out}"], "no curves: name some"),
        (["fit", "--trials", "absent.jsonl", "--out", "{out}"], "cannot read absent.jsonl"),
        (["fit", "{csv}", "--out", "{out}"], "the LRs of every step are needed: write .*@SCHEDULE"),
        (["fit", "{csv}@" + SPEC, "--law", "mlp", "--out", "{out}"], "unknown law 'mlp'"),
        (["fit", "{csv}@" + SPEC, "--prior", "atuo", "--out", "{out}"], "--prior is 'atuo', did you mean auto"),
        (["fit", "{csv}@" + SPEC], "the following arguments are required: --out"),
        (["evaluate", "absent.json", "{csv}@" + SPEC], "cannot read the fit absent.json"),
        (["evaluate", "{csv}", "{csv}@" + SPEC], "is no fit"),
        (["predict", "{fit}", "--schedule", "cosine:steps=9,peak=1,warmup=10"], "warmup is 10"),
        (["optimize", "{fit}", "--steps", "x", "--peak", "1", "--out", "{out}"], "invalid int value: 'x'"),
        (
            ["optimize", "{fit}", "--steps", "10", "--peak", "1", "--warmup", "10", "--out", "{out}"],
            "the warm-up is 10",
        ),
        (["report", "{fit}", "--out", "{out}"], "report needs --trials FILE"),
        (["fitt"], "invalid choice: 'fitt'"),
        (["fit", "{csv}@" + SPEC, "--starts", "-3", "--out", "{out}"], "the number of random starts is -3"),
        (["predict", "{fit}", "--schedule", "cosine:steps=1000,peak=1", "--out", "{out}"], "the law gives a loss of -"),
        (["optimize", "{fit}", "--steps", "9", "--peak", "9", "--out", "{out}"], "LRs up to 9 are too far from"),
        (
            ["optimize", "{fit}", "--steps", "99", "--peak", "1", "--warmup", "9", "--out", "{out}", "--prefix", SPEC],
            "a prefix is in place of a warm-up, which is 9 steps",
        ),
    ],
)
def test_one_line_and_code_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = written(tmp_path / "a.csv", ROWS)
    FitResult.given("mpl", PARAMETERS[25]).save(tmp_path / "fit.json")
    places = {"csv": str(csv), "fit": str(tmp_path / "fit.json"), "out": str(tmp_path / "out")}
    assert main([word.format(**places) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("mpl: error: ")
    assert re.search(message, lines[0])
    assert not (tmp_path / "out").exists()


def test_a_diverged_run_is_no_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS[:30], *(row.rsplit(",", 1)[0] + ",1e6" for row in ROWS[30:])]
    path = written(tmp_path / "up.csv", rows)
    assert main(["fit", f"{path}@{SPEC}", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "up: the loss at step 660 is 1e+06, and was 3.94 after the warm-up: a diverged run has no curve" in said
    assert not (tmp_path / "out").exists()


def test_a_schedule_that_is_no_numpy_file_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "lr.npy").write_text("0.1\n")
    with pytest.raises(MplError, match=r"lr\.npy: it is no \.npy file of numbers"):
        read_schedule(str(tmp_path / "lr.npy"))


def test_a_curve_needs_no_file_name_that_tells_its_schedule(tmp_path: Path) -> None:
    path = written(tmp_path / "anything at all.csv", ROWS)
    np.save(path.with_suffix(".npy"), LRS)
    assert read_curve(str(path)).lrs.tobytes() == read_curve(f"{path}@{SPEC}").lrs.tobytes()


def test_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n\nstep,lr,loss\n\n" + "\n\n".join(ROWS) + "\n")
    assert len(read_csv(path, SPEC).step) == len(ROWS)


def test_rows_are_counted_with_those_that_have_no_loss(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["20,0.1,", "40,0.1,", "60,x,3"])
    with pytest.raises(MplError, match="row 3: lr is 'x'"):
        read_csv(path, SPEC)


def test_what_the_csv_library_cannot_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [f"{ROWS[0]},{'x' * 200_000}"], "step,lr,loss,note")
    with pytest.raises(MplError, match=r"cannot read .*a\.csv: field larger"):
        read_csv(path, SPEC)


@pytest.mark.parametrize("spec", ["cosine:steps=1e15,peak=1", "cosine:steps=1e400,peak=1", "cosine:steps=9,peak=1e400"])
def test_numbers_that_no_computer_holds(spec: str) -> None:
    with pytest.raises(MplError, match="schedule 'cosine:steps"):
        read_schedule(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "is no fit: its format is 2, and this version reads 3; `python -m mpl fit` writes one"),
        ({"format": None}, "'format' is missing"),
        ({"parameters": {"L0": 1.0}}, "its parameters were changed: such a file may hold only `law` and `parameters`"),
        ({"log_parameters": [1.0, 2.0]}, "cannot reshape"),
        ({"bars": {"covariance": [[1.0]]}}, "cannot reshape"),
        ({"bars": {"rivals": {"momentum": [1.0]}}}, "cannot reshape"),
        ({"bars": {"rivals": {"momentum": ["x"] * 5}}}, "could not convert"),
        ({"bars": []}, "is no fit"),
        ({"peaks": [1]}, "is no fit: list index out of range"),
        ({"least_lr": "x"}, "could not convert"),
    ],
)
def test_a_fit_of_another_version_or_with_other_numbers(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "fit.json"
    fit(three("mpl", PARAMETERS[25], steps=1500), "mpl", None).save(path)
    kept = json.loads(path.read_text())
    for key, value in changes.items():
        if isinstance(value, dict):
            kept[key].update(value)
        elif value is None:
            del kept[key]
        else:
            kept[key] = value
    path.write_text(json.dumps(kept))
    with pytest.raises(MplError, match=message) as error:
        FitResult.load(path)
    assert "\n" not in str(error.value)


def test_every_file_is_json_also_where_a_figure_is_no_number(tmp_path: Path) -> None:
    curves = three("mpl", PARAMETERS[25], steps=1500)
    same = Curve.of("same", curves[0].step, np.full(len(curves[0].step), 3.0), curves[0].lrs)
    found = fit([*curves[1:], same], "mpl", 0.1)
    found.save(tmp_path / "fit.json")
    kept = json.loads((tmp_path / "fit.json").read_text(), parse_constant=pytest.fail)
    assert kept["metrics"]["same"]["r2"] is None
    assert np.isnan(FitResult.load(tmp_path / "fit.json").metrics["same"].r2)


def test_a_fit_without_bars_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FitResult.given("mpl", PARAMETERS[25]).save(tmp_path / "fit.json")
    assert main(["predict", str(tmp_path), "--schedule", SPEC]) == 0
    assert re.fullmatch(r"final loss [0-9.]+, no error bars, after 1000 steps\n", capsys.readouterr().out)


def buffered() -> dict[str, str]:
    """The environment, with an output that is written when the interpreter likes to, as usual."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    FitResult.given("mpl", PARAMETERS[25]).save(tmp_path / "fit.json")
    command = [sys.executable, "-m", "mpl", "predict", str(tmp_path), "--schedule", SPEC]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=buffered())
    assert ended.returncode == 2
    assert ended.stderr == "mpl: error: cannot write the output: No space left on device\n"


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    FitResult.given("mpl", PARAMETERS[25]).save(tmp_path / "fit.json")
    command = [sys.executable, "-m", "mpl", "predict", str(tmp_path), "--schedule", SPEC]
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, env=buffered())
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_an_interrupt_ends_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mpl.cli.run_predict", interrupted)
    assert main(["predict", str(tmp_path), "--schedule", SPEC]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_directory_may_have_an_at_sign(tmp_path: Path) -> None:
    directory = tmp_path / "me@host"
    directory.mkdir()
    path = written(directory / "a.csv", ROWS)
    np.save(path.with_suffix(".npy"), LRS)
    for text in (f"{path}", f"{path}@{SPEC}", f"{path}@{path.with_suffix('.npy')}"):
        assert read_curve(text).lrs.tobytes() == LRS.tobytes()
    trial(tmp_path / "t@1", 0)
    assert read_curve(str(tmp_path / "t@1")).name == "t@1"
