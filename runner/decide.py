"""Decides what comes after a round of a search: `python -m runner.decide DIRECTORY`, one attempt of the daemon's.

The command `next` gets the trials of all rounds on its standard input and prints the next grid. What was read and what
was printed is recorded before the trials of the next round are planned: a decision that was recorded is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import planning, plans, records, rounds, yamlfile
from runner.errors import InputError, RunnerError
from runner.model import JobState
from runner.plan import Journal
from runner.units import GATHER, TRIALS_FILE, decision_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.grid import Search, Sweep
    from runner.model import PlannedTrial
    from runner.planning import Request
    from runner.plans import Plan
    from runner.rounds import Record

HOUR_S = 3600.0
MOST = 1_000_000
"""The combinations of a round: more are a slip, and all of them are listed at once."""


@dataclass(frozen=True)
class Decision:
    """One round of one search, to be decided; `stage` is its directory relative to where `run` was typed."""

    request: Request
    plan: Plan
    first: Sweep
    number: int
    directory: Path

    @property
    def search(self) -> Search:
        """The search."""
        assert self.first.search is not None
        return self.first.search

    @property
    def previous(self) -> Path:
        """The directory of the decision before."""
        return self.directory.with_name(f"round_{self.number - 1}")


def main(arguments: Sequence[str]) -> int:
    """Makes the decision of a directory, and plans the next round."""
    directory = Path(arguments[0])
    title, number = directory.parent.name.removeprefix("search."), int(directory.name.removeprefix("round_"))
    plan = _plan(directory.parent.parent, os.environ["RUNNER_PLAN"], decision_name(title, number))
    source = plan.header.source
    assert source is not None
    request = planning.read_round(plan.header.file, source["text"], argparse.Namespace(**source["options"]), number + 1)
    first = next(sweep for sweep in request.config.sweeps if sweep.title == title)
    decision = Decision(request, plan, first, number, directory)
    inputs = next(trial.needs for trial in plan.trials if trial.key == decision_name(title, number))
    assert inputs is not None
    record = rounds.read_record(directory)
    is_anew = plan.header.is_forced and record is not None and record["ask"] != plan.header.plan_id
    if record is None or record["inputs"] != inputs.inputs or is_anew:
        record = _decide(decision)
        record |= {"inputs": inputs.inputs, "ask": plan.header.plan_id, "reopened": _reopened(decision)}
        records.replace_text(str(directory / rounds.RECORD), json.dumps(record, indent=1))
    print(f"round {number}: {record['ended'] or 'the next grid is'}\n{record['grid'] or ''}")
    has_lost = any(row["round"] == number and row["state"] != JobState.COMPLETED for row in record["read"])
    try:
        plan_id = _plan_round(decision) if record["grid"] is not None or has_lost else ""
    except InputError:  # no round comes of this grid: `next` is asked again
        (directory / rounds.RECORD).unlink()
        raise
    records.replace_text(str(directory / rounds.NEXT_PLAN), plan_id)
    return 0


def _plan(output: Path, plan_id: str, key: str) -> Plan:
    """The plan of the decision; where another `run` has replaced it since, the one that did.

    Raises:
        DamagedPlanError: there is none.
    """
    try:
        return plans.Plan(output, plan_id)
    except plans.DamagedPlanError:
        for newer in reversed(Journal(output).open_plans()):
            plan = plans.Plan(output, newer)
            if any(trial.key == key for trial in plan.trials):
                return plan
        raise


# --- the decision ---


def _decide(decision: Decision) -> Record:
    rows = _rows(decision)
    printed = _ask(decision, rows)
    sweep = decision.request.expansion.read_grid(decision.first, decision.number + 1, printed)
    if sweep is not None and sweep.grid.size > MOST:
        place = f"the grid for round {decision.number + 1} of {decision.first.title}"
        raise InputError(f"{place}: {sweep.grid.size:,} combinations, more than {MOST:,}.")
    known = {row["id"] for row in rows}
    new = [] if sweep is None else [item for item in decision.request.expansion.ids(sweep) if item not in known]
    ended, limit = _end(decision, rows, sweep, new)
    return {
        "version": 1,
        "search": decision.first.title,
        "round": decision.number,
        "rounds": decision.search.rounds,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "read": rows,
        "printed": printed,
        "grid": None if ended else printed,
        "ended": ended,
        "limit": limit and [limit, getattr(decision.search, limit)],
        "why": _why(printed),
        "new": len(new),
    }


def _end(
    decision: Decision, rows: Sequence[Record], sweep: Sweep | None, new: Sequence[str]
) -> tuple[str | None, str | None]:
    """Why the search ends with this round, and the limit that it has reached; None when it goes on."""
    search = decision.search
    hours = sum(row["seconds"] for row in rows) / HOUR_S
    if sweep is None:
        return "`next` printed no grid: the search is over", None
    if not new:
        return "`next` printed no trial that is new: the search is over", None
    if search.rounds is not None and decision.number >= search.rounds:
        return f"the limit of {search.rounds} rounds is reached", "rounds"
    if search.trials is not None and len(rows) + len(new) > search.trials:
        told = f"{len(rows)} were run, {len(new)} would come"
        return f"the limit of {search.trials} trials is reached: {told}", "trials"
    if search.hours is not None and hours >= search.hours:
        return f"the limit of {search.hours:g} hours is reached: the trials took {hours:.2f} h", "hours"
    return None, None


def _reopened(decision: Decision) -> str:
    """The limit that lets the search go on here, where an earlier decision had ended it."""
    config = decision.request.expansion.expand(decision.number)
    found = [item.round for item in config.sweeps if item.title == decision.first.title and item.round is not None]
    return found[-1].reopened


def _why(printed: str) -> str | None:
    value = yamlfile.load(printed)
    return str(value[rounds.WHY]) if isinstance(value, dict) and rounds.WHY in value else None


def _ask(decision: Decision, rows: Sequence[Record]) -> str:
    """What `next` prints.

    Raises:
        RunnerError: it failed.
    """
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    result = subprocess.run(
        ["bash", "-c", decision.search.command], input=lines.encode(), stdout=subprocess.PIPE, check=False
    )
    if result.returncode:
        print(result.stdout.decode(errors="replace"), flush=True)
        raise RunnerError(
            f"round {decision.number} of {decision.first.title}: `next` failed with exit code {result.returncode}."
        )
    try:
        return result.stdout.decode()
    except UnicodeDecodeError:
        raise InputError(f"round {decision.number} of {decision.first.title}: `next` printed no UTF-8.") from None


def _rows(decision: Decision) -> list[Record]:
    """The trials of all rounds: of the earlier ones as they were read then."""
    before: list[Record] = []
    if decision.number > 1:
        record = rounds.read_record(decision.previous)
        if record is None:
            raise RunnerError(f"{decision.previous}: has no decision; `run` makes it first.")
        before = record["read"]
    text = (decision.directory / TRIALS_FILE).read_text(encoding="utf-8")
    known = {row["id"] for row in before}
    lines = [json.loads(line) for line in text.splitlines()]
    # A trial of two searches may be in different rounds of theirs.
    own = {"round": decision.number}
    return before + [_with_results(line | own) for line in lines if line["id"] not in known]


def _with_results(row: Record) -> Record:
    history = records.read_attempts(row["records"])
    ended = [attempt.end for attempt in history.attempts if attempt.end is not None]
    cause = ended[-1].get("cause") if ended and row["state"] != JobState.COMPLETED else None
    metrics, nan = _last_metrics(Path(row["directory"]))
    seconds = sum(end["seconds"] for end in ended)
    return row | {"cause": cause, "metrics": metrics, "nan": nan, "seconds": round(seconds, 3)}


def _last_metrics(directory: Path) -> tuple[dict[str, float | None], list[str]]:
    """The last row of metrics.csv, and the names of what is no finite number there."""
    from runner.examine.metrics import METRICS_FILE, last_cells

    if not (directory / METRICS_FILE).is_file():
        return {}, []
    try:
        cells = last_cells(directory / METRICS_FILE)
    except (OSError, ValueError):
        return {}, []
    metrics: dict[str, float | None] = {}
    for name, cell in cells.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        metrics[name] = value if math.isfinite(value) else None
    return metrics, [name for name, value in metrics.items() if value is None]


# --- the next round ---


def _plan_round(decision: Decision) -> str:
    """Writes the plan of the next round, as a `run` would, and of what waits for the search; returns its id.

    A gather does not wait for what a decided round has lost, which nobody tries again: also where no round follows.
    """
    # Taken after this decision was recorded and before the others are read: of two searches that decide at once, the
    # plan with the later id has the rounds of both.
    plan_id = plans.new_id()
    plan, title = decision.plan, str(decision.first.title)
    planned = list(decision.request.trials())
    later = [
        trial for trial in planned if trial.sweep == title and _is_decision(trial) and trial.round > decision.number
    ]
    members = {key for unit in later if unit.needs for key in (unit.key, *unit.needs.members)}
    # Gathers over the search have more members now.
    over = {name for name, item in decision.request.config.gathers.items() if title in item.of}
    chosen = [trial for trial in planned if trial.key in members or (trial.sweep == GATHER and trial.stages[0] in over)]
    if not chosen:
        return ""
    header = replace(
        plan.header,
        plan_id=plan_id,
        time=decision.request.time,
        is_full=False,
        prunes=False,
        begins_at=plan.header.begins_at + len(plan.trials),
        begun_by=plan.header.asked,
    )
    plans.write(decision.request.output, header, plan.secrets, chosen)
    return plan_id


def _is_decision(trial: PlannedTrial) -> bool:
    return trial.needs is not None and trial.needs.decides


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except RunnerError as error:
        print(f"run: error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
