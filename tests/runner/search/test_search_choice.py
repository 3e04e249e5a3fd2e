"""The rule of the greedy search, as published and where that one breaks."""

from __future__ import annotations

import pytest

from runner.search.choice import Candidate, between, choose, next_lrs, ranked, smoothed

FIRST = [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]


@pytest.mark.parametrize(
    ("losses", "eps", "winner"),
    [
        # The published rule.
        ({0.0: 2.5, 1e-3: 2.1, 1e-2: 2.3}, None, 1e-3),
        ({0.0: 2.5, 1e-3: 2.1, 1e-2: 2.3}, 0.07, 1e-3),
        ({0.0: 2.5, 1e-3: 2.1, 1e-2: 2.15, 1e-1: 2.2}, 0.07, 1e-2),
        ({0.0: 2.0, 1e-3: 2.1, 1e-2: 2.3}, None, 0.0),
        ({0.0: 2.0, 1e-3: 2.05, 1e-2: 2.3}, 0.07, 1e-3),
        ({1e-3: 2.0}, 0.07, 1e-3),
        # Within eps of the lowest, not of the neighbour.
        ({1e-3: 2.0, 1e-2: 2.05, 1e-1: 2.1}, 0.07, 1e-2),
        # Exactly eps above the lowest counts as within.
        ({1e-3: 2.0, 1e-2: 2.5}, 0.5, 1e-2),
        # Ours: ties.
        ({1e-3: 2.1, 1e-2: 2.1, 0.0: 2.1}, None, 1e-2),
        ({1e-3: 2.1, 1e-2: 2.1}, 0.0, 1e-2),
    ],
)
def test_the_winner(losses: dict[float, float], eps: float | None, winner: float) -> None:
    candidates = [Candidate(lr, loss) for lr, loss in losses.items()]
    assert choose(candidates, eps).lr == winner
    assert choose(candidates[::-1], eps).lr == winner


@pytest.mark.parametrize(
    ("winner", "factor", "reach", "found"),
    [
        (0.001, 2, 2, [0, 0.00025, 0.0005, 0.001, 0.002, 0.004]),
        (0.1, 10, 1, [0, 0.01, 0.1, 1.0]),
        (3e-4, 10, 1, [0, 3e-5, 3e-4, 3e-3]),
        (0.5, 2, 0, [0, 0.5]),
        (0.0, 2, 2, FIRST),
    ],
)
def test_the_next_candidates(winner: float, factor: float, reach: int, found: list[float]) -> None:
    assert next_lrs(winner, factor, reach) == found


def test_the_moving_average_is_the_weighted_mean_of_pandas() -> None:
    losses = [4.0, 3.0, 1.0]
    weights = [0.9**2, 0.9, 1.0]
    mean = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert smoothed(losses)[-1] == pytest.approx(mean, rel=1e-15)
    assert smoothed(losses)[0] == 4.0
    assert smoothed(losses, alpha=1.0) == losses


def test_the_order_takes_the_winner_away_and_asks_again() -> None:
    candidates = [Candidate(lr, loss) for lr, loss in ((0.0, 2.0), (0.1, 2.05), (1.0, 2.1), (10.0, 2.08))]
    greedy = ranked(candidates, choose)
    assert [candidate.lr for candidate in greedy] == [0.0, 0.1, 10.0, 1.0]
    assert [c.lr for c in ranked(candidates, lambda left: choose(left, 0.06))] == [0.1, 0.0, 10.0, 1.0]


@pytest.mark.parametrize(("winner", "below", "above"), [(0.1, 0.01, 1.0), (10.0, 1.0, 20.0), (0.0, 0.0, 0.01)])
def test_a_linear_grid_lies_between_the_neighbours_of_the_winner(winner: float, below: float, above: float) -> None:
    grid = between(winner, [0.0, 0.01, 0.1, 1.0, 10.0], 4, factor=2)
    assert grid == pytest.approx([below + (above - below) * part / 5 for part in (1, 2, 3, 4)])


def test_a_linear_grid_leaves_out_what_was_tried() -> None:
    assert between(2.0, [1.0, 2.0, 3.0], 3, factor=2) == [1.5, 2.5]
    assert between(2.0, [1.0, 1.5, 2.0, 2.5, 3.0], 1, factor=2) == []
