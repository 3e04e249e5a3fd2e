"""The gathers of params.yaml: what they read, and what reads them, checked against the grids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner import template
from runner.errors import InputError, did_you_mean
from runner.gather import Gather, cycle, names_in
from runner.params.gridfile import always_set
from runner.values import canonical

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from runner.grid import Settings, Sweep
    from runner.params.header import GatherSpec, Header
    from runner.template import Template
    from runner.yamlfile import Document

FILLED = frozenset({"_name", "_output", "_time", "_trials"})  # placeholders that the runner fills in a gather's command
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def read(
    header: Header, document: Document, sweeps: Sequence[Sweep], settings: Settings, stages: Iterable[str]
) -> dict[str, Gather]:
    """The gathers of a file.

    Raises:
        InputError: one is not as it must be, or what depends on one.
    """
    titled: dict[str, list[Sweep]] = {}
    for sweep in sweeps:
        if sweep.title is not None:
            titled.setdefault(sweep.title, []).append(sweep)
    reader = _Reader(document, titled, settings, set(header.gather))
    found = {name: reader.gather(name, spec, set(stages)) for name, spec in header.gather.items()}
    _check_links(sweeps, found)
    _check_cycles(document, found, titled)
    return found


class _Reader:
    def __init__(
        self, document: Document, titled: Mapping[str, Sequence[Sweep]], settings: Settings, names: Collection[str]
    ) -> None:
        self._names = names
        self._document = document
        self._titled = titled
        self._settings = settings

    def gather(self, name: str, spec: GatherSpec, stages: set[str]) -> Gather:
        if not _NAME.match(name):
            raise self._error((name,), f"{name!r} is no gather's name; allowed: up to 64 letters, digits, - and _.")
        if name in stages or name in self._titled:
            raise self._error((name,), f"{name!r} is the name of a stage or the title of a grid; choose another one.")
        for option in ("on_oom", "prune"):
            if getattr(spec, option):
                raise self._error((name, option), "only has a meaning for a stage of the template.")
        of = (spec.of,) if isinstance(spec.of, str) else tuple(spec.of)
        for title in of:
            if title in self._names:
                told = "a gather reads the trials of grids, also of those that wait for a gather"
                raise self._error((name, "of"), f"{title!r} is a gather; {told}.")
            if title not in self._titled:
                known = ", ".join(self._titled) or "none; add `_title` to a grid"
                hint = did_you_mean(title, self._titled)
                raise self._error((name, "of"), f"no grid has the title {title!r}.{hint} Titles: {known}.")
        members = [sweep for title in of for sweep in self._titled[title]]
        where = {}
        for key, value in spec.where.items():
            self._check_parameter((name, "where", key), key, members, must_be_set=False)
            where[key] = frozenset(map(canonical, value if isinstance(value, list) else [value]))
        for key in spec.by:
            self._check_parameter((name, "by"), key, members, must_be_set=True)
        place = str(self._document.place(("gather", name)))
        return Gather(name, self._template(name, spec), of, where, tuple(spec.by), spec.need, place)

    def _template(self, name: str, spec: GatherSpec) -> Template:
        try:
            parsed = template.parse(spec.cmd)
        except template.TemplateError as error:
            raise self._error((name, "cmd"), f"the command {error}.") from None
        if not spec.cmd.strip() or "\0" in spec.cmd:
            raise self._error((name, "cmd"), "the command is empty or holds a NUL character.")
        known = FILLED | set(spec.by)
        for unknown in sorted(parsed.names - known):
            written, literal = parsed.spelling(unknown)
            raise self._error(
                (name, "cmd"),
                f"no value for {written}; a gather has {', '.join(sorted(known))}, of parameters those in `by`; "
                f"write {literal} for the text.{did_you_mean(unknown, known)}",
            )
        return parsed

    def _check_parameter(self, path: tuple[str, ...], key: str, members: Sequence[Sweep], must_be_set: bool) -> None:
        """A parameter that tells members apart is one of theirs, with values that are the same for all time."""
        for sweep in members:
            given = {target for own, _ in sweep.grid.leaves() for target in self._settings.targets(own)}
            always = always_set(sweep.grid, self._settings) | set(self._settings.base)
            known = given | set(self._settings.base)
            if key not in known:
                hint = did_you_mean(key, known)
                raise self._error(path, f"{sweep.title} has no parameter {key!r}.{hint}")
            if must_be_set and key not in always:
                raise self._error(path, f"not every combination of {sweep.title} sets {key!r}, so no group is theirs.")
            if must_be_set and any(own == key and any(map(names_in, values)) for own, values in sweep.grid.leaves()):
                raise self._error(path, f"{sweep.title} fills {key!r} from a gather; group by a plain parameter.")

    def _error(self, path: tuple[str, ...], message: str) -> InputError:
        return InputError(f"{self._document.place(('gather', *path))}: {message}")


def _check_links(sweeps: Sequence[Sweep], gathers: Mapping[str, Gather]) -> None:
    for sweep in sweeps:
        for link in sweep.links:
            if link.gather not in gathers:
                known = ", ".join(gathers) or "none; the first document needs `gather`"
                hint = did_you_mean(link.gather, gathers)
                raise InputError(f"{link.place}: no gather {link.gather!r}.{hint} Gathers: {known}.")


def _check_cycles(document: Document, gathers: Mapping[str, Gather], titled: Mapping[str, Sequence[Sweep]]) -> None:
    follows: dict[str, list[str]] = {name: list(gather.of) for name, gather in gathers.items()}
    for title, sweeps in titled.items():
        follows[title] = [link.gather for sweep in sweeps for link in sweep.links]
    circle = cycle(follows)
    if circle is not None:
        first = next(name for name in circle if name in gathers)
        start = circle.index(first)
        path = [*circle[start:-1], *circle[:start], first]  # told from a gather on, whose line is named
        place = document.place(("gather", first, "of"))
        raise InputError(f"{place}: these wait for each other: {' → '.join(path)}; one must do without the next.")
