"""The command lines of what shows results."""

from __future__ import annotations

import argparse

OUTPUT_HELP = "where the trials are (default: %(default)s)"


def count(text: str) -> int:
    """A number of things of which there is at least one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def _choice(result: argparse.ArgumentParser) -> None:
    add = result.add_argument
    add("names", metavar="NAME", nargs="*", help="only these trials; * and ? stand for any characters")
    add("-o", "--output", metavar="DIR", default="output", help=OUTPUT_HELP)


def _direction(result: argparse.ArgumentParser) -> None:
    direction = result.add_mutually_exclusive_group()
    direction.add_argument("--max", dest="maximize", action="store_true", default=None, help="the highest is the best")
    direction.add_argument("--min", dest="maximize", action="store_false", default=None, help="the lowest is the best")


def _form(result: argparse.ArgumentParser) -> None:
    form = result.add_mutually_exclusive_group()
    for name, what in {"csv": "comma-separated", "json": "one JSON object a line", "md": "a Markdown table"}.items():
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=what)
    result.add_argument("-n", "--rows", metavar="N", type=count, help="only the first N rows")


def table(result: argparse.ArgumentParser) -> None:
    """`run table`."""
    _choice(result)
    result.add_argument("--sort", metavar="COLUMN", help="by this column, the best first for a metric")
    result.add_argument("--by", metavar="PARAM", nargs="+", help="means over all trials that share these parameters")
    result.add_argument("--all", action="store_true", help="also the columns that are the same everywhere")
    _direction(result)
    _form(result)


def best(result: argparse.ArgumentParser) -> None:
    """`run best`."""
    result.add_argument("metric", metavar="METRIC", help="a metric, such as val_loss or val_loss_best")
    _choice(result)
    result.add_argument("--by", metavar="PARAM", nargs="+", default=[], help="only the best one for each of its values")
    result.add_argument("--over", metavar="PARAM", nargs="+", default=["seed"], help="means over these (default: seed)")
    _direction(result)
    _form(result)


def compare(result: argparse.ArgumentParser) -> None:
    """`run compare`."""
    result.add_argument("a", metavar="A", help="the name of a trial")
    result.add_argument("b", metavar="B", help="the name of another")
    result.add_argument("-o", "--output", metavar="DIR", default="output", help=OUTPUT_HELP)
    result.add_argument("--lines", metavar="N", type=count, default=20, help="lines of each difference (default: 20)")


def plot(result: argparse.ArgumentParser) -> None:
    """`run plot`."""
    add = result.add_argument
    add("metric", metavar="METRIC", help="what is drawn: its curves, if nothing else is said")
    _choice(result)
    add("--x", metavar="PARAM", help="draw the metric against this parameter")
    add("--y", metavar="PARAM", help="with --x: a heat map over both")
    add("--against", metavar="COLUMN", help="draw all trials over this column and the metric, with the Pareto front")
    add("--by", metavar="PARAM", nargs="+", help="a line for each combination of these; all but the seed by default")
    add("--save", metavar="FILE", help="a .png, .pdf or .svg file (default: METRIC.png in the output directory)")


def report(result: argparse.ArgumentParser) -> None:
    """`run report`."""
    _choice(result)
    result.add_argument("--metric", metavar="METRIC", help="whose curves it shows (default: the first one)")
    result.add_argument("--save", metavar="FILE", help="default: report.html in the output directory")


def tensorboard_sync(result: argparse.ArgumentParser) -> None:
    """`run tensorboard-sync`."""
    _choice(result)
    result.add_argument("--watch", metavar="SECONDS", type=float, help="again and again, until nothing runs any more")


def repro(result: argparse.ArgumentParser) -> None:
    """`run repro`."""
    add = result.add_argument
    add("name", metavar="TRIAL", help="the name of a trial")
    add("-o", "--output", metavar="DIR", default="output", help=OUTPUT_HELP)
    add("-c", "--command", metavar="STAGE", nargs="+", help="only these stages")
    add("--run", action="store_true", help="do it, and compare the metrics; without it, the commands are printed")
    add("--into", metavar="DIR", help="where the code is put and run (default: a new temporary directory)")
