"""An afternoon on eight fake GPUs: two daemons, strangers that come and go, a GPU lost and found, packing on.

    python -m bench.gpu_afternoon [--jobs 500] [--seconds 10] [--per-gpu auto]
    python -m bench.gpu_afternoon --gaps 300        # from the end of an attempt to the next start on its slot

The driver is the fake library of tests/fakenvml (gcc is needed) under the real pynvml; the jobs are shells that say
what memory they use and sleep, twice as long at most as `--seconds` in the mean. Printed: the makespan beside its lower
bound, which is the work divided by the GPU time that was there, and what went wrong, if anything did. Work is the time
that each job ran times the share of a GPU that its memory needs; time for which a stranger had a GPU, or it was lost,
was not there. Beside it stands what a schedule reaches that loses no moment but does not know how long jobs take: the
first job of the queue that fits starts at once, on GPUs that nobody else ever has; once where it knows what memory each
needs, and once where the first ones of a kind have a GPU to themselves, as with `per_gpu: auto`.
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pynvml

from runner.gpus.leases import LeaseStore
from runner.gpus.nvml import Nvml
from tests.fakenvml.driver import LIBRARY, FakeGpu, FakeNvml, compile_library, uuid

RUN = Path(sys.executable).with_name("run")
GPUS = 8
# MiB at the peak: with its margin a quarter, half and all of what a card has for attempts, so that nothing has to be
# left over because no job fits into it.
CLASSES = {"small": 5_300, "middle": 10_600, "large": 21_200}
WEIGHTS = {"small": 4, "middle": 3, "large": 1}
TOTAL_MIB = 24_576
# (when, until, GPU, as parts of the expected makespan): strangers, and the GPU that is lost
STRANGERS = [(0.2, 0.4, 3), (0.5, 0.6, 5), (0.1, 0.15, 0)]
LOST = (0.3, 0.45, 6)


def params_yaml(names: list[str], seconds: list[float], per_gpu: str) -> str:
    """A grid of jobs: each tells the fake driver what it uses, first a third and then all of it."""
    use = 'echo "$$ $CUDA_VISIBLE_DEVICES'
    command = f'{use} {{third}}" >> $FAKE_NVML.uses; sleep {{half}}; {use} {{mib}}" >> $FAKE_NVML.uses; sleep {{half}}'
    rows = {
        "n": list(range(len(names))),
        "size": names,
        "third": [CLASSES[name] // 3 for name in names],
        "mib": [CLASSES[name] for name in names],
        "half": [round(value / 2, 2) for value in seconds],
    }
    head = f"template:\n  job: |-\n    {command}\nstage: {{per_gpu: {per_gpu}, vram_by: [size]}}\n"
    return f"{head}---\n_zip: {json.dumps(rows)}\n"


class Afternoon:
    """The machine and what happens on it."""

    def __init__(self, directory: Path, gpus: int = GPUS) -> None:
        library = compile_library(directory / "library")
        self.fake = FakeNvml(directory, library, [FakeGpu(index) for index in range(gpus)])
        self.directory = directory
        self.environment = {
            **os.environ,
            **self.fake.environment,
            "RUNNER_LEASES": str(directory / "leases"),
            "LD_LIBRARY_PATH": str(library),
        }
        pynvml.nvmlLib = ctypes.CDLL(str(library / LIBRARY))  # as LD_LIBRARY_PATH does for a new process
        os.environ["FAKE_NVML"] = str(self.fake.path)
        self._nvml, self._leases = Nvml(), LeaseStore(directory / "leases")
        self.away: list[tuple[float, float, int, bool]] = []  # from, until, GPU, whether it was lost
        self.faults: list[str] = []

    def run(self, *arguments: str) -> None:
        """Types `run`."""
        subprocess.run([RUN, *arguments], cwd=self.directory, env=self.environment, check=True, capture_output=True)

    def watch(self, outputs: list[str], expected_s: float) -> float:
        """Lets the afternoon happen; returns how long it took."""
        began = time.time()
        due = [(start, stop, gpu, False) for start, stop, gpu in STRANGERS] + [(*LOST, True)]
        living: list[tuple[float, int, bool, float, subprocess.Popen[bytes] | None]] = []
        waits = [
            subprocess.Popen([RUN, "wait", "-o", output], cwd=self.directory, env=self.environment, stdout=-3)
            for output in outputs
        ]
        while any(wait.poll() is None for wait in waits):
            now = time.time() - began
            for event in [event for event in due if now >= event[0] * expected_s]:
                due.remove(event)
                living.append((event[1] * expected_s, event[2], event[3], now, self._come(event[2], event[3])))
            for item in [item for item in living if now >= item[0]]:
                living.remove(item)
                self._leave(item[1], item[4])
                self.away.append((began + item[3], time.time(), item[1], item[2]))
            self._check()
            time.sleep(0.1)
        for item in living:
            self._leave(item[1], item[4])
            self.away.append((began + item[3], time.time(), item[1], item[2]))
        self.faults += [f"run wait ended with {wait.returncode}" for wait in waits if wait.returncode]
        return time.time() - began

    def _come(self, gpu: int, is_loss: bool) -> subprocess.Popen[bytes] | None:
        if is_loss:
            self.fake.fail("*", uuid(gpu), pynvml.NVML_ERROR_GPU_IS_LOST)
            return None
        stranger = subprocess.Popen(["sleep", "100000"], start_new_session=True)
        self.fake.note_use(stranger.pid, uuid(gpu), 2_000)
        return stranger

    def _leave(self, gpu: int, stranger: subprocess.Popen[bytes] | None) -> None:
        if stranger is None:
            self.fake.heal()
        else:
            stranger.kill()
            stranger.wait()

    def _check(self) -> None:
        """No share of a GPU is leased twice, and none holds more memory than it has."""
        leased: dict[str, Fraction] = {}
        for record in self._leases.held():
            for gpu, share in record.shares.items():
                leased[gpu] = leased.get(gpu, Fraction(0)) + share
        self.faults += [f"{gpu}: {share} of it leased" for gpu, share in leased.items() if share > 1]
        for device in self._nvml.snapshot().devices:
            if (device.used_mib or 0) > TOTAL_MIB:
                self.faults.append(f"GPU {device.index}: {device.used_mib} MiB in use")


def attempts(directory: Path) -> list[dict[str, Any]]:
    """Each attempt's start record, with the seconds and the state of its end."""
    found = []
    for path in directory.glob("*/*/attempts"):
        started: dict[int, dict[str, Any]] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["event"] == "start":
                started[record["attempt"]] = record | {"trial": path.parent.name}
            elif record["event"] == "end":
                ended = {key: record[key] for key in ("seconds", "state", "ended")}
                found.append(started[record["attempt"]] | ended)
    return found


def away_s(done: list[dict[str, Any]], start: float, stop: float, gpu: int) -> float:
    """For how long of a stranger's time, or of a loss, no job was on the GPU; those that were there went on."""
    on_it = [(epoch(item["started"]), epoch(item["ended"])) for item in done if uuid(gpu) in item["gpus"]]
    free_from = max((min(ended, stop) for began, ended in on_it if began <= start < ended), default=start)
    return stop - free_from


def list_schedule(shares: list[int], seconds: list[float], kinds: list[str], learns: bool) -> float:
    """Lower bound by makespan of a schedule without any loss; `shares` in quarters of a GPU.

    Where it `learns`, a job has a GPU to itself until one of its kind has ended.
    """
    free, now, ends, known = [4] * GPUS, 0.0, list[tuple[float, int, int, str]](), set[str]()
    waiting = list(zip(shares, seconds, kinds, strict=True))

    def taken(item: tuple[int, float, str]) -> int:
        return 4 if learns and item[2] not in known else item[0]

    while waiting or ends:
        fitting = next((item for item in waiting if taken(item) <= max(free)), None)
        if fitting is None:
            now, gpu, share, kind = heapq.heappop(ends)
            free[gpu] += share
            known.add(kind)
            continue
        waiting.remove(fitting)
        share = taken(fitting)
        gpu = min((index for index in range(GPUS) if free[index] >= share), key=lambda index: free[index])
        free[gpu] -= share
        heapq.heappush(ends, (now + fitting[1], gpu, share, fitting[2]))
    return sum(share * length for share, length in zip(shares, seconds, strict=True)) / (4 * GPUS * now)


def share_of(item: dict[str, Any], per_card: dict[str, int]) -> float:
    """The part of a GPU that an attempt's memory needs, whatever part it had."""
    return next(1 / count for name, count in per_card.items() if f"Size_{name}" in item["trial"])


def epoch(text: str) -> float:
    """Seconds of the epoch."""
    return datetime.fromisoformat(text).timestamp()


def gaps_ms(count: int, resource: str) -> list[float]:
    """From the last act of a job to the first one of the next, on one slot: `count` jobs that only tell the time."""
    with tempfile.TemporaryDirectory() as name:
        afternoon = Afternoon(Path(name), 1)
        told = 'echo $EPOCHREALTIME >> "ledger"'
        text = f"template:\n  job: {told}; {told}\nresource: {resource}\n---\nn: {{_range: [0, {count}]}}\n"
        (afternoon.directory / "params.yaml").write_text(text)
        afternoon.run()
        times = [float(line) for line in (afternoon.directory / "ledger").read_text().split()]
    return [(later - earlier) * 1000 for earlier, later in zip(times[1::2], times[2::2], strict=False)]


def print_gaps(count: int) -> None:
    """A table of the gaps on a GPU and on a CPU slot, and of what starting bash alone takes."""
    bare = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run(["/bin/bash", "-c", ":"], check=True)
        bare.append((time.perf_counter() - began) * 1000)
    for label, found in (("gpu", gaps_ms(count, "[0]")), ("cpu", gaps_ms(count, "{cpu: 1}")), ("bash alone", bare)):
        found.sort()
        print(f"{label:12} median {statistics.median(found):6.1f} ms, 99% {found[int(len(found) * 0.99)]:6.1f} ms")


def main() -> None:
    """Runs it and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-gpu", default="auto")
    parser.add_argument("--sizes", nargs="+", default=list(CLASSES), choices=list(CLASSES))
    parser.add_argument("--gaps", type=int)
    options = parser.parse_args()
    if options.gaps:
        print_gaps(options.gaps)
        return
    draw = random.Random(0)
    names = draw.choices(options.sizes, [WEIGHTS[name] for name in options.sizes], k=options.jobs)
    seconds = [draw.uniform(0.5, 1.5) * options.seconds for _ in names]
    per_card = {name: 1 if options.per_gpu == "1" else TOTAL_MIB // mib for name, mib in CLASSES.items()}
    expected_s = sum(value / per_card[name] for name, value in zip(names, seconds, strict=True)) / GPUS
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        afternoon = Afternoon(directory)
        for user, part in (("ann", slice(0, None, 2)), ("bob", slice(1, None, 2))):
            (directory / f"{user}.yaml").write_text(params_yaml(names[part], seconds[part], options.per_gpu))
            afternoon.run("--detach", "-y", f"{user}.yaml", "-o", user)
        took_s = afternoon.watch(["ann", "bob"], expected_s)
        report(afternoon, options.jobs, took_s, per_card)
        shares, kinds = [4 // per_card[name] for name in names], [f"{n % 2} {name}" for n, name in enumerate(names)]
        for learns, words in ((False, "that knows what each needs"), (True, "that learns it as the daemons do")):
            ideal = list_schedule(shares, seconds, kinds, learns and options.per_gpu == "auto")
            print(f"a list schedule of the same jobs without any loss, {words}: {ideal:.1%}")


def report(afternoon: Afternoon, jobs: int, took_s: float, per_card: dict[str, int]) -> None:
    """Prints what came of it."""
    done = attempts(afternoon.directory)
    finished = [item for item in done if item["state"] == "finished"]
    if len({(item["trial"]) for item in finished}) != len(finished) or len(finished) != jobs:
        afternoon.faults.append(f"{len(finished)} of {jobs} jobs complete")
    for start, stop, gpu, was_lost in afternoon.away:
        on_it = [epoch(item["started"]) for item in done if uuid(gpu) in item["gpus"]]
        touched = sum(start + 1.5 < moment < stop for moment in on_it)
        if touched:
            afternoon.faults.append(f"GPU {gpu}: {touched} attempts began while {'lost' if was_lost else 'a stranger'}")
    there_s = GPUS * took_s - sum(away_s(done, start, stop, gpu) for start, stop, gpu, _ in afternoon.away)
    held_s = sum(item["seconds"] * share_of(item, per_card) for item in finished)
    began = min(epoch(item["started"]) for item in done)
    shared = statistics.mean("1" not in item["gpus"].values() for item in done)
    print(f"{jobs} jobs, {len(done)} attempts, {shared:.0%} of them on a share of a GPU")
    print(f"GPU time that was there {there_s:.0f} s, taken by strangers or lost {GPUS * took_s - there_s:.0f} s")
    print(f"work {held_s:.0f} GPU s: at least {held_s / there_s * took_s:.1f} s, took {took_s:.1f} s")
    print(f"lower bound / makespan {held_s / there_s:.1%}")
    last_start = max(epoch(item["started"]) for item in done)
    until_s = GPUS * (last_start - began) - sum(
        away_s(done, start, min(stop, last_start), gpu) for start, stop, gpu, _ in afternoon.away if start < last_start
    )
    work_s = sum(
        (min(epoch(item["ended"]), last_start) - epoch(item["started"])) * share_of(item, per_card) for item in finished
    )
    print(f"until the last job had begun, {work_s / until_s:.1%} of the GPU time that was there was at work")
    print("faults:", "; ".join(dict.fromkeys(afternoon.faults)) or "none")


if __name__ == "__main__":
    main()
