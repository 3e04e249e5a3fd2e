"""The first document of params.yaml: its keys, what each may be, and what they say of each stage."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from runner import arithmetic
from runner.errors import did_you_mean
from runner.gather import ALL, needed
from runner.gpus.devices import is_gpu
from runner.halving import Rule
from runner.model import LOCAL
from runner.options import GRACE_S, Retry, StageOptions, mib, seconds
from runner.triage import CauseKind
from runner.values import check_scalar, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.yamlfile import KeyPath

_PERCENT = re.compile(r"\s*(\d{1,3})\s*%\s*", re.ASCII)
RESOURCES = (
    "is no resource; allowed: auto, a list of GPUs such as [0, 1] or ['0,1', '2,3'], {cpu: 4}, "
    "or conditions such as {name: A100, min_free_vram: 20GiB}"
)


def _resource_item(value: Any) -> Any:
    parts = [part.strip() for part in str(value).split(",")]
    if isinstance(value, bool) or not isinstance(value, int | str) or not all(map(is_gpu, parts)):
        raise ValueError('must be a GPU (0, or GPU-…) or several for one trial ("0,1"); for CPU slots: {cpu: 4}')
    return ",".join(parts)


def _cause(value: Any) -> Any:
    causes = [kind.value for kind in CauseKind]
    if value not in causes:
        raise ValueError(f"is no cause.{did_you_mean(str(value), causes)} Allowed: {', '.join(causes)}")
    return value


def _times(value: Any) -> Any:
    if type(value) is int:
        return {"times": value}
    if not isinstance(value, dict):
        raise ValueError(
            "is no number of retries; allowed: a whole number, or a mapping with `times`, `delay` and `on`"
        )
    return value


def _arithmetic(value: Any) -> Any:
    arithmetic.parse(str(value))
    return str(value)


def _percent(value: Any) -> Any:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    number = int(match[1]) if match else value
    if type(number) is not int or not 0 <= number <= 100:
        raise ValueError("is no share; allowed: a percentage from 0% to 100%")
    return number


def _need(value: Any) -> Any:
    needed(value, 1)
    return value


Scalar = Annotated[Any, BeforeValidator(check_scalar)]
Case = Annotated[dict[str, Scalar], Field(min_length=1)]
Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=float | str)]


def _limit(value: Any) -> Any:
    found = seconds(value)
    if found == 0:
        raise ValueError("would end every attempt at once; allowed: a time above 0, or null for no limit")
    return found


Limit = Annotated[float, BeforeValidator(_limit, json_schema_input_type=float | str)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RetrySpec(_Strict):
    """`retry: 2`, or with a pause and for named causes alone."""

    times: NonNegativeInt = 1
    delay: Seconds = 0.0
    on: list[Annotated[str, BeforeValidator(_cause)]] = []


def _part(value: Any) -> Any:
    try:
        return float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError):
        raise ValueError("is no part; allowed: a number between 0 and 1, such as 1/3") from None


class PruneSpec(_Strict):
    """At each of these steps only a part of the trials goes on: those that are best so far."""

    rungs: Annotated[list[PositiveInt], Field(min_length=1)]
    keep: Annotated[float, BeforeValidator(_part, json_schema_input_type=float | str), Field(gt=0, lt=1)] = 1 / 3
    metric: str = "loss"
    maximize: bool = False

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: list[int]) -> list[int]:
        if rungs != sorted(set(rungs)):
            raise ValueError("are no rungs; allowed: steps that rise")
        return rungs

    def rule(self) -> Rule:
        """The same as a rule."""
        return Rule(tuple(self.rungs), self.keep, self.metric, self.maximize)


def _executors(value: Any) -> Any:
    """Each executor that is named, with what it is told."""
    if isinstance(value, str):
        return {value: {}}
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError("is no executor; allowed: a name such as local or slurm, or {slurm: {time: 4h}}")
    return {name: {} if told is None else told for name, told in value.items()}


Executors = Annotated[
    dict[str, dict[str, Any]],
    BeforeValidator(_executors, json_schema_input_type=str | dict[str, dict[str, Any] | None]),
]


class StageKeys(_Strict):
    """The options of a stage; those under `stage` hold for every stage that does not say otherwise."""

    timeout: Limit | None = None
    retry: Annotated[RetrySpec, BeforeValidator(_times, json_schema_input_type=int | RetrySpec)] = RetrySpec(times=0)
    grace: Seconds = GRACE_S
    stall: Limit | None = None
    stagger: Seconds = 0.0
    env: dict[str, Scalar] = {}
    cwd: str | None = None
    gpus: NonNegativeInt | None = None
    per_gpu: PositiveInt | Literal["auto"] = 1
    vram_by: list[str] = []
    cpus: PositiveInt | None = None
    on_oom: dict[str, Annotated[str, BeforeValidator(_arithmetic, json_schema_input_type=str)]] = {}
    keep: dict[str, NonNegativeInt] = {}
    prune: PruneSpec | None = None
    executor: Executors | None = None


class StageSpec(StageKeys):
    """A stage written as a mapping."""

    cmd: str


class GatherSpec(StageKeys):
    """A stage that runs once over many trials, or once for each group of them."""

    cmd: str
    of: str | Annotated[list[str], Field(min_length=1)]
    where: dict[str, Scalar | list[Scalar]] = {}
    by: list[str] = []
    need: Annotated[int | str, BeforeValidator(_need)] = ALL


class ResourceKeys(_Strict):
    """`resource: {cpu: N}`: N slots, whatever the number of cores; the rest: every GPU that fulfils all of it.

    Both: the CPU slots are for stages without a GPU.
    """

    cpu: PositiveInt | None = None
    name: Annotated[str, Field(min_length=1)] | None = None
    min_free_vram: Annotated[int, BeforeValidator(mib, json_schema_input_type=str)] | None = None
    max_util: Annotated[int, BeforeValidator(_percent, json_schema_input_type=int | str)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ResourceKeys:
        if not self.model_fields_set:
            raise ValueError(RESOURCES)
        return self

    @property
    def has_gpus(self) -> bool:
        """Whether GPUs are asked for."""
        return bool(self.model_fields_set - {"cpu"})


class NotifySpec(_Strict):
    """Whom to tell when a sweep ends or pauses itself, or the first failure comes."""

    cmd: str | None = None
    url: str | None = None
    on: Annotated[list[Literal["sweep-ended", "paused", "first-failure"]], Field(min_length=1)] = [
        "sweep-ended",
        "paused",
        "first-failure",
    ]


class Header(_Strict):
    """The first document of params.yaml."""

    template: Annotated[dict[str, str | StageSpec], Field(min_length=1)]
    stage: StageKeys = StageKeys()
    default: dict[str, Scalar] = {}
    alias: dict[str, Annotated[dict[str, Case], Field(min_length=1)]] = {}
    resource: (
        Literal["auto"]
        | ResourceKeys
        | Annotated[list[Annotated[str, BeforeValidator(_resource_item)]], Field(min_length=1)]
    ) = "auto"
    order: Literal["depth", "breadth"] = "depth"
    fail_fast: PositiveInt | None = None
    notify: NotifySpec | None = None
    gather: dict[str, GatherSpec] = {}
    snapshot: bool = False
    executor: Executors = {LOCAL: {}}

    def options(self, stage: str) -> StageOptions:
        """The options of a stage or a gather: its own ones, then those of all stages."""
        spec = self.template.get(stage) or self.gather[stage]
        given = self.stage if isinstance(spec, str) else _merged(self.stage, spec)
        if stage in self.gather:  # it has no parameters to lower, and no other trials to fall behind
            given = given.model_copy(update={"on_oom": {}, "prune": None})
        return StageOptions(
            timeout_s=given.timeout,
            retry=Retry(given.retry.times, given.retry.delay, tuple(given.retry.on)),
            grace_s=given.grace,
            stall_s=given.stall,
            stagger_s=given.stagger,
            env={name: text_of(value) for name, value in given.env.items()},
            cwd=given.cwd,
            gpus=given.gpus,
            per_gpu=None if given.per_gpu == "auto" else given.per_gpu,
            vram_by=tuple(given.vram_by),
            cpus=given.cpus,
            on_oom=dict(given.on_oom),
            keep=dict(given.keep),
            prune=None if given.prune is None else given.prune.rule(),
        )

    def executor_of(self, stage: str, wanted: str | None) -> tuple[str, dict[str, Any]]:
        """The executor of a stage or a gather, and what it is told: for all stages, and for this one.

        The first one that is named counts, unless another is `wanted`; a stage that names others keeps to those, but
        for this machine, which can run all.
        """
        spec = self.template.get(stage) or self.gather[stage]
        own = (None if isinstance(spec, str) else spec.executor) or self.stage.executor or {}
        name = wanted or next(iter(self.executor))
        if own and name not in own and (wanted is None or wanted != LOCAL):
            name = next(iter(own))
        return name, {**self.executor.get(name, {}), **own.get(name, {})}

    def option_blocks(self) -> Iterable[tuple[KeyPath, StageKeys]]:
        """Where options may stand, and what stands there."""
        yield ("stage",), self.stage
        for stage, spec in self.template.items():
            if isinstance(spec, StageSpec):
                yield ("template", stage), spec
        for name, gather in self.gather.items():
            yield ("gather", name), gather


Resource: TypeAlias = Literal["auto"] | ResourceKeys | list[str]


def _merged(general: StageKeys, own: StageKeys) -> StageKeys:
    said = {name: getattr(own, name) for name in own.model_fields_set & StageKeys.model_fields.keys()}
    if "env" in said:
        said["env"] = {**general.env, **said["env"]}
    return general.model_copy(update=said)
