"""`python -m mpl fit|predict|evaluate|optimize|compare|report`: argv → files, and lines or JSON on stdout."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mpl import jsontext
from mpl.curve import Curve, check_names
from mpl.errors import EXIT_INTERRUPTED, EXIT_USAGE, MplError, TrainError, nearest
from mpl.fit import DEFAULT_LAW, FitResult, fit, left_out, select
from mpl.laws import LAWS
from mpl.optimize import KINDS, optimize_schedule
from mpl.problem import DELTA
from mpl.readers import path_and_schedule, read_curve, read_schedule, read_trials
from mpl.trials import curves_of, report_text, runs_of, table

FIT = "fit.json"
EXIT_FAILED = 1
CURVES_HELP = "DIRECTORY of a trial, or FILE.csv@SCHEDULE, such as a.csv@cosine:steps=24000,peak=3e-4,warmup=2160"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise MplError(message)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        arguments = make_parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except (MplError, TrainError) as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"so many steps do not fit into the memory: {error}")
    except BrokenPipeError:  # whoever read the output has gone
        _drop_output()
        return EXIT_FAILED
    except OSError as error:
        _drop_output()
        return _fail(f"cannot write {error.filename or arguments.out or 'the output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _drop_output() -> None:
    """Let what cannot be written go, so that the interpreter's own flush at the end does not complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    print(f"mpl: error: {message}", file=sys.stderr, flush=True)
    return EXIT_USAGE


def make_parser() -> Parser:
    parser = Parser(prog="mpl", description="Fit loss-curve laws, predict schedules, derive better ones.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    command = _command(commands, "fit", run_fit, "fit a law to curves")
    _curves(command)
    command.add_argument("--law", default=DEFAULT_LAW, help=f"{', '.join(LAWS)} (default: {DEFAULT_LAW})")
    command.add_argument("--prior", default="auto", help="width of the shape prior: auto, none, or a number")
    command.add_argument("--delta", type=float, default=DELTA, help=f"Huber threshold of log residuals ({DELTA})")
    command.add_argument("--starts", type=int, default=0, help="random starts beside those that are always tried")
    _outputs(command, required=True)

    command = _command(commands, "predict", run_predict, "predict the curve of a schedule")
    command.add_argument("fit", type=Path, help=f"{FIT}, or its directory")
    command.add_argument("--schedule", required=True, help="a file or name:key=value,...")
    _outputs(command)

    command = _command(commands, "evaluate", run_evaluate, "compare predictions with curves")
    command.add_argument("fit", type=Path, help=f"{FIT}, or its directory")
    _curves(command)
    _outputs(command)

    command = _command(commands, "optimize", run_optimize, "derive the schedule with the lowest final loss")
    command.add_argument("fit", type=Path, help=f"{FIT}, or its directory")
    command.add_argument("--steps", type=int, required=True)
    command.add_argument("--peak", type=float, required=True, help="largest LR")
    command.add_argument("--warmup", type=int, default=0, help="steps of linear warm-up")
    command.add_argument("--floor", type=float, help="least LR in parts of the peak (default: the least of the curves)")
    command.add_argument("--kind", default="smooth", help=" or ".join(KINDS))
    command.add_argument("--prefix", help="LRs of the steps already taken: a file or name:key=value,...")
    command.add_argument("--max-decay", type=float, help="largest part of the LR to lose in one step")
    _outputs(command, required=True)

    command = _command(commands, "compare", run_compare, "compare laws on what is left out of their fits")
    _curves(command)
    command.add_argument("--laws", nargs="+", default=list(LAWS), help=", ".join(LAWS))
    _outputs(command)

    command = _command(commands, "report", run_report, "predicted against measured, by schedule, over trials")
    command.add_argument("fit", type=Path, help=f"{FIT}, or its directory")
    _curves(command)
    _outputs(command, required=True)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _curves(command: argparse.ArgumentParser) -> None:
    command.add_argument("curves", nargs="*", metavar="CURVE", help=CURVES_HELP)
    command.add_argument("--trials", type=Path, help="a JSON-lines file of trials; the mean of those with equal LRs")
    command.add_argument("--column", default="loss", help="the column that holds the loss (default: loss)")


def _outputs(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument("--out", type=Path, required=required, help="directory for what is written")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--no-plots", action="store_true", help="write no pictures")


def run_fit(arguments: argparse.Namespace) -> int:
    curves = _read(arguments)
    result = fit(curves, arguments.law, _width(arguments.prior), arguments.delta, arguments.starts)
    out = _directory(arguments.out)
    result.save(out / FIT)
    if not arguments.no_plots:
        from mpl import plots

        plots.curves(result, curves, out / "fit.png")
    lines = [f"law {result.law.name}: {result.message} after {result.evaluations} evaluations"]
    lines += [f"  {name:6} {value:.6g}" for name, value in result.parameters.items()]
    lines += [f"objective {result.objective:.6e}, width of the shape prior {result.shape_prior}"]
    lines += table(result.metrics)
    _show(arguments, result.as_dict(), [*lines, f"written to {out / FIT}"])
    if result.success:
        return 0
    print(f"mpl: the fit came to no end: {result.message}; {out / FIT} has the best that was found", file=sys.stderr)
    return EXIT_FAILED


def run_predict(arguments: argparse.Namespace) -> None:
    result, lrs = _load(arguments.fit), read_schedule(arguments.schedule)
    predicted = result.predict(lrs)
    last = {name: float(getattr(predicted, name)[-1]) for name in ("loss", "lower", "upper")}
    _possible(float(predicted.loss.min()), lrs.max())
    if arguments.out:
        out = _directory(arguments.out)
        with (out / "prediction.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", "lr", "loss", "lower", "upper"])
            rows = zip(predicted.step, lrs, predicted.loss, predicted.lower, predicted.upper, strict=True)
            writer.writerows([int(row[0]), *map(float, row[1:])] for row in rows if np.isfinite(row[2]))
        if not arguments.no_plots:
            from mpl import plots

            plots.prediction(predicted, lrs, out / "prediction.png")
    _show(arguments, {"steps": len(lrs), **last}, [f"final loss {_with_bars(**last)}, after {len(lrs)} steps"])


def run_evaluate(arguments: argparse.Namespace) -> None:
    result, curves = _load(arguments.fit), _read(arguments)
    metrics = {curve.name: result.evaluate(curve) for curve in curves}
    if arguments.out:
        out = _directory(arguments.out)
        values = {name: one.as_dict() for name, one in metrics.items()}
        jsontext.write(out / "evaluation.json", values)
        if not arguments.no_plots:
            from mpl import plots

            plots.curves(result, curves, out / "evaluation.png")
    _show(arguments, {name: one.as_dict() for name, one in metrics.items()}, table(metrics))


def run_optimize(arguments: argparse.Namespace) -> None:
    prefix = read_schedule(arguments.prefix) if arguments.prefix else None
    keys = ("steps", "peak", "warmup", "floor", "kind", "max_decay")
    found = optimize_schedule(_load(arguments.fit), prefix=prefix, **{key: getattr(arguments, key) for key in keys})
    _possible(found.loss, arguments.peak)
    out = _directory(arguments.out)
    found.save(out)
    if not arguments.no_plots:
        from mpl import plots

        plots.schedule(found, out / "schedule.png")
    lines = [f"{found.kind}: expected final loss {_with_bars(found.loss, found.lower, found.upper)}"]
    lines += [f"  {name:8} {loss:.5f}  gain {loss - found.loss:+.5f}" for name, loss in found.usual.items()]
    _show(arguments, found.as_dict(), [*lines, *found.notes, f"written to {out / 'schedule.npy'}, .csv and .json"])


def run_compare(arguments: argparse.Namespace) -> None:
    curves = _read(arguments)
    found = select(curves, arguments.laws)
    if arguments.out:
        jsontext.write(_directory(arguments.out) / "laws.json", found)
    title = f"mean relative error on {left_out(curves, arguments.laws)}"
    lines = [title, *(f"  {k:10} {v:.5f}" for k, v in found.items())]
    _show(arguments, found, lines)


def run_report(arguments: argparse.Namespace) -> None:
    if not arguments.trials:
        raise MplError("report needs --trials FILE")
    result = _load(arguments.fit)
    rows = runs_of(result, read_trials(arguments.trials), arguments.column)
    out = _directory(arguments.out)
    jsontext.write(out / "report.json", rows)
    (out / "report.md").write_text("\n".join(report_text(rows)) + "\n", encoding="utf-8")
    if not arguments.no_plots:
        from mpl import plots

        plots.curves(result, _read(arguments), out / "report.png")
    _show(arguments, {"schedules": rows}, [*report_text(rows), f"written to {out / 'report.md'}"])


def _read(arguments: argparse.Namespace) -> list[Curve]:
    """Return the curves of the arguments, named by their paths where two have one name, and of the trials file."""
    typed = [(path_and_schedule(text)[0], read_curve(text, arguments.column)) for text in arguments.curves]
    others = curves_of(read_trials(arguments.trials), arguments.column) if arguments.trials else []
    names = Counter(curve.name for curve in [*others, *(curve for _, curve in typed)])
    curves = [replace(curve, name=path) if names[curve.name] > 1 else curve for path, curve in typed] + others
    if not curves:
        raise MplError(f"no curves: name some ({CURVES_HELP}) or give --trials FILE")
    check_names(curves)
    return curves


def _with_bars(loss: float, lower: float, upper: float) -> str:
    bars = f"90% of {lower:.5f} to {upper:.5f}" if np.isfinite(lower) else "no error bars"
    return f"{loss:.5f}, {bars}"


def _possible(loss: float, peak: float) -> None:
    if not loss > 0:
        raise MplError(f"the law gives a loss of {loss:.4g}: LRs up to {peak:g} are too far from the fitted ones")


def _load(path: Path) -> FitResult:
    return FitResult.load(path / FIT if path.is_dir() else path)


def _width(text: str) -> float | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return float(text)
    except ValueError as error:
        raise MplError(f"--prior is {text!r}{nearest(text, ['auto', 'none'])}: auto, none or a number") from error


def _directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _show(arguments: argparse.Namespace, values: dict[str, Any], lines: list[str]) -> None:
    print(jsontext.dumps(values) if arguments.json else "\n".join(lines), flush=True)
