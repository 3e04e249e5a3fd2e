"""What the parsers make of one directory, and how it travels from a worker process."""

import functools
import pickle
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from runner.examine.readers import RecordError, read_param


class Experiment(NamedTuple):
    """What is known of one trial: intermediate objects, results, and the parameters of its `param`."""

    cache: dict[Any, Any]
    metric: dict[Any, Any]
    param: dict[Any, Any]


class ParserFailure(NamedTuple):
    """One failure: the trial's directory, the parser's name, the error in one line, and its traceback."""

    directory: str
    parser: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.directory}: {self.parser}: {self.message}"


Parser = Callable[[Path, Experiment, dict[Any, Any]], object]


class Examined(NamedTuple):
    """One directory after its parsers ran; `skipped` says why they did not."""

    experiment: Experiment
    caches: dict[Any, Any]
    errors: list[ParserFailure]
    skipped: str | None = None


def empty_experiment() -> Experiment:
    """Return an experiment of which nothing is known yet."""
    return Experiment(cache={}, metric={}, param={})


def examine(path: Path, parsers: Iterable[Parser], experiment: Experiment | None, caches: dict[Any, Any]) -> Examined:
    """Load the parameters of the trial in `path` and run the parsers over it, one after the other.

    A parser that raises leaves what it had filled in; the ones after it still run.
    """
    experiment = experiment or empty_experiment()
    try:
        experiment.param.update(read_param(path))
    except RecordError as error:
        return Examined(experiment, caches, [], skipped=str(error))
    errors = []
    for parser in parsers:
        try:
            parser(path, experiment, caches)
        except Exception as error:  # noqa: BLE001 - a parser is the user's code and may raise anything
            errors.append(_describe(path, parser, error))
    return Examined(experiment, caches, errors)


def parser_name(parser: Any) -> str:
    """Return a name for a function, a partial of one, or an object that can be called."""
    if isinstance(parser, functools.partial):
        return parser_name(parser.func)
    return str(getattr(parser, "__name__", type(parser).__name__))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _describe(path: Path, parser: Parser, error: Exception) -> ParserFailure:
    # The first frame is `examine`; the second is the parser's own line.
    frames = traceback.extract_tb(error.__traceback__)[1:]
    line = f" (line {frames[0].lineno})" if frames else ""
    full = "".join(traceback.format_exception(error))
    return ParserFailure(path.name, parser_name(parser), _one_line(error) + line, full)


class Packed(NamedTuple):
    """An `Examined` with each of its entries pickled by itself, so that one that can't be is named."""

    entries: list[tuple[str, str, bytes]]
    errors: list[ParserFailure]
    skipped: str | None


def _unsendable(name: str, kind: str, key: str, error: Exception) -> ParserFailure:
    message = f"the value can't be sent from the worker process ({_one_line(error)}); workers=-1 keeps it"
    return ParserFailure(name, f"{kind} {key}", message)


def pack(path: Path, examined: Examined) -> Packed:
    """Pickle the entries of `examined`; one that can't be pickled becomes an error."""
    entries, errors = [], list(examined.errors)
    kinds = {**examined.experiment._asdict(), "caches": examined.caches}
    for kind, mapping in kinds.items():
        for entry in mapping.items():
            try:
                entries.append((kind, repr(entry[0]), pickle.dumps(entry, pickle.HIGHEST_PROTOCOL)))
            except Exception as error:  # noqa: BLE001 - pickling runs the code of the user's classes
                errors.append(_unsendable(path.name, kind, repr(entry[0]), error))
    return Packed(entries, errors, examined.skipped)


def unpack(path: Path, packed: Packed) -> Examined:
    """Return what was packed; an entry that can't be loaded becomes an error."""
    kinds: dict[str, dict[Any, Any]] = {"cache": {}, "metric": {}, "param": {}, "caches": {}}
    errors = list(packed.errors)
    for kind, label, content in packed.entries:
        try:
            key, value = pickle.loads(content)  # noqa: S301 - the bytes come from our own child process
        except Exception as error:  # noqa: BLE001 - loading runs the code of the user's classes
            errors.append(_unsendable(path.name, kind, label, error))
        else:
            kinds[kind][key] = value
    caches = kinds.pop("caches")
    return Examined(Experiment(**kinds), caches, errors, packed.skipped)
