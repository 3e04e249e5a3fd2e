"""params.yaml to a validated Config; every error names the file, the line, the key, the value and what is allowed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import arithmetic, gather, template
from runner.errors import InputError, did_you_mean
from runner.grid import Settings
from runner.params import executorfile, gatherfile, headerfile, searchfile
from runner.params.gridfile import Known, always_set, parse_sweep
from runner.process import bash
from runner.values import is_parameter_name, text_of
from runner.yamlfile import Document, parse_documents, read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from runner.gather import Gather
    from runner.grid import Sweep
    from runner.options import StageOptions
    from runner.params.header import Header, NotifySpec, Resource, StageSpec
    from runner.template import Template
    from runner.yamlfile import KeyPath

RESERVED = frozenset({"_name", "_output", "_time", "_config"})  # placeholders that the runner fills
_SHELL_WORDS = frozenset({"cd", "export", "source", "exec", "eval", "set", "trap", "if", "for", "while", "until"})
_BACKGROUND = re.compile(r"[^&\\]&\s*\Z")
_STAGE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True)
class Config:
    """A whole params.yaml."""

    path: Path
    text: str
    templates: Mapping[str, Template]
    settings: Settings
    resource: Resource
    sweeps: Sequence[Sweep]
    warnings: Sequence[str]
    options: Mapping[str, StageOptions]
    order: str
    fail_fast: int | None
    notify: NotifySpec | None
    takes_snapshot: bool = False
    gathers: Mapping[str, Gather] = field(default_factory=dict)
    resource_said: str = "resource"  # where that stands
    is_part: bool = False  # only some sweeps or stages were asked for: no gather runs

    @property
    def has_units(self) -> bool:
        """Whether more than trials is to be run: gathers, or the decisions of a search."""
        return bool(self.gathers) or any(sweep.search for sweep in self.sweeps)

    def orphans(self) -> list[str]:
        """Parameters of the sweeps and defaults that no template uses: they name directories only."""
        if any("_config" in parsed.names for parsed in self.templates.values()):
            return []  # the configuration file holds them all
        used = frozenset[str]().union(*(parsed.names for parsed in self.templates.values()))
        used |= frozenset(key for gather in self.gathers.values() for key in (*gather.by, *gather.where))
        keys = [key for sweep in self.sweeps for key, _ in sweep.grid.leaves()]
        given = dict.fromkeys(
            target for key in [*keys, *self.settings.default] for target in self.settings.targets(key)
        )
        return [key for key in given if key not in used]


def load(path: Path, text: str | None = None, executor: str | None = None) -> Config:
    """Reads and validates a params.yaml; `text` is what stood there when it was read before.

    `executor` is the one that the command line asks for.

    Raises:
        InputError: anything in it is not as it must be; nothing was written.
    """
    text = read_text(path) if text is None else text
    documents = parse_documents(str(path), text)
    if not documents or documents[0].value is None:
        raise InputError(f"{path}: empty; the first document needs `template`, the next ones are the grids.")
    header = headerfile.read(documents[0])
    templates = _templates(header, documents[0])
    _check_params(header.default, documents[0], ("default",))
    _refuse_gathers(header, documents[0])
    settings = _settings(header, documents[0], templates)
    known = Known(list(templates), settings)
    grids = [document for document in documents[1:] if document.value is not None]
    if not grids:
        raise InputError(f"{path}: no grid; add one after a line `---`, such as `lr: [0.1, 0.01]`.")
    sweeps = [parse_sweep(document, known) for document in grids]
    options = {name: header.options(name) for name in (*header.template, *header.gather)}
    for name, (ran_by, told) in executorfile.read(header, documents[0], executor).items():
        options[name] = replace(options[name], executor=ran_by, batch=told)
        if told.get("pack") == "auto":  # by what an attempt is seen to need
            options[name] = replace(options[name], per_gpu=None)
    _check_memory_options(header, documents[0], sweeps, settings, options)
    config = Config(
        path=path,
        text=text,
        templates=templates,
        settings=settings,
        resource=header.resource,
        resource_said=str(documents[0].place(("resource",))),
        sweeps=sweeps,
        warnings=[warning for document in documents for warning in document.warnings],
        options=options | searchfile.options(sweeps),
        order=header.order,
        fail_fast=header.fail_fast,
        notify=header.notify,
        takes_snapshot=header.snapshot,
        gathers=gatherfile.read(header, documents[0], sweeps, settings, templates),
    )
    searchfile.check(grids, sweeps, templates)
    _check_commands(config, header, documents[0], grids)
    for sweep, document in zip(config.sweeps, grids, strict=True):
        check_sweep(config, sweep, document, documents[0])
    return replace(config, warnings=[*config.warnings, *_shell_variables(config, documents[0])])


def _shell_variables(config: Config, document: Document) -> Iterator[str]:
    """Where an orphan stands as a variable of the shell's, which has no value there."""
    for name in config.orphans():
        for stage, parsed in config.templates.items():
            text = "".join(part for part in parsed.parts if isinstance(part, str))
            if found := re.search(rf"\$(?:{re.escape(name)}(?![\w-])|\{{{re.escape(name)}\}})", text):
                place = document.place(("template", stage))
                yield f"{place}: {found[0]} is a variable of the shell's; the parameter is {{{name}}}."


def check_sweep(config: Config, sweep: Sweep, document: Document, head: Document) -> None:
    """A grid and the templates go together; `head` is the file's first document.

    Raises:
        InputError: they do not.
    """
    _check_placeholders(config, sweep, document, head)
    _check_nesting(config, sweep, document)


def _templates(header: Header, document: Document) -> dict[str, Template]:
    parsed: dict[str, Template] = {}
    for stage, spec in header.template.items():
        place = document.place(("template", stage))
        if not _STAGE_NAME.match(stage):
            raise InputError(f"{place}: {stage!r} is no stage name; allowed: up to 64 letters, digits, - and _.")
        command = _command(spec)
        if not command.strip() or "\0" in command:
            raise InputError(f"{place}: the command is empty or holds a NUL character.")
        try:
            parsed[stage] = template.parse(command)
        except template.TemplateError as error:
            raise InputError(f"{place}: the command {error}.") from None
        for before, after in template.joined_commands(command, _is_command):
            document.warnings.append(
                f"{place}: its lines become one, so that `{after}` is a part of `{before}`; end the line before with "
                "`&&` or `;`, or with a backslash where it is meant so"
            )
        if _BACKGROUND.search(command):
            document.warnings.append(
                f"{place}: ends with `&`, so that the stage is over at once, and what it has started is ended with it; "
                "leave the `&` out."
            )
    return parsed


def _command(spec: str | StageSpec) -> str:
    return spec if isinstance(spec, str) else spec.cmd


def _is_command(word: str) -> bool:
    return word in _SHELL_WORDS or shutil.which(word) is not None


def _check_commands(config: Config, header: Header, document: Document, grids: Sequence[Document]) -> None:
    """Also what runs after hours alone, gathers and searches, can be run."""
    written = {str(document.place(("template", stage))): _command(spec) for stage, spec in header.template.items()}
    written |= {str(document.place(("gather", name, "cmd"))): spec.cmd for name, spec in header.gather.items()}
    parsed = [*config.templates.values(), *(item.template for item in config.gathers.values())]
    commands = {place: item.render(dict.fromkeys(item.names, 1)) for place, item in zip(written, parsed, strict=True)}
    searches = zip(config.sweeps, grids, strict=True)
    commands |= {str(grid.place(("_search", "next"))): it.search.command for it, grid in searches if it.search}
    _check_syntax(commands, [place for place, command in written.items() if "\n" in command.strip()])


def _check_syntax(commands: Mapping[str, str], several_lines: Collection[str]) -> None:
    """bash can read every command, by their places; all are read at once, since that is the usual case."""
    if _syntax_error("\n".join(commands.values())) is None:
        return
    for place, command in commands.items():
        if (said := _syntax_error(command)) is not None:
            hint = "; its lines become one: end them with `;` or `&&`" if place in several_lines else ""
            raise InputError(f"{place}: bash cannot read the command: {said}{hint}.")


def _syntax_error(commands: str) -> str | None:
    done = subprocess.run([bash(), "-n"], input=commands.encode(), stderr=subprocess.PIPE, check=False)
    lines = done.stderr.decode(errors="replace").splitlines()
    return re.sub(r"^\S*bash: (line \d+: )?", "", lines[0]) if done.returncode and lines else None


def _check_params(names: Iterable[str], document: Document, parent: KeyPath) -> None:
    for name in names:
        if not is_parameter_name(name):
            place = document.place((*parent, name))
            rule = "letters, digits, -, _ and dots inside, but no _ at the beginning, which marks the runner's own keys"
            raise InputError(f"{place}: {name!r} is no parameter name; allowed: {rule}.")


def _refuse_gathers(header: Header, document: Document) -> None:
    """What a gather made is only waited for where a grid names it."""
    values: list[tuple[KeyPath, object]] = [(("default", name), value) for name, value in header.default.items()]
    for alias, cases in header.alias.items():
        values += [
            (("alias", alias, case, name), value) for case, params in cases.items() for name, value in params.items()
        ]
    for path, value in values:
        if names := gather.names_in(value):
            raise InputError(
                f"{document.place(path)}: {{_gather.{names[0]}}} has a meaning in grids only; move `{path[-1]}` there."
            )


def _settings(header: Header, document: Document, templates: Mapping[str, Template]) -> Settings:
    for alias, cases in header.alias.items():
        _check_params([alias], document, ("alias",))
        first = set(next(iter(cases.values())))
        for case, params in cases.items():
            place = document.place(("alias", alias, case))
            _check_params(params, document, ("alias", alias, case))
            if set(params) != first:
                differing = ", ".join(sorted(first ^ set(params)))
                raise InputError(f"{place}: the cases of an alias set the same parameters, but {differing} differ.")
            if nested := sorted(set(params) & set(header.alias)):
                raise InputError(f"{place}: an alias stands for parameters, but {nested[0]} is an alias itself.")
        used = [stage for stage, parsed in templates.items() if alias in parsed.names]
        if used:
            place = document.place(("template", used[0]))
            raise InputError(f"{place}: {alias} is an alias; use its parameters: {', '.join(sorted(first))}.")
        value = header.default.get(alias)
        if alias in header.default and text_of(value) not in cases:
            place = document.place(("default", alias))
            raise InputError(f"{place}: the alias `{alias}` has no case {value!r}. Allowed: {', '.join(cases)}.")
    return Settings(header.default, header.alias)


def _check_memory_options(
    header: Header,
    document: Document,
    sweeps: Sequence[Sweep],
    settings: Settings,
    options: Mapping[str, StageOptions],
) -> None:
    """`vram_by` and `on_oom` name parameters, those of `on_oom` with a default to compute from."""
    swept = {key for sweep in sweeps for key, _ in sweep.grid.leaves()}
    swept |= {target for key in swept for target in settings.targets(key)}
    known = {*settings.base, *settings.alias, *swept}
    for path, keys in header.option_blocks():
        for index, name in enumerate(keys.vram_by):
            if name not in known:
                place = document.place((*path, "vram_by", index))
                raise InputError(f"{place}: no parameter is called {name!r}.{did_you_mean(name, known)}")
        for name, text in keys.on_oom.items():
            place = document.place((*path, "on_oom", name))
            for used in (name, *arithmetic.parse(text).names):
                if used not in settings.base:
                    hint = did_you_mean(used, settings.base)
                    raise InputError(f"{place}: no default for `{used}`; add it to `default`.{hint}")
    for stage, item in options.items():
        if item.vram_by and item.per_gpu is not None and not header.stage.vram_by:
            place = document.place(("template", stage, "vram_by"))
            raise InputError(f"{place}: only has a meaning with `per_gpu: auto`.")


def _check_placeholders(config: Config, sweep: Sweep, document: Document, head: Document) -> None:
    """Every placeholder of a stage has a value in each combination that runs the stage."""
    known = RESERVED | set(config.settings.base) | always_set(sweep.grid, config.settings)
    for stage in sweep.stages or config.templates:
        for name in sorted(config.templates[stage].names - known):
            place = head.place(("template", stage))
            grid = sweep.title or f"the grid at line {document.place().line}"
            written, literal = config.templates[stage].spelling(name)
            if name.startswith("_"):
                raise InputError(
                    f"{place}: {written} is none of the runner's own placeholders, which are "
                    f"{', '.join(f'{{{own}}}' for own in sorted(RESERVED))}; a grid may name a gather, "
                    f"as `x: '{{_gather.NAME}}'`. Write {literal} for the text.{did_you_mean(name, RESERVED)}"
                )
            raise InputError(
                f"{place}: no value for {written} in {grid}; add `{name}` to `default` or to the grid, "
                f"or write {literal} for the text.{did_you_mean(name, known)}"
            )


def _check_nesting(config: Config, sweep: Sweep, document: Document) -> None:
    """In the configuration file `a.b` is inside `a`, which therefore has no value of its own."""
    if not any("_config" in parsed.names for parsed in config.templates.values()):
        return
    names = {target for key, _ in sweep.grid.leaves() for target in config.settings.targets(key)}
    names |= set(config.settings.base)
    for name in sorted(names):
        parent = name
        while "." in parent:
            parent = parent.rpartition(".")[0]
            if parent in names:
                raise InputError(
                    f"{document.place()}: in the file {{_config}} the parameter `{name}` lies inside `{parent}`, "
                    f"which has a value itself; rename one of them."
                )
