"""The closed loop of examples/mpl.yaml over three seeds: train, fit, predict, derive a schedule, train that.

    python -m bench.mpl_closed_loop [--out output/mpl_loop] [--steps 3000] [--seeds 3] [--jobs 2]

Runs that exist are kept. Prints the report: predicted against measured, and the new schedule beside the usual ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FITTED = ("cosine", "constant", "wsd")
UNSEEN = ("wsdld", "wsdcon_9")
PEAK, WARMUP = 1e-2, 100
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/mpl_loop"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    out, steps = arguments.out, arguments.steps
    out.mkdir(parents=True, exist_ok=True)
    started_s = time.perf_counter()

    seeds = range(arguments.seeds)
    fitted = train_all(out, FITTED, seeds, steps, arguments.jobs)
    print(f"{time.perf_counter() - started_s:.0f} s: {len(fitted)} runs to fit", flush=True)
    mpl("fit", "--trials", write_trials(out / "fitted.jsonl", fitted), "--column", "val_loss", "--out", out / "law")
    sizes = ("--steps", steps, "--peak", PEAK, "--warmup", WARMUP)
    mpl("optimize", out / "law", *sizes, "--out", out / "law")
    rest = train_all(out, (*UNSEEN, str(out / "law" / "schedule.npy")), seeds, steps, arguments.jobs)
    print(f"{time.perf_counter() - started_s:.0f} s: {len(rest)} runs that the law had not seen", flush=True)
    trials = write_trials(out / "all.jsonl", fitted + rest)
    mpl("report", out / "law", "--trials", trials, "--column", "val_loss", "--out", out / "report")


def train_all(out: Path, schedules: tuple[str, ...], seeds: range, steps: int, jobs: int) -> list[dict[str, object]]:
    """Train every schedule with every seed, some at a time; return them as trials."""
    trials: list[dict[str, object]] = []
    for schedule in schedules:
        for seed in seeds:
            name = f"{Path(schedule).stem}-seed_{seed}"
            parameters = {"schedule": schedule, "seed": seed}
            trials.append({"name": name, "directory": str(out / name), "parameters": parameters})

    def train(trial: dict[str, object]) -> None:
        parameters = trial["parameters"]
        assert isinstance(parameters, dict)
        flags = {"out": trial["directory"], "steps": steps, "lr": PEAK, "warmup": WARMUP, **parameters}
        flags |= {"eval_every": max(steps // 30, 1), "eval_examples": 2048, "threads": 1, "device": "cpu"}
        words = [str(word) for key, value in flags.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-m", "train", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, trials))
    return trials


def write_trials(path: Path, trials: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps({**trial, "state": "finished"}) + "\n" for trial in trials))
    return path


def mpl(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mpl", *map(str, words)], check=True, env=ENVIRONMENT)


if __name__ == "__main__":
    main()
