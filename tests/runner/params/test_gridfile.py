"""Grid documents of params.yaml, read here a second time, the plain way, and compared."""

from __future__ import annotations

import json
import math
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from runner import config
from runner.errors import InputError
from runner.subcommands.schema import schema
from runner.trials import drafts

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.config import Config
    from runner.grid import Sweep
    from runner.values import Params, Value

    Read = Callable[..., Config]


property_test = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])

TEXTS = st.text(alphabet="ab,1- :'\"#{}[]é", max_size=5)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.sampled_from([0.5, -0.0, 1.0, 1e-5]), TEXTS)
ALIASES: dict[str, dict[str, Params]] = {
    "size": {"tiny": {"layers": 1, "width": 48}, "small": {"layers": 2, "width": 96}},
    "1": {"0": {"flag": True}, "True": {"flag": False}},
}
CASES: dict[str, list[Value]] = {"size": ["tiny", "small"], "1": [0, True, "0"]}
KEYS = ["a", "b", "c.d", "lr", "N_1", "x-y", *CASES]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Reads a file of a header and grid documents; they are written as JSON, which is YAML."""
    path = tmp_path_factory.mktemp("grid") / "params.yaml"

    def read_documents(*grids: dict[str, Any] | str, **header: Any) -> Config:
        documents = [json.dumps({"template": {"go": "true"}, **header}, ensure_ascii=False)]
        documents += [grid if isinstance(grid, str) else json.dumps(grid, ensure_ascii=False) for grid in grids]
        path.write_text("\n---\n".join(documents), encoding="utf-8")
        return config.load(path)

    return read_documents


@pytest.fixture(scope="module")
def one(read: Read) -> Callable[[str], Sweep]:
    """Reads a file of one grid."""
    return lambda text: read(text).sweeps[0]


# --- a random document, and the plain reading of it ---


@st.composite
def value_lists(draw: st.DrawFn, key: str) -> Any:
    """What may stand behind a parameter: a value, a list, a range."""
    scalars = st.sampled_from(CASES[key]) if key in CASES else VALUES
    kind = draw(st.sampled_from(["value", "list", "list", "range"]))
    if kind == "value":
        return draw(scalars)
    if kind == "list" or key in CASES:
        return draw(st.lists(scalars, min_size=1, max_size=3))
    start, count, step = draw(st.integers(-3, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, -1, -3]))
    bounds = [start, start + count * step]
    return {"_range": bounds if step == 1 else [*bounds, step]}


@st.composite
def zips(draw: st.DrawFn, keys: list[str]) -> dict[str, Any]:
    """Parameters with lists of one length."""
    length = draw(st.integers(1, 3))
    lists = {
        key: st.lists(st.sampled_from(CASES.get(key, ["u", 1, 2.5])), min_size=length, max_size=length) for key in keys
    }
    columns: dict[str, Any] = {key: draw(values) for key, values in lists.items()}
    if draw(st.booleans()) and keys[0] not in CASES:
        columns[keys[0]] = {"_range": [0, length]}
    return columns


@st.composite
def grids(draw: st.DrawFn, keys: tuple[str, ...] = tuple(KEYS), depth: int = 2) -> dict[str, Any]:
    """A grid document; `keys` are those that it may still set."""
    free = list(draw(st.permutations(keys)))
    document: dict[str, Any] = {}
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["plain", "plain", "zip", "LIST"]))
        if kind == "plain" and free:
            key = free.pop()
            document[key] = draw(value_lists(key))
        elif kind == "zip" and len(free) >= 3 and "_zip" not in document:
            first = draw(zips([free.pop(), free.pop()]))
            document["_zip"] = draw(st.sampled_from([first, [first], [first, draw(zips([free.pop()]))]]))
        elif kind == "LIST" and depth and len(free) >= 2:
            branch = grids(tuple(free.pop() for _ in range(min(3, len(free)))), depth - 1)
            document[f"LIST{draw(st.sampled_from(['', '_x']))}{number}"] = draw(
                st.lists(branch, min_size=1, max_size=3)
            )
    return document


def leaves(document: dict[str, Any]) -> list[str]:
    """The parameters that a document names anywhere."""
    found: list[str] = []
    for key, value in document.items():
        if key == "_zip":
            found += [name for columns in (value if isinstance(value, list) else [value]) for name in columns]
        elif key.startswith("LIST"):
            found += [name for branch in value for name in leaves(branch)]
        else:
            found.append(key)
    return found


@st.composite
def excluding(draw: st.DrawFn) -> dict[str, Any]:
    """A grid document with patterns of what is left out."""
    document = draw(grids())
    names = sorted(set(leaves(document)))
    if names:
        keys = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
        patterns = [{key: draw(value_lists(key)) for key in draw(keys)} for _ in range(draw(st.integers(0, 2)))]
        if patterns:
            document["_exclude"] = patterns[0] if len(patterns) == 1 and draw(st.booleans()) else patterns
    return document


def plain_values(value: Any) -> list[Value]:
    """The values that stand behind a parameter, one by one."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return [value]
    start, end, step = (*value["_range"], 1)[:3]
    found: list[Value] = []
    while (start < end) if step > 0 else (start > end):
        found.append(start)
        start += step
    return found


def plain_grid(document: dict[str, Any]) -> list[Params]:
    """Every combination, the last axis fastest, whether excluded or not."""
    found: list[Params] = [{}]
    for key, value in document.items():
        if key == "_exclude":
            continue
        factors: list[list[Params]] = []
        if key == "_zip":
            for columns in value if isinstance(value, list) else [value]:
                lists = {name: plain_values(given) for name, given in columns.items()}
                length = len(next(iter(lists.values())))
                factors.append([{name: values[row] for name, values in lists.items()} for row in range(length)])
        elif key.startswith("LIST"):
            factors.append([combination for branch in value for combination in plain_grid(branch)])
        else:
            factors.append([{key: item} for item in plain_values(value)])
        for factor in factors:
            found = [{**head, **tail} for head in found for tail in factor]
    return found


def told(params: Params) -> list[tuple[str, type, str]]:
    """Parameters in a form that tells 1 from 1.0 and true, and -0.0 from 0.0."""
    return [(key, type(value), repr(value)) for key, value in params.items()]


def is_left_out(params: Params, pattern: dict[str, Any]) -> bool:
    """Whether a combination has what the pattern says."""
    typed = {key: (kind, text) for key, kind, text in told(params)}
    return all(
        key in typed and typed[key] in [(type(item), repr(item)) for item in plain_values(values)]
        for key, values in pattern.items()
    )


def plain_sweep(document: dict[str, Any]) -> list[Params]:
    """Every combination that is not excluded."""
    given = document.get("_exclude", [])
    patterns = given if isinstance(given, list) else [given]
    return [params for params in plain_grid(document) if not any(is_left_out(params, item) for item in patterns)]


# --- grids ---


@property_test
@given(document=excluding())
def test_a_grid_is_what_the_plain_reading_of_its_document_says(read: Read, document: dict[str, Any]) -> None:
    sweep = read(document, alias=ALIASES).sweeps[0]
    expected = [told(params) for params in plain_sweep(document)]
    assert [told(params) for params in sweep.combinations()] == expected
    assert sweep.count() == len(expected)


@property_test
@given(document=grids())
def test_a_grid_can_be_indexed(read: Read, document: dict[str, Any]) -> None:
    grid = read(document, alias=ALIASES).sweeps[0].grid
    everything = [told(params) for params in plain_grid(document)]
    assert grid.size == len(everything)
    assert [told(grid[index]) for index in range(grid.size)] == everything
    for beyond in (grid.size, -1):
        with pytest.raises(IndexError):
            grid[beyond]


@property_test
@given(document=grids(), data=st.data())
def test_defaults_and_aliases_fill_a_combination(read: Read, document: dict[str, Any], data: st.DataObject) -> None:
    names = ["a", "lr", "layers", "flag", "other"]
    default = {key: data.draw(VALUES) for key in data.draw(st.lists(st.sampled_from(names), unique=True))}
    default |= {key: data.draw(st.sampled_from(CASES[key])) for key in CASES if data.draw(st.booleans())}
    whole = read(document, alias=ALIASES, default=default)
    for combination in whole.sweeps[0].combinations():
        expected: Params = {key: value for key, value in default.items() if key not in ALIASES}
        for layer in (default, combination):
            for key, value in layer.items():
                if key in ALIASES:
                    expected |= ALIASES[key][str(value)]
                elif layer is combination:
                    expected[key] = value
        assert sorted(told(whole.settings.resolve(combination))) == sorted(told(expected))


@property_test
@given(document=excluding())
def test_a_document_that_is_read_fits_the_schema(read: Read, document: dict[str, Any]) -> None:
    read(document, alias=ALIASES)
    Draft202012Validator(schema()).validate(document)


@property_test
@given(
    documents=st.lists(excluding(), min_size=1, max_size=3),
    stages=st.lists(st.sampled_from([None, "x", "y", ["y", "x"]]), min_size=3, max_size=3),
)
def test_a_file_is_each_combination_once_with_the_stages_of_all_grids(
    read: Read, documents: list[dict[str, Any]], stages: list[Any]
) -> None:
    asked = [
        document if cmd is None else {**document, "_cmd": cmd} for document, cmd in zip(documents, stages, strict=False)
    ]
    default = {"size": "tiny", "a": 0, "b": None}
    whole = read(*asked, alias=ALIASES, default=default, template={"x": "true", "y": "true"})
    expected: dict[str, set[str]] = {}
    for document, cmd in zip(documents, stages, strict=False):
        for combination in plain_sweep(document):
            key = str(sorted(told(whole.settings.resolve(combination))))
            expected.setdefault(key, set()).update({"x", "y"} if cmd is None else cmd)
    found = list(drafts(whole, {}))
    assert [str(sorted(told(draft.params))) for draft in found] == list(expected)
    assert [draft.stages for draft in found] == [tuple(sorted(names)) for names in expected.values()]
    assert len({draft.trial_id for draft in found}) == len({draft.preferred_name for draft in found}) == len(found)


def test_strings_with_commas_stay_one_string(one: Callable[[str], Sweep]) -> None:
    sweep = one('gpus: "0,1"\nlayers: ["1,2", 3]\n_zip: {a: [x, "y,z"], b: ["[1, 2]", "{c: d}"]}')
    assert [list(params.values()) for params in sweep.combinations()] == [
        ["0,1", layers, a, b] for layers in ("1,2", 3) for a, b in (("x", "[1, 2]"), ("y,z", "{c: d}"))
    ]


# --- ranges ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{_range: [0, 3]}", [0, 1, 2]),
        ("{_range: [2, 9, 3]}", [2, 5, 8]),
        ("{_range: [3, 0, -1]}", [3, 2, 1]),
        ("{_range: [5, -5, -4]}", [5, 1, -3]),
        ("{_range: [0, 1, 0.1]}", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("{_range: [0.3, 0, -0.1]}", [0.3, 0.2, 0.1]),
        ("{_range: [1e-3, 4e-3, 1e-3]}", [0.001, 0.002, 0.003]),
        ("{_range: [0.5, 3]}", [0.5, 1.5, 2.5]),
        ("{_range: [0, 0.25, 0.1]}", [0.0, 0.1, 0.2]),
        ("{_linspace: [0, 1, 5]}", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("{_linspace: [0, 1, 11]}", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("{_linspace: [1, -1, 3]}", [1.0, 0.0, -1.0]),
        ("{_linspace: [2, 5, 1]}", [2.0]),
        ("{_logspace: [1e-4, 1e-1, 4]}", [1e-4, 1e-3, 1e-2, 1e-1]),
        ("{_logspace: [1, 1e-5, 6]}", [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5]),
        ("{_logspace: [1, 1024, 11]}", [float(2**power) for power in range(11)]),
        ("{_logspace: [3e-4, 1, 1]}", [3e-4]),
    ],
)
def test_a_range_is_its_values_as_one_would_write_them(
    text: str, expected: list[Value], one: Callable[[str], Sweep]
) -> None:
    found = [params["x"] for params in one(f"x: {text}").combinations()]
    assert [(type(value), repr(value)) for value in found] == [(type(value), repr(value)) for value in expected]


@property_test
@given(
    start=st.decimals(-20, 20, places=3),
    step=st.decimals(-3, 3, places=3).filter(lambda item: abs(item) >= Decimal("0.01")),
    count=st.integers(1, 30),
)
def test_a_range_of_decimals_is_exact_and_leaves_its_end_out(
    read: Read, start: Decimal, step: Decimal, count: int
) -> None:
    end = start + count * step
    grid = read(f"x: {{_range: [{start}, {end}, {step}]}}").sweeps[0]
    assert [params["x"] for params in grid.combinations()] == [float(start + n * step) for n in range(count)]


@property_test
@given(first=st.integers(-50, 50), last=st.integers(-50, 50), count=st.integers(2, 40))
def test_linspace_and_logspace_have_both_ends_and_their_count(read: Read, first: int, last: int, count: int) -> None:
    sweeps = read(
        f"x: {{_linspace: [{first}, {last}, {count}]}}", f"x: {{_logspace: [1e{first}, 1e{last}, {count}]}}"
    ).sweeps
    line, log = ([float(str(params["x"])) for params in sweep.combinations()] for sweep in sweeps)
    assert len(line) == len(log) == count
    assert (line[0], line[-1]) == (first, last)
    assert (log[0], log[-1]) == (float(f"1e{first}"), float(f"1e{last}"))
    for n, (lin, exp) in enumerate(zip(line, log, strict=True)):
        place = first + (last - first) * n / (count - 1)
        assert math.isclose(lin, place, rel_tol=1e-10, abs_tol=1e-10)
        assert math.isclose(math.log10(exp), place, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("kind", ["_linspace", "_logspace"])
@pytest.mark.parametrize(
    "ends", ["0.12345678901234567, 0.9", "1, 3.3333333333333335", "2.718281828459045, 2.718281828459045"]
)
def test_the_ends_of_a_space_are_the_numbers_that_were_written(
    kind: str, ends: str, one: Callable[[str], Sweep]
) -> None:
    found = [params["x"] for params in one(f"x: {{{kind}: [{ends}, 3]}}").combinations()]
    assert [found[0], found[-1]] == [float(end) for end in ends.split(", ")]


@pytest.mark.parametrize(
    "text",
    [
        "{_logspace: [1e-200, 1e+200, 3]}",
        "{_linspace: [-1e+308, 1e+308, 3]}",
        "{_linspace: [0, 1e+308, 9]}",
        "{_logspace: [1e+200, 1e-200, 3]}",
    ],
)
def test_a_space_of_finite_ends_holds_finite_values(text: str, one: Callable[[str], Sweep]) -> None:
    found = [float(str(params["x"])) for params in one(f"x: {text}").combinations()]
    assert all(map(math.isfinite, found))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("_range", "1" + "0" * 400),
        pytest.param("_linspace", "1" + "0" * 400),
        pytest.param("_logspace", "1" + "0" * 400),
        pytest.param("_range", "0x1" + "0" * 4000),
        pytest.param("_linspace", "0x1" + "0" * 4000),
        pytest.param("_logspace", "0x1" + "0" * 4000),
    ],
    ids=["range", "linspace", "logspace", "range too long", "linspace too long", "logspace too long"],
)
def test_a_number_beyond_all_floats_is_refused_with_a_message(
    kind: str, number: str, one: Callable[[str], Sweep]
) -> None:
    with pytest.raises(InputError, match=f"params.yaml, line 3, x.{kind}"):
        one(f"x: {{{kind}: [1, {number}, 3]}}")


def test_a_range_is_refused_for_its_number_of_values_alone(one: Callable[[str], Sweep]) -> None:
    assert one(f"x: {{_range: [0, {10**20}, {10**18}]}}").count() == 100
    with pytest.raises(InputError, match="has more than"):
        one(f"x: {{_range: [0, {10**20}]}}")


def test_huge_ranges_are_counted_without_being_built(one: Callable[[str], Sweep]) -> None:
    text = "\n".join(f"x{number}: {{_range: [0, 1_000_000_000_000_000]}}" for number in range(4))
    sweep = one(text)
    assert sweep.count() == 10**60
    assert sweep.grid[10**60 - 1] == dict.fromkeys(("x0", "x1", "x2", "x3"), 10**15 - 1)
    assert next(sweep.combinations()) == {"x0": 0, "x1": 0, "x2": 0, "x3": 0}
    assert not sweep.grid.repeats()


def test_huge_ranges_in_zips_and_unions_are_counted_too(one: Callable[[str], Sweep]) -> None:
    sweep = one(
        "_zip: {a: {_range: [0, 1000000000000]}, b: {_range: [1000000000000, 0, -1]}}\n"
        "LIST: [{c: {_range: [0, 99]}}, {}]"
    )
    assert sweep.count() == 10**14
    assert sweep.grid[150] == {"a": 1, "b": 10**12 - 1, "c": 50}
    assert sweep.grid[10**14 - 1] == {"a": 10**12 - 1, "b": 1}


# --- sampling ---


@property_test
@given(document=excluding(), size=st.integers(1, 12), more=st.integers(0, 8), seed=st.integers(0, 3))
def test_a_sample_is_part_of_the_grid(read: Read, document: dict[str, Any], size: int, more: int, seed: int) -> None:
    sweep = read(document, alias=ALIASES).sweeps[0]
    allowed = [str(told(params)) for params in plain_sweep(document)]

    def sample(count: int) -> list[str]:
        return [str(told(params)) for params in sweep.sample(count, seed)]

    few = sample(size)
    assert few == sample(size)
    assert len(few) == min(size, len(allowed))
    # A value that the document says twice may come twice, but no place of the grid does.
    assert Counter(few) <= Counter(sample(size + more)) <= Counter(allowed)
    assert sample(len(allowed) + 1) == allowed
    rest = iter(allowed)
    assert all(item in rest for item in few), "not in the grid's order"


def test_another_seed_draws_another_sample(one: Callable[[str], Sweep]) -> None:
    sweep = one("a: {_range: [0, 100]}\nb: {_range: [0, 100]}")
    drawn = {str(list(sweep.sample(10, seed))) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("places", [5, 6, 30])
def test_a_sample_of_a_large_grid_costs_what_it_draws(places: int, one: Callable[[str], Sweep]) -> None:
    text = "\n".join(f"x{number}: {{_range: [0, 10]}}" for number in range(places))
    sweep = one(f"{text}\n_exclude: [{{x0: {{_range: [0, 5]}}}}]") if places == 6 else one(text)
    drawn = [tuple(params.items()) for params in sweep.sample(300, 1)]
    assert len(set(drawn)) == 300
    assert drawn == sorted(drawn)
    assert set(drawn) <= {tuple(params.items()) for params in sweep.sample(500, 1)}
    assert {value for _, value in {item[0] for item in drawn}} == set(range(5 if places == 6 else 0, 10))
    assert drawn == [tuple(params.items()) for params in sweep.sample(300, 1)]


def test_a_sample_finds_the_few_that_are_not_excluded(one: Callable[[str], Sweep]) -> None:
    sweep = one("a: {_range: [0, 300]}\nb: {_range: [0, 500]}\n_exclude: {a: {_range: [1, 300]}}")
    assert list(sweep.sample(501, 0)) == list(sweep.combinations())
    assert len(list(sweep.sample(500, 0))) == 500
