"""`run repro`: a trial run again with the code that it ran with."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import records
from runner.code import checkout, provenance
from runner.errors import InputError, SystemFaultError
from runner.examine.metrics import METRICS_FILE, read_metrics
from runner.model import CONFIG_FILE
from runner.results import chosen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_TIMES = {"time", "time_s"}
EXIT_OK, EXIT_DIFFERENT = 0, 1


@dataclass(frozen=True)
class _Plan:
    """What has to be done, in this order."""

    trial: Path
    output: str  # what {_output} was
    code: provenance.Code
    changes: Path | None
    commands: Mapping[str, str]
    into: Path

    @property
    def place(self) -> Path:
        """Where the commands run."""
        return self.into / self.code.directory

    @property
    def result(self) -> Path:
        """The directory of the trial that is made anew."""
        return self.place / (self.output if not Path(self.output).is_absolute() else f"output/{self.trial.name}")

    def command(self, stage: str) -> str:
        """A stage's command; one that names its output absolutely must not write there."""
        line = self.commands[stage]
        return line.replace(self.output, str(self.result)) if Path(self.output).is_absolute() else line


def run(options: argparse.Namespace) -> int:
    """Prints the commands, or carries them out.

    Raises:
        InputError: no such trial or stage, or nothing is on record of its code.
    """
    plan = _plan(options)
    if not options.run:
        print("\n".join(_lines(plan)))
        return EXIT_OK
    if not plan.code.commit:
        raise InputError(f"{plan.trial}: ran outside of a git repository, so that its code is not on record.")
    if plan.into.exists() and any(plan.into.iterdir()):
        raise InputError(f"--into {plan.into}: is not empty; name a new directory.")
    _warn_of_packages(plan.code)
    _put_code(plan)
    for stage in plan.commands:
        _run_stage(plan, stage)
    return _compare(plan)


def _plan(options: argparse.Namespace) -> _Plan:
    trial = chosen.trial(options.name, options.output)
    param = records.read_param(str(trial)) or {}
    scripts: dict[str, str] = param.get("_scripts") or {}
    for stage in options.command or ():
        if stage not in scripts:
            raise InputError(f"-c {stage}: no such stage of {trial}. Allowed: {', '.join(scripts)}.")
    commands = {stage: line for stage, line in scripts.items() if not options.command or stage in options.command}
    name = _code_name(trial)
    code = provenance.load(Path(options.output), name) if name else None
    if code is None:
        code = provenance.Code()
    changes = provenance.changes_file(Path(options.output), code)
    if changes is not None and not changes.is_file():
        raise InputError(f"{changes}: missing; the uncommitted changes that {trial} ran with are lost.")
    into = Path(options.into) if options.into else Path(tempfile.gettempdir()) / f"repro-{trial.name}"[:200]
    return _Plan(trial.resolve(), str(param.get("_output", trial)), code, changes, commands, into.resolve())


def _code_name(trial: Path) -> str | None:
    """The code of the newest attempt that tells of any."""
    names = [attempt.start.get("code") for attempt in records.read_attempts(str(trial)).attempts]
    return next((name for name in reversed(names) if name), None)


def _lines(plan: _Plan) -> list[str]:
    quote, code = shlex.quote, plan.code
    if not code.commit:
        head = ["# Nothing is on record of the code: these are the commands alone."]
    else:
        into = quote(str(plan.into))
        head = [
            f"git clone --quiet --shared --no-checkout {quote(code.top or '.')} {into}",
            f"git -C {into} checkout --quiet --detach {code.commit}",
        ]
        if plan.changes is not None:
            head.append(f"git -C {into} apply --binary {quote(str(plan.changes.resolve()))}")
        head += [f"# not on record, too large: {name}" for name in code.left_out]
        head.append(f"cd {quote(str(plan.place))} && mkdir -p {quote(str(plan.result))}")
    # In a shell of its own, as `run` starts it.
    return [*head, *(f"bash -c {quote(plan.command(stage))}" for stage in plan.commands)]


def _warn_of_packages(code: provenance.Code) -> None:
    now, _ = provenance.collect(Path(), Path())
    changed = sorted(set(code.packages) ^ set(now.packages))
    if changed:
        shown = ", ".join(changed[:10]) + (" …" if len(changed) > 10 else "")
        print(f"Warning: other packages than then, so that results may differ: {shown}")
    if code.python != now.python:
        print(f"Warning: Python {now.python}, and {code.python} then.")


def _put_code(plan: _Plan) -> None:
    top = Path(plan.code.top or "")
    if not (top / ".git").exists():
        top = Path.cwd()  # another machine, or the repository has moved
    checkout.put(top, str(plan.code.commit), plan.changes, plan.into)
    # The results themselves are made anew.
    results = (plan.trial.parent, *plan.trial.parents)
    checkout.link_rest(top, plan.into, plan.code.left_out, lambda source: source.resolve() not in results)


def _run_stage(plan: _Plan, stage: str) -> None:
    plan.result.mkdir(parents=True, exist_ok=True)
    if (plan.trial / CONFIG_FILE).exists():
        shutil.copyfile(plan.trial / CONFIG_FILE, plan.result / CONFIG_FILE)
    command = plan.command(stage)
    print(f"{stage}: {command}", flush=True)
    own = {"RUNNER_OUTPUT": str(plan.result), "RUNNER_STAGE": stage, "RUNNER_ATTEMPT": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=plan.place, env={**os.environ, **own}, check=False)
    if done.returncode:
        raise SystemFaultError(f"{stage}: exit code {done.returncode}, in {plan.place}.")


def _compare(plan: _Plan) -> int:
    """Says whether the numbers are those of the trial, to the last bit."""
    print(f"\nThe trial: {plan.trial}\nAnew:      {plan.result}")
    differences = [*_metrics_difference(plan), *_evaluation_differences(plan)]
    for line in differences:
        print(line)
    if not differences:
        print("All metrics are the same to the last bit.")
    return EXIT_DIFFERENT if differences else EXIT_OK


def _metrics_difference(plan: _Plan) -> list[str]:
    if not (plan.trial / METRICS_FILE).exists():
        return []
    if not (plan.result / METRICS_FILE).exists():
        return [f"{METRICS_FILE}: there is none anew"]
    then, now = read_metrics(plan.trial), read_metrics(plan.result)
    found = []
    if len(then) != len(now):
        found.append(f"{METRICS_FILE}: {len(then)} rows then, {len(now)} now")
    for name in then.columns:
        if name in _TIMES:
            continue
        old, new = then[name].tolist(), now[name].tolist() if name in now else []
        place = next((place for place, pair in enumerate(zip(old, new, strict=False)) if _differ(*pair)), None)
        if place is not None:
            found.append(f"{METRICS_FILE}, {name}: row {place + 1} was {old[place]!r} and is {new[place]!r}")
    return found


def _differ(old: Any, new: Any) -> bool:
    return bool(old != new) and (old == old or new == new)


def _evaluation_differences(plan: _Plan) -> list[str]:
    found = []
    for file in sorted(plan.trial.glob("eval_*.json")):
        again = plan.result / file.name
        then, now = (_numbers(path) if path.exists() else None for path in (file, again))
        if then != now:
            found.append(f"{file.name}: was {then} and is {now}")
    return found


def _numbers(file: Path) -> dict[str, str]:
    content = json.loads(file.read_bytes())
    return {
        name: repr(value) for name, value in content.items() if name not in _TIMES and isinstance(value, int | float)
    }
