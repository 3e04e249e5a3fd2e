"""The rounds of a search: which are decided already, by the records that the decisions left."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import config as files
from runner import trials
from runner.errors import InputError
from runner.grid import Round
from runner.model import JobState
from runner.params.gridfile import Known, always_set, parse_round
from runner.records import DamagedRecordError
from runner.units import decision_name, rounds_hash
from runner.yamlfile import parse_documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.config import Config
    from runner.grid import Search, Sweep
    from runner.values import Params
    from runner.yamlfile import Document

RECORD = "decision.json"
NEXT_PLAN = "next_plan"
WHY = "_why"

Record = dict[str, Any]


def read_record(directory: str | Path) -> Record | None:
    """What a decision recorded; None when it was not made.

    Raises:
        DamagedRecordError: the record cannot be read.
    """
    path = Path(directory) / RECORD
    try:
        record: Record = json.loads(path.read_bytes())
        return record if record["inputs"] is not None else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedRecordError(f"{path}: cannot be read ({type(error).__name__}); delete its directory.") from error


def next_plan(directory: str | Path) -> str:
    """The plan of the next round that a decision wrote; nothing when there is none."""
    try:
        return (Path(directory) / NEXT_PLAN).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True)
class Standing:
    """How far a search is: its round, of how many at most, and what the last decision came to, in one line."""

    search: str
    round: int
    rounds: int | None
    is_over: bool
    last: str

    def line(self) -> str:
        """The same as a sentence."""
        most = "" if self.rounds is None else f" of at most {self.rounds}"
        return f"search {self.search}: {'ended after ' if self.is_over else ''}round {self.round}{most}; {self.last}"


def standings(output: Path) -> list[Standing]:
    """How far the searches of an output directory are, by what they have decided."""
    found = []
    for directory in sorted(output.glob("search.*")):
        last: Record | None = None
        # A round that was decided before the one that it follows is from another first grid.
        while (record := read_record(directory / f"round_{1 if last is None else last['round'] + 1}")) is not None:
            if last is not None and _moment(record) < _moment(last):
                break
            last = record
        if last is not None:
            found.append(_standing(last))
    return found


def _moment(record: Record) -> datetime:
    return datetime.fromisoformat(record["time"])


def _standing(last: Record) -> Standing:
    is_over = last["grid"] is None
    told = str(last["why"] or " ".join(str(last["grid"]).split()))
    said = last["ended"] if is_over else f"the last decision: {told}"
    return Standing(last["search"], last["round"] + (not is_over), last["rounds"], is_over, said)


def _stand(number: int, asked: Sequence[Sequence[str]], record: Record | None, search: Search | None) -> Round:
    """A round of which the trials, and those of the rounds before it, are `asked` for; `record`: what decided it.

    Where a limit ended the search there, and the file has a higher one now, it is decided anew.
    """
    reopened = "" if record is None else record.get("reopened", "")
    stand = Round(number, _hash(asked, reopened), reopened=reopened)
    if record is None or record["inputs"] != stand.inputs:
        return Round(number, _hash(asked, ""))
    if search is None or record["grid"] is not None or not record.get("limit"):
        return stand
    name, reached = record["limit"]
    limit = getattr(search, name)
    if limit is not None and limit <= reached:
        return stand
    reopened = f"{name} {limit}"
    return Round(number, _hash(asked, reopened), reopened=reopened)


def _hash(asked: Sequence[Sequence[str]], reopened: str) -> str:
    return rounds_hash([*asked, [reopened]] if reopened else asked)


class Expansion:
    """A config's searches, with the grids of the rounds that were decided in an output directory."""

    def __init__(self, config: Config, introduced: Params, output: str, sample: int | None, seed: int) -> None:
        self._config = config
        self._introduced = introduced
        self._output = output
        self._sample = sample
        self._seed = seed

    def expand(self, upto: int | None = None) -> Config:
        """The config in which each search stands as often as it has rounds; decisions from `upto` on do not count.

        Raises:
            InputError: a recorded grid does not fit the file any more.
        """
        sweeps: list[Sweep] = []
        for sweep in self._config.sweeps:
            if sweep.search is None:
                sweeps.append(sweep)
            else:
                sweeps += self._rounds(sweep, upto)
        return replace(self._config, sweeps=sweeps)

    def _rounds(self, first: Sweep, upto: int | None) -> Iterator[Sweep]:
        assert first.title is not None
        sweep: Sweep | None = first
        asked: list[list[str]] = []
        number = 0
        while sweep is not None:
            number += 1
            asked.append(self.ids(sweep))
            record = read_record(f"{self._output}/{decision_name(first.title, number)}")
            stand = _stand(number, asked, record, first.search)
            if record is None or record["inputs"] != stand.inputs or number == upto:
                yield replace(sweep, round=stand)
                return
            left_out = {row["id"]: row["state"] for row in record["read"] if row["state"] != JobState.COMPLETED}
            lost = frozenset(key for key, state in left_out.items() if state != JobState.PRUNED)
            yield replace(sweep, round=replace(stand, is_decided=True, left_out=frozenset(left_out), lost=lost))
            sweep = None if record["grid"] is None else self.read_grid(first, number + 1, record["grid"])

    def ids(self, sweep: Sweep) -> list[str]:
        """The ids of a round's trials."""
        return trials.identities(self._config, sweep, self._introduced, self._sample, self._seed, self._output)

    def read_grid(self, first: Sweep, number: int, text: str) -> Sweep | None:
        """The sweep that `next` printed; None where it printed nothing.

        Raises:
            InputError: it is no grid of this file.
        """
        documents = [
            item for item in parse_documents(f"the grid for round {number} of {first.title}", text) if item.value
        ]
        if not documents:
            return None
        if len(documents) > 1:
            raise InputError(f"{documents[1].place()}: a second document; `next` prints one grid.")
        document = documents[0]
        if isinstance(document.value, dict):
            document.value.pop(WHY, None)
            if not document.value:
                return None
        sweep = parse_round(document, Known(list(self._config.templates), self._config.settings))
        given = document.value
        sweep = replace(
            sweep,
            title=first.title,
            search=first.search,
            stages=sweep.stages if "_cmd" in given else first.stages,
            priority=sweep.priority if "_priority" in given else first.priority,
            links=(*sweep.links, *(link for link in first.links if link.key == "_after")),
        )
        head = parse_documents(str(self._config.path), self._config.text)[0]
        files.check_sweep(self._config, sweep, document, head)
        for link in sweep.links:
            if link.gather not in self._config.gathers:
                raise InputError(f"{link.place}: no gather {link.gather!r}.")
        self._check_groups(sweep, document)
        return sweep

    def _check_groups(self, sweep: Sweep, document: Document) -> None:
        settings = self._config.settings
        always = always_set(sweep.grid, settings) | set(settings.base)
        for item in self._config.gathers.values():
            for key in item.by if sweep.title in item.of else ():
                if key not in always:
                    problem = f"{key!r} is not set, by which the gather {item.name} is grouped"
                    raise InputError(f"{document.place()}: {problem}.")
