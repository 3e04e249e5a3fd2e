"""Speed and accuracy of mpl/ on the published curves; prints tables, and JSON with --json.

    python -m bench.mpl_figures [CURVES] [--starts 200] [--json]

CURVES is the folder with csv_25 and csv_100 (default ../shared/mpl). Times are the processor's, of one thread, the
least of several rounds, imports excluded.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.mpl_bars import judge, misses, past
from mpl import Curve, FitResult, Metrics, fit, optimize_schedule
from mpl.fit import make_problem
from mpl.optimize import KINDS
from mpl.prior import shape_prior
from mpl.problem import random_starts, settle
from mpl.smooth import Before, Smooth, smooth_plans
from mpl.staircase import staircase_lrs
from tests.mpl.curves import FITTED, PARAMETERS, UNSEEN, published
from train.schedules import schedule

STEPS, PEAK, WARMUP = 24000, 3e-4, 2160
PUBLIC_S = {"bare fit": 44.0, "default fit": 44.0, "smooth": 19.0, "smooth with its expected loss": 19.0}
PUBLIC_S |= {"staircase": 19.0}
"""The least of the public code's times for the same (initialisation and fit, or one schedule)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="?", help="folder with csv_25 and csv_100")
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.curves:
        import tests.mpl.curves

        tests.mpl.curves.PUBLISHED = Path(arguments.curves)
    found = {f"{size}M": measure(size, arguments.starts) for size in PARAMETERS} | {"all": memory()}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for size, values in found.items():
        for name, value in values.items():
            print(f"{size:5} {name:34} {value}")


def measure(size: int, starts: int) -> dict[str, Any]:
    curves = [published(size, name) for name in FITTED]
    unseen = [published(size, name) for name in UNSEEN]
    given, chosen = FitResult.given("mpl", PARAMETERS[size]), fit(curves)
    bare = fit(curves, "mpl", None, delta=1e-3, error_bars=False)
    found: dict[str, Any] = {"bare objective": f"{bare.objective:.6e}"}
    found |= accuracy({"published": given, "bare": bare, "default": chosen}, curves, unseen)
    found |= coverage(chosen, curves, unseen)
    found |= speed(size, curves, given)
    found["random starts at the optimum"] = random_share(curves, bare.objective, starts)
    return found


def accuracy(fits: dict[str, FitResult], curves: list[Curve], unseen: list[Curve]) -> dict[str, str]:
    found = {}
    for name, one in fits.items():
        found[f"{name} R2 MAE RMSE PredE WorstE"] = line([one.evaluate(curve) for curve in unseen])
        found[f"{name} past divergence"] = line([one.evaluate(past(curve, curves)) for curve in unseen])
    return found


def line(metrics: list[Metrics]) -> str:
    return " ".join(f"{value:.5f}" for value in Metrics.mean(metrics).as_dict().values())


def coverage(chosen: FitResult, curves: list[Curve], unseen: list[Curve]) -> dict[str, str]:
    """Bars of 90% past divergence: the share of points inside, and the interval score beside constant bars."""
    errors, halves = misses(chosen, curves, unseen)
    share, score, constant = judge(np.concatenate(errors), np.concatenate(halves))
    inside = [float((error <= half).mean()) for error, half in zip(errors, halves, strict=True)]
    return {
        "coverage of points, of curves": f"{share:.3f} {np.mean(inside):.3f}",
        "coverage by curve": " ".join(f"{share:.2f}" for share in inside),
        "interval score, best constant bar": f"{score:.5f} {constant:.5f}",
    }


def speed(size: int, curves: list[Curve], given: FitResult) -> dict[str, str]:
    taken = schedule("constant", WARMUP, PEAK, WARMUP, convention="linspace")
    count, million = STEPS - WARMUP, 1_000_000 - WARMUP
    law, logs = given.law, given.log_parameters
    stairs = Smooth(law, logs, Before.of(taken, plain=0), 0.0, count)
    long = schedule("cosine", 1_000_000, PEAK, WARMUP)
    times = {
        "bare fit": cpu(lambda: fit(curves, "mpl", None, delta=1e-3, error_bars=False)),
        "default fit": cpu(lambda: fit(curves)),
        "smooth": cpu(lambda: smooth_plans(law, logs, taken, count, PEAK, 0.0), 20),
        "smooth with its expected loss": cpu(lambda: optimize_schedule(given, STEPS, PEAK, WARMUP, 0.0), 20),
        "staircase": cpu(lambda: staircase_lrs(stairs, PEAK), 10),
        "smooth, a million steps": cpu(lambda: smooth_plans(law, logs, taken, million, PEAK, 0.0)),
        "predict a million steps": cpu(lambda: given.predict(long), 2),
    }
    found = {}
    for name, seconds in times.items():
        ratio = f", {PUBLIC_S[name] / seconds:.0f} times as fast as the public code" if name in PUBLIC_S else ""
        found[f"time of {name}"] = f"{1e3 * seconds:.2f} ms{ratio}"
    for kind in KINDS:
        lrs = optimize_schedule(given, STEPS, PEAK, WARMUP, 0.0, kind, convention="linspace").lrs
        found[f"final loss, {kind}"] = f"{without_warmup(PARAMETERS[size], lrs):.6f}"
    return found


def memory() -> dict[str, str]:
    """The most memory of a process that does one thing, Python and numpy included."""
    found = {}
    for name in MEMORY:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[f"memory of {name}"] = f"{pool.submit(most_memory, name).result():.0f} MiB"
    return found


def most_memory(name: str) -> float:
    MEMORY[name]()
    # Not ru_maxrss: a child starts with that of its parent.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def both_fits() -> None:
    curves = [published(25, name) for name in FITTED]
    fit(curves, "mpl", None, delta=1e-3, error_bars=False)
    fit(curves)


def long_schedule() -> None:
    optimize_schedule(FitResult.given("mpl", PARAMETERS[25]), 1_000_000, PEAK, WARMUP, 0.0)


def long_prediction() -> None:
    FitResult.given("mpl", PARAMETERS[25]).predict(schedule("cosine", 1_000_000, PEAK, WARMUP))


MEMORY = {
    "both fits": both_fits,
    "smooth, a million steps": long_schedule,
    "predict a million steps": long_prediction,
}


def cpu(action: Callable[[], object], rounds: int = 10) -> float:
    times = []
    for _ in range(rounds):
        start_s = time.process_time()
        action()
        times.append(time.process_time() - start_s)
    return min(times)


def without_warmup(values: tuple[float, ...], lrs: Any) -> float:
    """The final loss as the public optimiser counts it, without the warm-up's own LR changes."""
    l0, a, alpha, b, c, beta, gamma = values
    area = np.cumsum(lrs[::-1])[::-1]
    at = np.arange(WARMUP, len(lrs))
    response = 1 - (1 + c * lrs[at] ** -gamma * area[at]) ** -beta
    return float(l0 + a * area[0] ** -alpha - b * ((lrs[at - 1] - lrs[at]) @ response))


def random_share(curves: list[Curve], least: float, count: int) -> str:
    problem = make_problem("mpl", curves, 1e-3)
    law = fit(curves, "mpl", 0.02, error_bars=False).law
    nothing = shape_prior(law, None)
    ends = [settle(law, problem, nothing, start).objective for start in random_starts(law, problem, count, seed=1)]
    return f"{np.mean(np.array(ends) <= least * (1 + 1e-5)):.3f} of {count}"


if __name__ == "__main__":
    main()
