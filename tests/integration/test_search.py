"""Searches in rounds, as a user types them: a command reads what came of the trials and prints the next grid."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project, Said

    Typed = Callable[..., "Said"]

FILE = """\
template:
  train: 'bash train.sh {x} {_output}'
resource: {cpu: 2}
default: {x: 0, steps: 1}
---
_title: greedy
_search: {next: python next.py, rounds: 5}
x: [1, 4, 9]
"""
# The loss is lowest at 6; of 9 there is none.
TRAIN = """\
loss=$(( $1 > 6 ? $1 - 6 : 6 - $1 ))
test $1 != 9 || loss=nan
printf 'step,loss\\n1,100\\n2,%s\\n' $loss > $2/metrics.csv
test $1 != 9 || exit 76
"""
# Goes on around the best, with half the step each time, until that is 1.
NEXT = """\
import json, os, sys
trials = [json.loads(line) for line in sys.stdin]
number = int(os.environ["RUNNER_ROUND"])
with open("asked", "a") as file:
    print(number, file=file)
good = [trial for trial in trials if trial["state"] == "finished"]
best = min(good, key=lambda trial: trial["metrics"]["loss"])["parameters"]["x"]
step = 4 / 2**number
print("seen", len(trials), file=sys.stderr)
if step >= 1:
    print(f"x: [{best - step:g}, {best}, {best + step:g}]\\n_why: {best} is best")
"""


@pytest.fixture
def search(project: Project) -> Project:
    """A search of three rounds."""
    project.write(FILE)
    project.write(TRAIN, "train.sh")
    project.write(NEXT, "next.py")
    return project


def decision(project: Project, number: int, title: str = "greedy") -> dict[str, Any]:
    path = project.output / f"search.{title}" / f"round_{number}" / "decision.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def decided(output: Path) -> list[str]:
    return sorted(path.parent.name for path in output.glob("search.*/*/decision.json"))


def asked(project: Project) -> list[int]:
    return [int(line) for line in (project.path / "asked").read_text().split()]


def test_each_round_comes_from_the_results_of_those_before(search: Project, typed: Typed) -> None:
    said = typed()
    assert said.code == 1  # one trial diverged
    assert asked(search) == [1, 2, 3]
    assert search.trials() == sorted(["search.greedy", *(f"X_{x}" for x in (1, 4, 9, 2, 6, 5, 7))])
    first, last = decision(search, 1), decision(search, 3)
    assert (first["printed"], first["why"], first["new"]) == ("x: [2, 4, 6]\n_why: 4 is best\n", "4 is best", 2)
    diverged = next(row for row in first["read"] if row["parameters"]["x"] == 9)
    told = {key: diverged[key] for key in ("name", "directory", "round", "state", "cause", "metrics", "nan")}
    assert told == {
        "name": "X_9",
        "directory": "output/X_9",
        "round": 1,
        "state": "failed",
        "cause": "diverged",
        "metrics": {"step": 2.0, "loss": None},
        "nan": ["loss"],
    }
    assert [row["round"] for row in last["read"]] == [1, 1, 1, 2, 2, 3, 3]
    assert (last["grid"], last["ended"]) == (None, "`next` printed no grid: the search is over")
    assert '_round: "2"' in (search.output / "X_6" / "param").read_text()
    assert "seen 5" in search.log("search.greedy/round_2", "decide")


def test_a_finished_search_is_not_begun_again(search: Project, typed: Typed) -> None:
    typed()
    again = typed()
    assert (again.code, again.started()) == (0, [])
    assert asked(search) == [1, 2, 3]
    shutil.rmtree(search.output / "X_6")
    assert typed().started() == ["train X_6"]
    assert typed("-f").started() == sorted(
        [*(f"train X_{x}" for x in (1, 4, 9, 2, 6, 5, 7)), *(f"decide round_{n}" for n in (1, 2, 3))]
    )
    assert asked(search) == [1, 2, 3, 1, 2, 3]


def test_some_stages_alone_decide_nothing(search: Project, typed: Typed) -> None:
    assert typed("-c", "train").started() == ["train X_1", "train X_4", "train X_9"]
    assert decided(search.output) == []
    refused = typed("--no-subdir")
    assert refused.code == 2
    assert "--no-subdir: gathers and searches need a directory for each trial." in refused.err


def test_another_first_grid_is_decided_anew(search: Project, typed: Typed) -> None:
    typed()
    search.write(FILE.replace("[1, 4, 9]", "[1, 4, 8, 9]"))
    assert typed().started() == ["decide round_1", "decide round_2", "decide round_3", "train X_8", "train X_9"]
    assert asked(search)[3:] == [1, 2, 3]
    assert len(decision(search, 1)["read"]) == 4


def test_status_tells_how_far_a_search_is(search: Project, typed: Typed) -> None:
    search.write(NEXT + "sys.exit(number == 2)\n", "next.py")
    assert typed().code == 1
    assert "search greedy: round 2 of at most 5; the last decision: 4 is best" in typed("status").out
    assert json.loads(typed("status", "--json").out)["searches"] == [
        {"search": "greedy", "round": 2, "rounds": 5, "is_over": False, "last": "the last decision: 4 is best"}
    ]
    search.write(NEXT, "next.py")
    assert typed().started() == ["decide round_2", "decide round_3", "train X_5", "train X_7"]
    assert "search greedy: ended after round 3 of at most 5; `next` printed no grid" in typed("status").out


def test_a_round_that_cannot_be_planned_is_decided_again(search: Project, typed: Typed) -> None:
    search.write(
        FILE.replace("default:", "gather: {law: {cmd: 'true', of: other}}\ndefault:").replace(
            "python next.py", "cat grid"
        )
        + "---\n_title: other\nx: 20\n"
    )
    search.write("x: 20\n_after: law\n", "grid")
    assert typed().code == 1
    assert "these wait for each other: gather.law/all → X_20 → gather.law/all." in typed("status").out
    search.write("x: 21\n_after: law\n", "grid")
    assert "train X_21" in typed().started()


def test_a_grid_that_is_none_fails_the_search_until_it_is_mended(search: Project, typed: Typed) -> None:
    search.write(FILE.replace("next: python next.py", "next: cat grid"))
    search.write("x: 2\ny: 1\n_tilte: a", "grid")
    assert typed().code == 1
    told = "the grid for round 2 of greedy, line 3, _tilte: keys that begin with _ belong to the runner."
    assert told in search.log("search.greedy/round_1", "decide")
    assert search.stat("search.greedy/round_1") == {"decide": "failed"}
    assert decided(search.output) == []
    search.write("x: {_range: [0, 1000]}\nsteps: {_range: [0, 1001]}", "grid")
    assert "the grid for round 2 of greedy: 1,001,000 combinations, more than 1,000,000." in typed().out
    search.write("x: 2", "grid")
    assert "train X_2" in typed().started()


def test_what_next_said_last_tells_why_it_failed(search: Project, typed: Typed) -> None:
    search.write(FILE.replace("next: python next.py", "next: echo no grid is left >&2; false"))
    assert "no grid is left\n  exit code 1, log: " in typed().out


@pytest.mark.parametrize(
    ("limits", "rounds", "ended"),
    [
        ("rounds: 2", 2, "the limit of 2 rounds is reached"),
        ("trials: 6", 2, "the limit of 6 trials is reached: 5 were run, 2 would come"),
        ("hours: 1e-9", 1, "the limit of 1e-09 hours is reached: the trials took 0.00 h"),
    ],
)
def test_a_search_ends_at_its_limits(search: Project, typed: Typed, limits: str, rounds: int, ended: str) -> None:
    search.write(FILE.replace("rounds: 5", limits))
    typed()
    assert decision(search, rounds)["ended"] == ended
    assert decision(search, rounds)["printed"]
    assert len(decided(search.output)) == rounds


@pytest.mark.parametrize(
    ("limits", "higher", "rounds"),
    [
        ("rounds: 2", ["rounds: 5"], [2, 3]),
        ("trials: 6", ["trials: 6, rounds: 9", "trials: 7", "trials: 50"], [2, 2, 3, 3]),
        ("hours: 1e-9", ["hours: 2e-9", "rounds: 5"], [1, 1, 3]),
    ],
)
def test_a_higher_limit_lets_a_search_that_has_ended_go_on(
    search: Project, typed: Typed, limits: str, higher: list[str], rounds: list[int]
) -> None:
    for limit, count in zip([limits, *higher], rounds, strict=True):
        search.write(FILE.replace("rounds: 5", limit))
        typed()
        assert len(decided(search.output)) == count, limit
        assert len(search.trials()) == [0, 4, 6, 8][count], limit  # the directory of the decisions among them
        assert typed().started() == []


def test_a_python_function_decides(search: Project, typed: Typed) -> None:
    search.write(FILE.replace("next: python next.py", "next: {python: choose.py:choose}"))
    search.write(
        "print('a: b: c')\ndef choose(trials):\n    print('so far:', len(trials))\n"
        "    return {'x': [2], '_why': len(trials)} if len(trials) < 4 else None\n",
        "choose.py",
    )
    typed()
    assert decision(search, 1)["why"] == "3"
    assert decision(search, 2)["grid"] is None
    assert search.log("search.greedy/round_1", "decide").startswith("a: b: c\nso far: 3\n")
    search.write(FILE.replace("next: python next.py", "next: {python: choose.py:chose}"))
    shutil.rmtree(search.output)
    typed()
    assert "choose.py: no function 'chose'. Did you mean 'choose'?" in search.log("search.greedy/round_1", "decide")


def test_a_gather_over_a_search_waits_for_its_end(search: Project, typed: Typed) -> None:
    search.write(
        FILE.replace("default:", "gather: {best: {cmd: 'wc -l < {_trials}', of: greedy, need: 1}}\ndefault:")
        + "---\n_title: last\n_after: best\nx: 20\n"
    )
    said = typed()
    starts = [line.rsplit("/", 1)[-1] for line in said.out.splitlines() if line.startswith("START")]
    assert starts[-3:] == ["round_3", "all", "X_20"]
    assert search.log("gather.best/all", "best") == "6\n"
    assert typed().started() == []


@pytest.mark.parametrize(("wanted", "count"), [("[7, 8]", 2), ("9", 0)])
def test_a_gather_may_select_what_only_a_later_round_brings(
    project: Project, typed: Typed, wanted: str, count: int
) -> None:
    project.write(
        "template: {go: 'test {x} -gt 0'}\nresource: {cpu: 2}\n"
        f"gather: {{late: {{cmd: 'wc -l < {{_trials}}', of: one, where: {{x: {wanted}}}}}}}\n"
        "---\n_title: one\n_search: {next: 'test $RUNNER_ROUND != 1 || echo x: [7, 8]'}\nx: [1, 2]\n"
        "---\n_title: last\n_after: late\nx: 20\n"
    )
    said = typed()
    starts = [line.rsplit("/", 1)[-1] for line in said.out.splitlines() if line.startswith("START")]
    if count:
        assert (said.code, starts[-3:]) == (0, ["round_2", "all", "X_20"])
        assert project.log("gather.late/all", "late") == f"{count}\n"
    else:
        assert (said.code, starts[-1]) == (1, "round_2")
        assert "0 of 0 trials are complete, needed are 1 (a search brought no more" in typed("status").out
    assert typed().started() == []


def test_searches_that_share_trials_in_different_rounds_each_read_all_of_theirs(project: Project, typed: Typed) -> None:
    one = "---\n_title: one\n_search: {next: 'test $RUNNER_ROUND != 1 || echo x: [3, 4]'}\nx: [1, 2]\n"
    two = "---\n_title: two\n_search: {next: 'true'}\nx: [4, 5, 3]\n"
    project.write(f"template: {{go: 'test {{x}} -gt 0'}}\nresource: {{cpu: 2}}\n{one}")
    assert typed().code == 0
    project.write(f"template: {{go: 'test {{x}} -gt 0'}}\nresource: {{cpu: 2}}\n{one}{two}")
    assert typed().code == 0
    read = [(row["name"], row["round"]) for row in decision(project, 1, "two")["read"]]
    assert sorted(read) == [("X_3", 1), ("X_4", 1), ("X_5", 1)]
    assert [row["round"] for row in decision(project, 2, "one")["read"]] == [1, 1, 2, 2]


GATHERED = """\
template: {{go: 'test {{x}} -lt 5'}}
resource: {{cpu: 2}}
gather: {{all: {{cmd: 'wc -l < {{_trials}}', of: one, need: {need}}}}}
---
_title: one
_search: {{next: 'test $RUNNER_ROUND != 1 || {second}'}}
x: {first}
"""


@pytest.mark.parametrize(("first", "second"), [("[1, 5]", "echo x: [2, 3]"), ("[1, 2]", "echo x: [3, 6]")])
def test_a_gather_does_not_wait_for_what_any_decided_round_has_lost(
    project: Project, typed: Typed, first: str, second: str
) -> None:
    project.write(GATHERED.format(need="all", first=first, second=second))
    assert typed().code == 1
    assert project.log("gather.all/all", "all") == "3\n"
    assert typed().started() == []


@pytest.mark.parametrize(
    ("need", "first", "second", "why"),
    [
        ("all", "[5, 6]", "true", "0 of 0 trials are complete, needed are 1"),
        ("2", "[1, 5]", "true", "1 of 1 trials are complete, needed are 2"),
        ("5", "[1, 2]", "echo x: [3, 4]", "4 of 4 trials are complete, needed are 5"),
    ],
)
def test_a_gather_with_too_little_of_a_search_is_blocked_and_refuses_no_run(
    project: Project, typed: Typed, need: str, first: str, second: str, why: str
) -> None:
    project.write(GATHERED.format(need=need, first=first, second=second))
    for _ in range(2):
        assert typed().code == 1
        assert f"{why} (a search brought no more, or lost them)" in typed("status").out
    assert typed("check").code == 0


EDITED = """\
template: {go: 'echo {x} > {_output}/before'}
resource: {cpu: 2}
gather: {all: {cmd: 'wc -l < {_trials}', of: one}}
---
_title: one
_search: {next: bash next.sh, rounds: 3}
x: [0]
"""
WAITING = """\
echo $RUNNER_ROUND >> asked
until test -e mended; do sleep 0.01; done
echo x: [$RUNNER_ROUND]
"""


@pytest.fixture
def edited(project: Project, typed: Typed, until: Callable[..., None]) -> Callable[[str, str], None]:
    """Edits the file while the first decision is made, and waits for the end of all."""

    def edit(old: str, new: str) -> None:
        project.write(EDITED)
        project.write(WAITING, "next.sh")
        assert typed("--detach").code == 0
        until((project.path / "asked").exists, lambda: typed("status").out)
        project.write(EDITED.replace(old, new))
        assert typed("--detach").code == 0
        (project.path / "mended").touch()
        assert typed("wait").code == 0

    return edit


def test_a_file_that_is_edited_while_a_round_is_decided_holds_for_the_next_rounds(
    project: Project, typed: Typed, edited: Callable[[str, str], None]
) -> None:
    edited("{_output}/before", "{_output}/after")
    assert asked(project) == [1, 2, 3]
    assert [(project.output / f"X_{x}" / "after").exists() for x in (0, 1, 2)] == [False, True, True]
    assert "earlier" not in typed("status").out
    assert typed().started() == []


def test_a_search_that_the_file_lost_while_a_round_was_decided_does_not_go_on(
    project: Project, typed: Typed, edited: Callable[[str, str], None]
) -> None:
    search_line = next(line for line in EDITED.splitlines() if line.startswith("_search"))
    edited(f"{search_line}\n", "")
    assert not (project.output / "X_1").exists()
    assert project.log("gather.all/all", "all") == "1\n"
    assert typed().started() == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("_title: greedy\n", "", "line 6, _search: a search needs a `_title`, which names its rounds."),
        ("rounds: 5", "round: 5", "_search.round: unknown key. Did you mean 'rounds'?"),
        ("rounds: 5", "rounds: 0", "_search.rounds: 0 is no count; allowed: a whole number above 0."),
        ("rounds: 5", "round_limit: soon", "_search.round_limit: 'soon' is no duration"),
        ("next: python next.py, ", "", "_search: the key `next` is missing"),
        ("next: python next.py", "next: {python: choose}", "next.python: 'choose' is no function"),
        ("train: 'b", "decide: 'b", "_search: a stage is called `decide`, as the decisions of a search are"),
        ("_title: greedy", "_title: a b", "_title: 'a b' cannot name a search"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(search: Project, typed: Typed, old: str, new: str, told: str) -> None:
    search.write(FILE.replace(old, new))
    said = typed()
    assert said.code == 2
    assert told in said.err
    assert not search.output.exists()


def test_a_round_that_takes_too_long_is_decided_with_what_is_there(search: Project, typed: Typed) -> None:
    search.write(
        FILE.replace("rounds: 5", "rounds: 1, round_limit: 1s").replace("'bash", "'test {x} != 4 || sleep 100; bash")
    )
    said = typed()
    assert "search.greedy/round_1: the round's time limit is reached; what still runs is ended." in said.out
    states = {row["parameters"]["x"]: row["state"] for row in decision(search, 1)["read"]}
    assert states == {1: "finished", 4: "canceled", 9: "failed"}
    assert decision(search, 1)["why"] == "1 is best"
    assert not search.living()
    assert typed().started() == []
