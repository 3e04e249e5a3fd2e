"""`python -m runner.search.greedy`: the greedy search of a learning-rate schedule, as the `next` command of a search.

The steps are split into segments. In each the LR goes in a line from where the last one ended (lr1) to each candidate
(lr2); the winner's checkpoint is where the next one begins. The answer is a piecewise-linear schedule.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runner.errors import InputError, RunnerError
from runner.search import answer, branches, choice, custom, rounds
from runner.search.choice import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.search.branches import Leg
    from runner.search.choice import Rule
    from runner.search.rounds import Trial


@dataclass(frozen=True)
class Settings:
    """What the user set; `edges` are the last steps of the segments, `eps` holds one number for each, or none."""

    edges: tuple[int, ...]
    eps: tuple[float, ...] = ()
    first: tuple[float, ...] = choice.FIRST_LRS
    factor: float = 2.0
    reach: int = 2
    refine: tuple[int, ...] = ()
    beam: int = 1
    ahead: int = 1
    metric: str = "loss"
    checkpoint: str = "checkpoints/{steps}.pt"
    delete_losers: bool = False
    out: Path | None = None
    smooth: Callable[[Sequence[float]], list[float]] = choice.smoothed
    pick: Callable[[Any], Any] | None = None
    grid: Callable[[Any], Any] | None = None

    def rule(self, segment: int) -> Rule:
        """The rule that chooses in this segment."""
        if self.pick is not None:
            return functools.partial(_picked, self.pick)
        return functools.partial(choice.choose, eps=self.eps[segment] if self.eps else None)


@dataclass
class Look:
    """What was found in the newest segment: the candidates, and why other trials are none."""

    candidates: dict[Candidate, Leg] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def next_grid(settings: Settings, trials: list[Trial]) -> Mapping[str, Any] | None:
    """The grid of the next round; None, after the answer has been written, when the last segment is decided."""
    if not trials:
        raise InputError("standard input holds no trial: a greedy search decides after its first round.")
    legs = branches.grow(trials, settings.edges, settings.checkpoint)
    newest = max(leg.segment for leg in legs)
    own = [leg for leg in legs if leg.segment == newest]
    _refuse_differences(legs)
    if settings.delete_losers:
        for leg in branches.losers(legs, newest):
            leg.checkpoint.unlink(missing_ok=True)

    done = rounds.rounds_done(trials)
    place = f"round {done}, segment {newest + 1} of {len(settings.edges)}"
    look = candidates(own, settings)
    if not look.candidates:
        raise RunnerError(f"{place}: no candidate is left: {'; '.join(look.refused)}.")
    refinements = done - min(leg.trial.round for leg in own)
    if refinements < len(settings.refine):
        grids = refined(look, settings, newest, settings.refine[refinements])
        if grids:
            return _document(grids, f"{place}: a linear grid around {_told(look, settings.rule(newest))}")
    rule = settings.rule(newest)
    kept = branches.open_legs(look.candidates, rule, settings.beam, settings.ahead)
    why = f"{place}: {_told(look, rule)}" + (f", {len(kept)} branches go on" if len(kept) > 1 else "")
    if newest + 1 < len(settings.edges):
        return _document([_sub_grid(leg, _lrs(settings, leg), settings.edges[newest + 1]) for leg in kept], why)
    files = answer.write(rounds.own_directory(settings.out), kept[0], legs, settings.metric, settings.smooth)
    print(f"{why}; written: {', '.join(map(str, files))}", file=sys.stderr)
    return None


def candidates(legs: Sequence[Leg], settings: Settings) -> Look:
    """Those legs that may win: finished, with a finite loss and a checkpoint."""
    look = Look()
    for leg in sorted(legs, key=lambda leg: (leg.lr2, leg.trial.name)):
        reason = ""
        if not leg.trial.ok:
            reason = leg.trial.cause or leg.trial.state
        elif not leg.checkpoint.is_file():
            reason = f"no {leg.checkpoint.name}"
        elif not (curve := answer.losses(leg, settings.metric)):
            reason = f"{settings.metric} is missing or not finite at its end"
        elif not math.isfinite(loss := settings.smooth(curve)[-1]):
            reason = f"the smoothed {settings.metric} is not finite"
        else:
            look.candidates[Candidate(leg.lr2, loss, leg.trial.name)] = leg
        if reason:
            look.refused.append(f"lr2 {leg.lr2:g} ({reason})")
    return look


def refined(look: Look, settings: Settings, segment: int, points: int) -> list[dict[str, Any]]:
    """A linear grid around the winner of each open branch; none where all of its points have been tried."""
    by_parent: dict[Leg | None, list[Candidate]] = {}
    for candidate, leg in look.candidates.items():
        by_parent.setdefault(leg.parent, []).append(candidate)
    grids = []
    for own in by_parent.values():
        winner = settings.rule(segment)(own)
        lrs = choice.between(winner.lr, [candidate.lr for candidate in own], points, settings.factor)
        leg = look.candidates[winner]
        if lrs:
            grids.append(_sub_grid(leg.parent, lrs, leg.end, leg))
    return grids


def _lrs(settings: Settings, leg: Leg) -> list[float]:
    if settings.grid is None:
        return choice.next_lrs(leg.lr2, settings.factor, settings.reach, settings.first)
    found = settings.grid({"winner": leg.lr2, "segment": leg.segment + 2, "segments": len(settings.edges)})
    lrs = custom.floats(found)
    if not lrs or not all(0 <= lr < math.inf for lr in lrs):
        raise RunnerError(f"--grid gave {found!r}; needed is a list of learning rates, at least one.")
    return lrs


def _sub_grid(parent: Leg | None, lrs: list[float], end: int, like: Leg | None = None) -> dict[str, Any]:
    """One branch of the next round: candidates from the parent's checkpoint to step `end`."""
    if parent is None:
        assert like is not None
        return {"lr2": lrs, "steps": end, "lr1": like.lr1, **like.others}
    return {
        "lr2": lrs,
        "begin": parent.end,
        "steps": end,
        "lr1": parent.lr2,
        **parent.others,
        "init_from": str(parent.checkpoint),
    }


def _document(grids: list[dict[str, Any]], why: str) -> dict[str, Any]:
    return {"_why": why, **(grids[0] if len(grids) == 1 else {"LIST_branch": grids})}


def _told(look: Look, rule: Rule) -> str:
    lowest = min(look.candidates, key=lambda candidate: candidate.loss)
    winner = rule([*look.candidates])
    text = f"lr2 {winner.lr:g} with a loss of {winner.loss:.4f}"
    text += "" if winner is lowest else f" (the lowest is {lowest.loss:.4f}, of lr2 {lowest.lr:g})"
    text += f" of {len(look.candidates)} candidates"
    return text + (f"; left out: {', '.join(look.refused)}" if look.refused else "")


def _refuse_differences(legs: Sequence[Leg]) -> None:
    """One search follows one setting: two seeds are two searches."""
    for leg in legs[1:]:
        other = legs[0].others
        names = [name for name in {**other, **leg.others} if other.get(name) != leg.others.get(name)]
        if names:
            raise InputError(
                f"trials {legs[0].trial.name} and {leg.trial.name} differ in {', '.join(names)}; a greedy search "
                f"varies {', '.join(branches.OWN)} alone. Make a search of each setting."
            )


def _picked(pick: Callable[[Any], Any], candidates: Sequence[Candidate]) -> Candidate:
    found = pick([{"lr": candidate.lr, "loss": candidate.loss} for candidate in candidates])
    chosen = [candidate for candidate in candidates if candidate.lr == found]
    if chosen:  # of equal LRs, of several branches, the lower loss
        return min(chosen, key=lambda candidate: candidate.loss)
    told = ", ".join(f"{candidate.lr:g}" for candidate in candidates)
    raise RunnerError(f"--choose gave {found!r}; needed is the LR of a candidate: {told}.")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def parser() -> Parser:
    """The options, with their help."""
    parser = Parser(prog="python -m runner.search.greedy", description=(__doc__ or "").partition("\n\n")[2])
    own = parser.add_argument
    own("--segments", type=int, nargs="+", required=True, metavar="N", help="their number, or the steps of each")
    own("--steps", type=int, help="all steps, where --segments is a number")
    own(
        "--eps", type=float, nargs="+", default=[], help="the largest LR within EPS of the lowest loss; or one for each"
    )
    own("--first", type=float, nargs="+", default=choice.FIRST_LRS, metavar="LR", help="the grid after an LR of 0")
    own("--factor", type=float, default=2.0, help="c of the candidates lr c^i (default: 2)")
    own("--reach", type=int, default=2, help="n of i = -n..n (default: 2)")
    own("--refine", type=int, nargs="+", default=[], metavar="N", help="linear grids of N LRs around the winner")
    own("--beam", type=int, default=1, help="branches that go on")
    own("--ahead", type=int, default=1, help="segments after which a branch is committed to")
    own("--metric", default="loss", help="the column of metrics.csv (default: loss)")
    own("--alpha", type=float, default=choice.ALPHA, help="of the moving average (default: 0.1)")
    own("--smooth", metavar="RULE", help="another smoothing: FILE.py:FUNCTION or a command, losses to smoothed losses")
    own("--choose", metavar="RULE", help="another choice: [{lr, loss}, …] to an LR")
    own("--grid", metavar="RULE", help="another grid: {winner, segment, segments} to LRs")
    own("--checkpoint", default=Settings.checkpoint, help="a trial's checkpoint, below its directory")
    own("--delete-losers", action="store_true", help="remove losers' checkpoints once the next decision is safe")
    own("--out", type=Path, help="directory of the answer (default: that of the decision)")
    return parser


def settings(argv: Sequence[str] | None = None) -> Settings:
    """Read the command line; raises InputError with what is allowed."""
    given = parser().parse_args(argv)
    edges = _edges(given.segments, given.steps)
    if len(given.eps) not in (0, 1, len(edges)) or any(not 0 <= eps < math.inf for eps in given.eps):
        raise InputError(f"--eps {given.eps}: needed is one number, or one for each of {len(edges)} segments, from 0.")
    for name, least in (("factor", 1.0), ("reach", 0), ("beam", 0), ("ahead", 0), ("alpha", 0.0)):
        if not getattr(given, name) > least:
            raise InputError(f"--{name} {getattr(given, name)}: needed is a number above {least}.")
    if not given.alpha <= 1:
        raise InputError(f"--alpha {given.alpha}: needed is a number up to 1.")
    if any(points < 1 for points in given.refine) or not all(0 <= lr < math.inf for lr in given.first):
        raise InputError("--refine takes numbers from 1, --first learning rates from 0.")
    if given.ahead > 1 and given.beam == 1:
        raise InputError(f"--ahead {given.ahead}: one branch has nothing to choose from; add --beam 2 or more.")
    rules = {
        name: custom.rule(f"--{name}", getattr(given, name))
        for name in ("smooth", "choose", "grid")
        if getattr(given, name)
    }
    average = functools.partial(choice.smoothed, alpha=given.alpha)
    return Settings(
        edges,
        tuple(given.eps * (len(edges) if len(given.eps) == 1 else 1)),
        tuple(given.first),
        given.factor,
        given.reach,
        tuple(given.refine),
        given.beam,
        given.ahead,
        given.metric,
        given.checkpoint,
        given.delete_losers,
        given.out,
        functools.partial(custom.smoothed, rules["smooth"]) if "smooth" in rules else average,
        rules.get("choose"),
        rules.get("grid"),
    )


def _edges(segments: list[int], steps: int | None) -> tuple[int, ...]:
    """The last step of each segment: of equal ones, or of those whose lengths are given."""
    if min(segments) < 1:
        raise InputError(f"--segments {' '.join(map(str, segments))}: needed are numbers from 1.")
    if len(segments) > 1:
        edges = tuple(sum(segments[: number + 1]) for number in range(len(segments)))
        if steps not in (None, edges[-1]):
            raise InputError(f"--steps {steps}: the segments have {edges[-1]} steps together; leave --steps out.")
        return edges
    count = segments[0]
    if steps is None or steps < count:
        raise InputError(f"--steps {steps}: needed are the steps of all {count} segments together, at least {count}.")
    return tuple(round(steps * (number + 1) / count) for number in range(count))


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 where no candidate is left, 2 for bad input."""
    try:
        given = settings(argv)
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return rounds.decide(functools.partial(next_grid, given))


if __name__ == "__main__":
    raise SystemExit(main())
