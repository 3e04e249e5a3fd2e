"""The greedy search as a user has it: rounds of trials in, grids and a schedule out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from tests.runner.search.conftest import Rounds

FIRST: dict[str, Any] = {"lr2": [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5], "steps": 20}
SEGMENTS = ("--segments", "3", "--steps", "60")


def best_at(*lrs: float, rows: int = 3) -> Any:
    """A loss that grows with the distance to the segment's best LR, in factors of ten; 1e-6 stands for 0."""

    def curve(parameters: Mapping[str, Any]) -> list[float]:
        best = lrs[parameters["steps"] // 20 - 1]
        return [2 + abs(math.log10(max(parameters["lr2"], 1e-6) / best))] * rows

    return curve


def test_a_search_from_its_first_round_to_the_schedule(rounds: Rounds) -> None:
    curve = best_at(1e-2, 2e-2, 5e-3)
    rounds.play(FIRST, curve, seed=7)
    second = rounds.decide(*SEGMENTS)
    assert second == {
        "_why": "round 1, segment 1 of 3: lr2 0.01 with a loss of 2.0000 of 6 candidates",
        "lr2": [0.0, 0.0025, 0.005, 0.01, 0.02, 0.04],
        "begin": 20,
        "steps": 40,
        "lr1": 0.01,
        "seed": 7,
        "init_from": str(rounds.directory / "trial_2" / "checkpoints" / "20.pt"),
    }
    assert second["_why"] in rounds.told
    rounds.play(second, curve)
    third = rounds.decide(*SEGMENTS)
    assert third is not None
    assert (third["lr1"], third["begin"], third["steps"]) == (0.02, 40, 60)
    rounds.play(third, curve)
    assert rounds.decide(*SEGMENTS) is None
    assert rounds.answer("schedule.json") == {"knots": [[0, 0.0], [20, 0.01], [40, 0.02], [60, 0.005]]}
    summary = rounds.answer("search.json")
    assert [leg["lr2"] for leg in summary["legs"] if leg["chosen"]] == [0.01, 0.02, 0.005]
    assert summary["steps_spent"] == 18 * 20
    assert (rounds.directory / "search" / "search.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_question_has_the_same_answer(rounds: Rounds) -> None:
    rounds.play(FIRST, best_at(1e-2))
    assert rounds.decide(*SEGMENTS, "--delete-losers") == rounds.decide(*SEGMENTS, "--delete-losers")


def test_after_a_winner_of_zero_the_first_grid_comes_back(rounds: Rounds) -> None:
    curve = best_at(1e-2, 1e-6, 1e-3)
    rounds.play(FIRST, curve)
    rounds.play(rounds.decide(*SEGMENTS) or {}, curve)
    third = rounds.decide(*SEGMENTS)
    assert third is not None
    assert third["lr2"] == [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert third["lr1"] == 0.0


def test_eps_takes_the_largest_lr_nearby_and_may_differ_by_segment(rounds: Rounds) -> None:
    losses = {1.0: 9.0, 1e-1: 2.06, 1e-2: 2.0}
    rounds.play(FIRST, lambda parameters: [losses.get(parameters["lr2"], 3.0)])
    greedy, near = rounds.decide(*SEGMENTS), rounds.decide(*SEGMENTS, "--eps", "0.07")
    last = rounds.decide(*SEGMENTS, "--eps", "0", "0.07", "0.07")
    assert greedy is not None
    assert near is not None
    assert last is not None
    assert (greedy["lr1"], near["lr1"], last["lr1"]) == (1e-2, 1e-1, 1e-2)
    assert "(the lowest is 2.0000, of lr2 0.01)" in near["_why"]


def test_what_failed_diverged_or_left_no_checkpoint_is_no_candidate(rounds: Rounds) -> None:
    losses = {1.0: [], 1e-1: [1.0, math.nan], 1e-2: [1.0], 1e-3: [2.0], 1e-4: [2.5], 1e-5: [1.0]}
    rounds.play(FIRST, lambda parameters: losses[parameters["lr2"]])
    (rounds.directory / "trial_2" / "checkpoints" / "20.pt").unlink()
    (rounds.directory / "trial_5" / "metrics.csv").unlink()
    grid = rounds.decide(*SEGMENTS)
    assert grid is not None
    assert grid["lr1"] == 1e-3
    for reason in ("lr2 1 (diverged)", "lr2 0.1 (loss is missing or not finite at its end)", "lr2 0.01 (no 20.pt)"):
        assert reason in grid["_why"]


def test_without_a_candidate_the_search_fails_and_names_the_round(rounds: Rounds) -> None:
    rounds.play(FIRST, best_at(1e-2))
    rounds.play(rounds.decide(*SEGMENTS) or {}, lambda _: [])
    code, out = rounds.call(*SEGMENTS)
    assert (code, out) == (1, "")
    assert rounds.told.startswith("error: round 2, segment 2 of 3: no candidate is left: lr2 0 (diverged)")


def test_losers_checkpoints_go_once_the_next_decision_is_safe(rounds: Rounds) -> None:
    curve = best_at(1e-2, 2e-2, 5e-3)

    def checkpoints() -> set[str]:
        return {path.parents[1].name for path in rounds.directory.glob("*/checkpoints/*.pt")}

    rounds.play(FIRST, curve)
    grid = rounds.decide(*SEGMENTS, "--delete-losers")
    assert len(checkpoints()) == 6
    rounds.play(grid or {}, curve)
    rounds.decide(*SEGMENTS)
    assert len(checkpoints()) == 12
    grid = rounds.decide(*SEGMENTS, "--delete-losers")
    assert checkpoints() == {"trial_2", *(f"trial_{number}" for number in range(6, 12))}
    rounds.play(grid or {}, curve)
    assert rounds.decide(*SEGMENTS, "--delete-losers") is None
    assert checkpoints() == {"trial_2", "trial_10", *(f"trial_{number}" for number in range(12, 18))}


def test_segments_may_have_lengths_of_their_own(rounds: Rounds) -> None:
    rounds.play({**FIRST, "steps": 20}, best_at(1e-2))
    grid = rounds.decide("--segments", "20", "20", "60")
    assert grid is not None
    assert grid["steps"] == 40
    rounds.play(grid, best_at(1e-2, 1e-2))
    last = rounds.decide("--segments", "20", "20", "60")
    assert last is not None
    assert last["steps"] == 100


def test_a_linear_grid_around_the_winner_refines_a_segment(rounds: Rounds) -> None:
    curve = best_at(3e-2, 1e-2, 1e-2)
    rounds.play(FIRST, curve, seed=1)
    finer = rounds.decide(*SEGMENTS, "--refine", "4")
    assert finer is not None
    assert finer["lr2"] == pytest.approx([0.0208, 0.0406, 0.0604, 0.0802])
    assert (finer["steps"], finer["lr1"], finer["seed"], "init_from" in finer) == (20, 0.0, 1, False)
    rounds.play(finer, curve)
    second = rounds.decide(*SEGMENTS, "--refine", "4")
    assert second is not None
    tried = [*FIRST["lr2"], *finer["lr2"]]
    assert second["lr1"] == min(tried, key=lambda lr: abs(math.log10(lr / 3e-2)))
    assert second["begin"] == 20
    rounds.play(second, curve)
    finer = rounds.decide(*SEGMENTS, "--refine", "4")
    assert finer is not None
    assert finer["begin"] == 20
    assert finer["init_from"] == second["init_from"]


def short_sighted(parameters: Mapping[str, Any]) -> list[float]:
    """Lowering the LR early pays at once and costs later: 0.1 held in the first segment ends lower."""
    early = parameters["lr1"] if parameters["steps"] > 20 else parameters["lr2"]
    now = {0.1: 3.0, 0.01: 2.9}.get(early, 5.0)
    return [now - (1.0 if early == 0.1 else 0.0) * (parameters["steps"] // 20 - 1) + 0.01 * (parameters["lr2"] > 0)]


def test_looking_ahead_mends_what_greed_spoils(rounds: Rounds) -> None:
    options = ("--segments", "2", "--steps", "40")
    rounds.play(FIRST, short_sighted)
    ahead = (*options, "--beam", "2", "--ahead", "2")
    second, greedy = rounds.decide(*ahead), rounds.decide(*options)
    assert greedy is not None
    assert greedy["lr1"] == 0.01
    assert second is not None
    assert [branch["lr1"] for branch in second["LIST_branch"]] == [0.01, 0.1]
    rounds.play(second, short_sighted)
    assert rounds.decide(*ahead) is None
    assert rounds.answer("schedule.json") == {"knots": [[0, 0.0], [20, 0.1], [40, 0.0]]}


def test_a_branch_is_settled_when_the_search_has_looked_ahead(rounds: Rounds) -> None:
    options = (*SEGMENTS, "--beam", "2", "--ahead", "2")
    rounds.play(FIRST, short_sighted)
    rounds.play(rounds.decide(*options) or {}, short_sighted)
    third = rounds.decide(*options)
    assert third is not None
    # Both branches of the third segment go back to 0.1, which the best candidate of the second one settled.
    assert [branch["lr1"] for branch in third["LIST_branch"]] == [0.0, 0.4]
    parents = {branch["init_from"].split("/")[-3] for branch in third["LIST_branch"]}
    origins = {line["parameters"]["init_from"] for line in rounds.lines if line["name"] in parents}
    assert origins == {str(rounds.directory / "trial_1" / "checkpoints" / "20.pt")}


def test_of_equal_lrs_in_two_branches_a_rule_of_the_user_gets_the_lower_loss(rounds: Rounds) -> None:
    file = rounds.directory / "rules.py"
    file.write_text(
        "def least(candidates): return min(candidates, key=lambda candidate: candidate['loss'])['lr']\n"
        "def same(facts): return [0.05]\n"
    )
    rules = ("--choose", f"{file}:least", "--grid", f"{file}:same")
    options = (*SEGMENTS, "--beam", "2", "--ahead", "2", *rules)
    rounds.play(FIRST, best_at(0.1))
    rounds.play(rounds.decide(*options) or {}, lambda parameters: [3.0 if parameters["lr1"] == 0.1 else 2.0])
    assert [line["parameters"]["lr1"] for line in rounds.lines[-2:]] == [0.1, 0.01]
    third = rounds.decide(*options)
    assert third is not None
    assert third["init_from"].split("/")[-3] == rounds.lines[-1]["name"]


def test_rules_of_the_user(rounds: Rounds) -> None:
    file = rounds.directory / "rules.py"
    file.write_text(
        "print('{rules')\n"
        "def last(losses): return len(losses) * [losses[-1]]\n"
        "def highest(candidates):\n    print('{of', len(candidates))\n    return max(one['lr'] for one in candidates)\n"
        "def two(facts): return [facts['winner'], facts['winner'] / facts['segment']]\n"
    )
    rounds.play(FIRST, lambda parameters: [1.0, 1.0, 5.0] if parameters["lr2"] == 1e-2 else [4.0])
    grid = rounds.decide(*SEGMENTS, "--smooth", f"{file}:last", "--choose", f"{file}:highest", "--grid", f"{file}:two")
    assert grid is not None
    assert (grid["lr1"], grid["lr2"]) == (1.0, [1.0, 0.5])
    assert "{of 6\n" in rounds.told
    least = "python3 -c 'import json, sys; print(min(c[\"lr\"] for c in json.load(sys.stdin)))'"
    grid = rounds.decide(*SEGMENTS, "--choose", least)
    assert grid is not None
    assert grid["lr1"] == 1e-5
    assert rounds.call(*SEGMENTS, "--choose", "echo no") == (1, "")
    assert "printed no JSON: 'no'" in rounds.told
    assert rounds.call(*SEGMENTS, "--grid", "echo sad >&2; exit 3") == (1, "")
    assert "ended with exit code 3: sad" in rounds.told


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("losses[1:]", "--smooth gave 2 numbers for 3 losses; needed is a list with one for each."),
        ("losses[-1]", "--smooth gave 3.0 for 3 losses; needed is a list with one for each."),
        ("['low'] * len(losses)", "--smooth gave ['low', 'low', 'low'] for 3 losses"),
    ],
)
def test_a_smoothing_without_a_number_for_each_loss_is_told_at_the_first_decision(
    rounds: Rounds, body: str, problem: str
) -> None:
    file = rounds.directory / "rules.py"
    file.write_text(f"def smooth(losses): return {body}\ndef grid(facts): return 1\n")
    rounds.play(FIRST, lambda parameters: [1.0, 2.0, 3.0])
    assert rounds.call(*SEGMENTS, "--smooth", f"{file}:smooth") == (1, "")
    assert rounds.told.startswith(f"error: {problem}")
    assert rounds.told.count("\n") == 1
    assert rounds.call(*SEGMENTS, "--grid", f"{file}:grid") == (1, "")
    assert rounds.told == "error: --grid gave 1; needed is a list of learning rates, at least one.\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--segments", "3"], "--steps None: needed are the steps of all 3 segments together, at least 3"),
        (["--segments", "10", "20", "--steps", "40"], "the segments have 30 steps together"),
        ([*SEGMENTS, "--eps", "1", "2"], "needed is one number, or one for each of 3 segments"),
        ([*SEGMENTS, "--ahead", "2"], "one branch has nothing to choose from; add --beam 2"),
        ([*SEGMENTS, "--factor", "1"], "--factor 1.0: needed is a number above 1"),
        ([*SEGMENTS, "--choose", "no.py:pick"], "there is no file no.py"),
        (["--segments", "x"], "invalid int value: 'x'"),
        (["--segments", "4", "--steps", "60"], "trial trial_0: steps is 20, where no segment ends. Allowed: 15, 30"),
    ],
)
def test_bad_input_is_one_line(rounds: Rounds, argv: list[str], message: str) -> None:
    rounds.play(FIRST, best_at(1e-2))
    code, out = rounds.call(*argv)
    assert (code, out) == (2, "")
    assert message in rounds.told
    assert rounds.told.count("\n") == 1
    assert not (rounds.directory / "search").exists()


def test_lines_that_are_no_trials_are_told(rounds: Rounds) -> None:
    rounds.lines = [{"name": "a", "directory": "a"}]
    assert rounds.call(*SEGMENTS) == (2, "")
    assert "standard input, line 1" in rounds.told
    assert "'parameters' is missing" in rounds.told
    rounds.lines = []
    assert rounds.call(*SEGMENTS) == (2, "")
    assert "holds no trial" in rounds.told


def test_two_settings_are_two_searches(rounds: Rounds) -> None:
    rounds.play({**FIRST, "seed": [0, 1]}, best_at(1e-2))
    assert rounds.call(*SEGMENTS) == (2, "")
    assert "trial_0 and trial_1 differ in seed" in rounds.told
