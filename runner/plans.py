"""Plans as files: what one `run` asked for, trial by trial, so that a daemon can be killed and take it up again.

`output/.runner/plans/<id>.jsonl` holds a header, a line for each trial and an end line with a checksum over all;
`<id>.env` beside it, readable by its owner alone, the environment of whoever typed `run`.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.appendfile import write_all
from runner.errors import RunnerError
from runner.gpus.wish import GpuWish
from runner.model import Fallback, Needs, Recipe, Slot, Trial
from runner.options import StageOptions
from runner.trials import STATE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from runner.model import PlannedTrial
    from runner.values import Params

VERSION = 2
_READ = 65536
ABANDONED_S = 3600.0  # so old is a plan that nobody will hand over any more


class DamagedPlanError(RunnerError):
    """A plan's file is missing or not whole; its trials must be asked for again."""


@dataclass(frozen=True)
class PlanHeader:
    """What holds for every trial of a plan.

    `is_full`: the whole file was asked for, so that waiting trials that it lacks are no longer wanted; with `prunes`
    running ones, too.
    """

    plan_id: str
    time: str  # as {_time} has it
    file: str
    cwd: str
    umask: int
    is_full: bool
    is_forced: bool
    takes_over: bool
    prunes: bool
    options: Mapping[str, StageOptions]
    is_breadth_first: bool
    fail_fast: int | None
    slots: tuple[Slot, ...]
    gpus: GpuWish | None = None  # GPUs that are looked at before they are taken; None: those of the slots
    code: str | None = None  # the hash of the code in `cwd`, where that is a snapshot, which no longer changes
    begins_at: int = 0  # the number of its first trial, less one
    source: Mapping[str, Any] | None = None  # of a search: the file's text and the options of `run`
    begun_by: str = ""  # of a later round: the plan that a user asked for

    @property
    def asked(self) -> str:
        """The plan that a user asked for, from which this one comes."""
        return self.begun_by or self.plan_id


@dataclass(frozen=True)
class Secrets:
    """What only the owner may read: the environment of the trials, and whom to notify."""

    environment: Mapping[str, str]
    notify: Mapping[str, Any] | None = None


def new_id() -> str:
    """A name that no other plan has; names sort by time."""
    now = time.time_ns()
    second = time.strftime("%Y%m%d.%H%M%S", time.localtime(now // 10**9))
    return f"{second}.{now % 10**9:09d}.{secrets.token_hex(3)}"


def directory_of(output: str | Path) -> Path:
    """Where the plans of an output directory lie."""
    return Path(output) / STATE_DIRECTORY / "plans"


def write(output: Path, header: PlanHeader, hidden: Secrets, trials: Iterable[PlannedTrial]) -> Path:
    """Writes a plan durably; whole, or under another name."""
    folder = directory_of(output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{header.plan_id}.jsonl"
    _write_private(path.with_suffix(".env"), json.dumps(asdict(hidden)).encode())
    part = path.with_suffix(".part")
    checksum, count = 0, 0
    with part.open("wb") as file:
        for line in _lines(header, trials):
            checksum, count = zlib.crc32(line, checksum), count + 1
            file.write(line)
        file.write(json.dumps({"end": count - 1, "crc": checksum}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def read_secrets(output: Path | str, plan_id: str) -> Secrets:
    """The environment of a plan's trials, and whom to notify.

    Raises:
        DamagedPlanError: the file is missing or not whole.
    """
    path = directory_of(output) / f"{plan_id}.env"
    try:
        return Secrets(**json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DamagedPlanError(f"{path}: {getattr(error, 'strerror', None) or error}.") from error


def _write_private(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _lines(header: PlanHeader, trials: Iterable[PlannedTrial]) -> Iterator[bytes]:
    record = asdict(header) | {"options": {stage: item.to_json() for stage, item in header.options.items()}}
    record["gpus"] = None if header.gpus is None else header.gpus.to_json()
    yield json.dumps({"version": VERSION} | record).encode() + b"\n"
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for trial in trials:
        recipe = trial.recipe
        commands = [recipe.commands[stage] for stage in trial.stages]
        place = "" if trial.directory == trial.output else trial.directory
        light = [trial.trial_id, trial.name, trial.output, place, trial.stages, trial.sweep, trial.priority]
        light.append(trial.kinds)
        whole = [*light, recipe.params, commands, recipe.needs_config, recipe.fallbacks, *_wiring(trial)]
        yield encode(whole).encode() + b"\n"


def _wiring(trial: Trial) -> list[Any]:
    """What a trial waits for, and its round; nothing for one that stands alone."""
    if trial.needs is None and not trial.round:
        return []
    default = asdict(Needs())
    needs = None if trial.needs is None else asdict(trial.needs)
    return [trial.round, needs and {key: value for key, value in needs.items() if value != default[key]}]


def _wired(number: int, needs: dict[str, Any] | None) -> dict[str, Any]:
    if needs is None:
        return {"round": number}
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in needs.items()}
    return {"round": number, "needs": Needs(**given)}


class Plan:
    """A plan's file, open for reading: the trials at once, what each runs when it is started."""

    def __init__(
        self, output: Path, plan_id: str, only: Collection[tuple[int, int]] | None = None, *, is_shown: bool = False
    ) -> None:
        """With `only`, the places of some trials, no others are read; what is only shown, other users may read.

        Raises:
            DamagedPlanError: the file is missing or not whole.
        """
        self.output = os.path.abspath(output)  # noqa: PTH100 - a text, joined for every trial
        self.path = directory_of(output) / f"{plan_id}.jsonl"
        self._lines: dict[str, tuple[int, int]] = {}  # of each trial, where its line begins, and its checksum
        self.secrets = Secrets({}) if is_shown else read_secrets(output, plan_id)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DamagedPlanError(f"{self.path}: {error.strerror}.") from error
        try:
            self.header, self.trials = self._read(only)
        except DamagedPlanError:
            self.close()
            raise

    @property
    def ask(self) -> str:
        """By which word of the user's its trials are asked for."""
        return self.header.plan_id

    def place_of(self, trial: Trial) -> tuple[int, int]:
        """Where the plan has a trial, and the checksum of what stands there."""
        return self._lines[trial.key]

    def close(self) -> None:
        """Gives the file back."""
        os.close(self._descriptor)

    def recipe(self, trial: Trial) -> Recipe:
        """What a trial of this plan runs."""
        offset, _ = self._lines[trial.key]
        line = b""
        while b"\n" not in line:
            part = os.pread(self._descriptor, _READ, offset + len(line))
            if not part:
                raise DamagedPlanError(f"{self.path}: cut off while it was used.")
            line += part
        record = json.loads(line[: line.index(b"\n")])
        _, _, _, _, stages, _, _, _, params, commands, needs_config, fallbacks, *_ = record
        lower = {stage: [Fallback(*item) for item in items] for stage, items in fallbacks.items()}
        return Recipe(params, dict(zip(stages, commands, strict=True)), needs_config, lower)

    def is_same(self, other: Plan, trial: Trial) -> bool:
        """Whether another plan has the trial just as this one has it, in the same place."""
        if trial.key not in other._lines or self.header.cwd != other.header.cwd:
            return False
        return self._lines[trial.key][1] == other._lines[trial.key][1]

    def _read(self, only: Collection[tuple[int, int]] | None) -> tuple[PlanHeader, list[Trial]]:
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123
                first = file.readline()
                header = _header(json.loads(first))
                if only is not None:
                    return header, [self._picked(file, *place) for place in only]
                trials = list(self._trials(file.readline, len(first), zlib.crc32(first), header.begins_at))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DamagedPlanError(f"{self.path}: not whole ({type(error).__name__}).") from error
        return header, trials

    def _picked(self, file: Any, offset: int, checksum: int) -> Trial:
        file.seek(offset)
        line = file.readline()
        if zlib.crc32(line) != checksum:
            raise ValueError("cut off or changed")
        return self._trial(line, offset, 0, {})

    def _trials(self, readline: Any, offset: int, checksum: int, first: int) -> Iterator[Trial]:
        alike: dict[Any, Any] = {}
        index = 0
        while line := readline():
            if line.startswith(b"{"):
                end = json.loads(line)
                if (end["end"], end["crc"]) != (index, checksum) or readline():
                    break
                return
            yield self._trial(line, offset, first + index, alike)
            checksum, offset, index = zlib.crc32(line, checksum), offset + len(line), index + 1
        raise ValueError("cut off or changed")

    def _trial(self, line: bytes, offset: int, index: int, alike: dict[Any, Any]) -> Trial:
        """The trial of a line; `alike` holds what many of them share, once."""
        trial_id, name, output, place, stages, sweep, priority, kinds, _, _, _, _, *wiring = json.loads(line)
        stages = alike.setdefault(tuple(stages), tuple(stages))
        sweep = alike.setdefault(sweep, sweep)
        if kinds is not None:
            kinds = {stage: alike.setdefault(kind, kind) for stage, kind in kinds.items()}
        directory = f"{self.output}/{self._place(place) if place else name}"
        wired = _wired(*wiring) if wiring else {}
        trial = Trial(index, trial_id, name, output, directory, stages, sweep, priority, kinds, **wired)
        self._lines[trial.key] = offset, zlib.crc32(line)
        return trial

    @staticmethod
    def _place(directory: str) -> str:
        # Without subdirectories a trial's records lie under the state directory.
        return directory[directory.rindex(f"{STATE_DIRECTORY}/") :]


def _header(record: dict[str, Any]) -> PlanHeader:
    version = record.pop("version")
    if version > VERSION:
        raise ValueError(version)
    record["options"] = {stage: StageOptions.from_json(item) for stage, item in record["options"].items()}
    record["slots"] = tuple(Slot(**slot) for slot in record["slots"])
    record["gpus"] = None if record["gpus"] is None else GpuWish.from_json(record["gpus"])
    return PlanHeader(**record)


def names(output: Path, plan_ids: Iterable[str]) -> dict[str, Params]:
    """The name of every trial of some plans, and its parameters; of a damaged plan what can be read."""
    found: dict[str, Params] = {}
    for plan_id in plan_ids:
        try:
            with (directory_of(output) / f"{plan_id}.jsonl").open("rb") as file:
                for line in file:
                    if line.startswith(b"["):
                        _, name, _, place, _, _, _, _, params, *_ = json.loads(line)
                        if not place:
                            found[name] = params
        except (OSError, ValueError):  # the daemon says so, when it takes the plan up
            continue
    return found


def newest(output: Path, told: Sequence[str]) -> Plan | None:
    """The last one of the plans `told`, in their order, that is kept and whole; None without one."""
    kept = ids(output)
    for plan_id in reversed([item for item in told if item in kept]):
        try:
            return Plan(output, plan_id, is_shown=True)
        except DamagedPlanError:
            continue
    return None


def latest(output: Path, told: Sequence[str]) -> list[Plan]:
    """The newest plan and those that come from the same word of a user's, the rounds of a search, in their order."""
    last = newest(output, told)
    found: list[Plan] = []
    for plan_id in () if last is None else [item for item in told if item in ids(output)]:
        try:
            plan = Plan(output, plan_id, is_shown=True)
        except DamagedPlanError:
            continue
        if last is not None and plan.header.asked == last.header.asked:
            found.append(plan)
        else:
            plan.close()
    return found


def ids(output: Path) -> set[str]:
    """The plans that are kept."""
    return {path.stem for path in directory_of(output).glob("*.jsonl")}


def clean(output: Path, known: Collection[str]) -> None:
    """Removes what clients left that were killed before they could hand their plan over."""
    folder = directory_of(output)
    for path in folder.iterdir() if folder.is_dir() else ():
        plan_id = path.name.rpartition(".")[0]
        if plan_id not in known and time.time() - path.stat().st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)


def delete(output: Path, plan_id: str) -> None:
    """Removes a plan that nobody needs any more; a directory that stands in its place stays."""
    path = directory_of(output) / f"{plan_id}.jsonl"
    for own in (path.with_suffix(".env"), path):
        if not own.is_dir():
            own.unlink(missing_ok=True)
