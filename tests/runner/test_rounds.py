"""The grids that a search's `next` prints, and the rounds that recorded decisions make of a file."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner import config, rounds
from runner.errors import InputError
from runner.grid import Sweep
from runner.model import Job, JobState, Needs, Recipe, Slot, Trial
from runner.records import DamagedRecordError
from runner.rounds import Expansion
from runner.service.ledger import Ledger, Tags
from runner.service.roundlimits import RoundLimits

FILE = """\
template: {go: 'echo {x}', more: 'echo {x}'}
alias: {size: {a: {w: 1}, b: {w: 2}}}
---
_title: best
_search: {next: x, rounds: 3}
_cmd: go
_priority: 2
x: [1, 4]
---
_title: other
x: 7
"""


@pytest.fixture
def expansion(tmp_path: Path) -> Expansion:
    return expansion_of(tmp_path, FILE)


def expansion_of(tmp_path: Path, text: str) -> Expansion:
    return Expansion(config.load(tmp_path / "params.yaml", text), {}, str(tmp_path / "output"), None, 0)


def first_of(expansion: Expansion) -> Sweep:
    return expansion._config.sweeps[0]


def decide(tmp_path: Path, number: int, stand: str, grid: str | None, **more: Any) -> None:
    directory = tmp_path / "output" / "search.best" / f"round_{number}"
    directory.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "inputs": stand,
        "grid": grid,
        "read": [],
        "search": "best",
        "round": number,
        "rounds": 3,
        "time": "1",
    }
    record |= {"why": None, "ended": None if grid else "over"} | more
    (directory / "decision.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("x: [1", "round 2 of best, line 2: not YAML"),
        ("x: 1\n_tilte: a", "round 2 of best, line 2, _tilte: keys that begin with _ belong to the runner."),
        ("x: 1\n---\nx: 2", "round 2 of best, line 3: a second document; `next` prints one grid."),
        ("- 1", "round 2 of best, line 1: a grid must be a mapping of parameters to their values."),
        ("x: []", "round 2 of best, line 1, x: the list of values is empty"),
        ("_title: b\nx: 3", "round 2 of best, line 1, _title: belongs to the search's first grid, in params.yaml."),
        ("_search: {}\nx: 3", "round 2 of best, line 1, _search: belongs to the search's first grid, in params.yaml."),
        ("x: 1\n_cmd: g", "round 2 of best, line 2, _cmd: no stage 'g'."),
        ("x: '{_gather.law}'", "round 2 of best, line 1, x: no gather 'law'."),
        ("y: 1", "template.go: no value for {x} in best; add `x` to `default` or to the grid"),
    ],
)
def test_a_grid_that_is_wrong_is_told_with_its_round_and_line(expansion: Expansion, printed: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        expansion.read_grid(first_of(expansion), 2, printed)
    assert told in str(caught.value)


def test_a_grid_that_fits_no_group_of_a_gather_is_told(tmp_path: Path) -> None:
    text = FILE.replace("---\n", "gather: {law: {cmd: 'true', of: best, by: [z]}}\n---\n", 1).replace(
        "x: [1, 4]", "x: 1\nz: 1"
    )
    expansion = expansion_of(tmp_path, text)
    with pytest.raises(InputError, match="round 2 of best, line 1: 'z' is not set, by which the gather law is grouped"):
        expansion.read_grid(first_of(expansion), 2, "x: 3")
    assert expansion.read_grid(first_of(expansion), 2, "x: 3\nz: 2") is not None


@pytest.mark.parametrize("printed", ["", "\n", "# nothing\n", "---\n", "{}", "_why: it is good enough"])
def test_nothing_printed_ends_a_search(expansion: Expansion, printed: str) -> None:
    assert expansion.read_grid(first_of(expansion), 2, printed) is None


def test_a_later_round_is_a_grid_as_the_first_one_was(expansion: Expansion) -> None:
    sweep = expansion.read_grid(first_of(expansion), 2, "_why: so\n_zip: {x: [1, 2], y: [3, 4]}\nsize: [a, b]\n")
    assert sweep is not None
    assert sweep.grid.size == 4
    assert (sweep.title, sweep.stages, sweep.priority) == ("best", ("go",), 2)
    other = expansion.read_grid(first_of(expansion), 2, "x: 1\n_cmd: [more]\n_priority: 0")
    assert other is not None
    assert (other.stages, other.priority) == (("more",), 0)


def rounds_of(expansion: Expansion, upto: int | None = None) -> list[tuple[int, bool]]:
    sweeps = expansion.expand(upto).sweeps
    assert sweeps[-1].title == "other"
    return [(sweep.round.number, sweep.round.is_decided) for sweep in sweeps if sweep.round is not None]


def stand(expansion: Expansion) -> str:
    last = expansion.expand().sweeps[-2].round
    assert last is not None
    return last.inputs


def test_each_recorded_decision_adds_a_round(tmp_path: Path, expansion: Expansion) -> None:
    assert rounds_of(expansion) == [(1, False)]
    decide(tmp_path, 1, stand(expansion), "x: [2, 4]")
    assert rounds_of(expansion) == [(1, True), (2, False)]
    decide(tmp_path, 2, stand(expansion), "x: 3")
    assert rounds_of(expansion) == [(1, True), (2, True), (3, False)]
    decide(tmp_path, 3, stand(expansion), None)
    assert rounds_of(expansion) == [(1, True), (2, True), (3, True)]
    assert rounds_of(expansion, upto=1) == [(1, False)]
    assert rounds_of(expansion, upto=2) == [(1, True), (2, False)]


def test_decisions_about_another_grid_do_not_count(tmp_path: Path, expansion: Expansion) -> None:
    decide(tmp_path, 1, stand(expansion), "x: 2")
    assert rounds_of(expansion) == [(1, True), (2, False)]
    assert rounds_of(expansion_of(tmp_path, FILE.replace("[1, 4]", "[1, 4, 5]"))) == [(1, False)]
    assert rounds_of(expansion_of(tmp_path, FILE.replace("[1, 4]", "[4, 1]"))) == [(1, True), (2, False)]


def test_what_a_decided_round_lost_is_known(tmp_path: Path, expansion: Expansion) -> None:
    states = {"a": "finished", "b": "failed", "c": "canceled", "d": "pruned"}
    read = [{"id": key, "state": state} for key, state in states.items()]
    decide(tmp_path, 1, stand(expansion), "x: 2", read=read)
    first = expansion.expand().sweeps[0].round
    assert first is not None
    assert first.left_out == {"b", "c", "d"}
    assert first.lost == {"b", "c"}


def test_a_damaged_record_is_told(tmp_path: Path, expansion: Expansion) -> None:
    decide(tmp_path, 1, "x", "x: 2")
    (tmp_path / "output" / "search.best" / "round_1" / "decision.json").write_text('{"inputs"')
    with pytest.raises(DamagedRecordError, match=r"decision.json: cannot be read \(JSONDecodeError\); delete"):
        expansion.expand()


def test_standings_follow_the_decisions_of_one_search(tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert rounds.standings(output) == []
    decide(tmp_path, 1, "a", "x: 2\ny: 3", time="2026-10-25T02:30:00+0200")
    decide(tmp_path, 2, "b", None, time="2026-10-25T02:20:00+0200")  # of an earlier first grid
    (standing,) = rounds.standings(output)
    assert standing.line() == "search best: round 2 of at most 3; the last decision: x: 2 y: 3"
    # An hour has passed, and the clock was put back by one.
    decide(tmp_path, 2, "b", None, time="2026-10-25T02:25:00+0100")
    (standing,) = rounds.standings(output)
    assert standing.line() == "search best: ended after round 2 of at most 3; over"


def test_a_clock_that_is_set_neither_ends_nor_prolongs_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(0, "id", "X_1", "output/X_1", str(tmp_path / "X_1"), ("go",))
    unit = Trial(1, "round", "search.best/round_1", "", "", ("decide",), needs=Needs(members=(trial.key,), limit_s=60))
    pipeline = SimpleNamespace(limited={unit.key: unit}, open_members=lambda _: [trial])
    scheduler: Any = SimpleNamespace(trial=lambda _: trial, states=lambda _: {"go": JobState.RUNNING})
    intake: Any = SimpleNamespace(pipeline=pipeline, origin=lambda _: SimpleNamespace(ask="this"))
    clocks = {"time.time": 1e9, "boot_seconds": 500.0}
    for name in clocks:
        monkeypatch.setattr(f"runner.service.roundlimits.{name}", lambda name=name: clocks[name])
    Ledger().open(Job(trial, "go"), Recipe({}, {"go": "true"}), ["go"], Slot("cpu 0"), Tags("", "plan", "this"))
    limits = RoundLimits(scheduler, intake)
    clocks.update({"time.time": 1e9 + 10, "boot_seconds": 510.0})
    assert list(limits.overdue()) == []
    for told in (1e9 + 40000, 1e9 - 40000):
        clocks["time.time"] = told
        assert list(limits.overdue()) == []
    clocks["boot_seconds"] = 560.0
    assert list(limits.overdue()) == [(unit, [trial])]
