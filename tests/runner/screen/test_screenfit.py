"""What of a table of results is shown on a screen that is narrower than it."""

import doctest
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from runner.screen import widths
from runner.screen.widths import Column, Fitted, fit, shortened, taken


def parameter(header: str, *cells: str, is_text: bool = False) -> Column:
    return Column(header, cells, is_parameter=True, is_text=is_text)


def metric(header: str, *cells: str) -> Column:
    return Column(header, cells, is_parameter=False, is_text=False)


def headers(fitted: Fitted) -> list[list[str]]:
    return [[column.header for column, _ in table] for table in fitted.tables]


def cells(fitted: Fitted, header: str) -> Sequence[str]:
    return next(column.cells for table in fitted.tables for column, _ in table if column.header == header)


def test_the_examples_hold() -> None:
    assert doctest.testmod(widths).failed == 0


def test_what_fits_is_left_as_it_is() -> None:
    columns = [parameter("data", "x" * 68, is_text=True), metric("loss", "2.1234")]
    for width in (76, 200):
        assert fit(columns, width) == widths.whole(columns)
    assert fit(columns, 75) != widths.whole(columns)
    assert fit([], 80) == widths.whole([])


def test_the_longest_text_is_shortened_and_numbers_and_metrics_are_not() -> None:
    paths = [f"/home/somebody/experiments/{number}/checkpoints/last.pt" for number in (1, 2)]
    columns = [
        parameter("init_from", *paths, is_text=True),
        parameter("schedule", "cosine_then_constant", "constant", is_text=True),
        parameter("tokens", "1" * 20, "2"),
        metric("loss", "2.1234", "1.1e-05"),
    ]
    found = fit(columns, 80)
    assert not found.left_out
    assert cells(found, "schedule") == columns[1].cells
    assert cells(found, "tokens") == columns[2].cells
    assert cells(found, "loss") == columns[3].cells
    assert cells(found, "init_from") == ("…ents/1/checkpoints/last.pt", "…ents/2/checkpoints/last.pt")
    assert taken(width for _, width in found.tables[0]) == 80


def test_a_long_header_is_folded_before_a_column_goes() -> None:
    columns = [parameter("gradient_accumulation_steps", "1", "2"), metric("loss", "2.1234")]
    ((fitted, other),) = fit(columns, 25).tables
    assert fitted == (columns[0], 17)
    assert other == (columns[1], 6)


def test_the_parameters_go_that_tell_least() -> None:
    columns = [
        parameter("lr", *"111122223333"),
        parameter("warmup", *"444455556666"),  # follows from lr
        parameter("optimizer", *"778877887788"),
        parameter("seed", *"010101010101"),
        metric("loss", *"123456789012"),
    ]
    widest = taken(column.widest for column in columns)
    found = dict.fromkeys(tuple(fit(columns, width).left_out) for width in range(widest, 5, -1))
    assert list(found) == [(), ("warmup",), ("warmup", "seed"), ("warmup", "optimizer", "seed")]
    assert headers(fit(columns, 6)) == [["lr", "loss"]]


def test_of_parameters_that_tell_as_much_the_widest_goes() -> None:
    columns = [parameter(name, *"12") for name in ("lr", "weight_decay", "beta")]
    assert fit([*columns, metric("loss", "1", "2")], 20).left_out == ["weight_decay"]


@pytest.mark.parametrize("width", [40, 80])
def test_metrics_for_which_there_is_no_room_come_in_further_tables(width: int) -> None:
    columns = [parameter("optimizer", "adamw", "sgd"), parameter("learning_rate", "0.1", "0.2")]
    columns += [metric(f"val_{name}_loss", "2.1234", "3.2345") for name in "abcdefghijk"]
    found = fit(columns, width)
    assert len(found.tables) > 1
    assert all(taken(size for _, size in table) <= width for table in found.tables)
    shown = [header for table in headers(found) for header in table if header.startswith("val_")]
    assert shown == [column.header for column in columns[2:]]
    assert {table[0] for table in headers(found)} <= {"optimizer", "learning_rate"}


def test_texts_stay_different_wherever_they_differ() -> None:
    for start, end in [
        ("", "/checkpoints/last.pt"),
        ("output/trials/", ""),
        ("output/trials/", "/checkpoints/last.pt"),
    ]:
        texts = [f"{start}{name}{end}" for name in ("lr_0.1", "lr_0.01", "lr_0.3")]
        found = shortened(texts, 12)
        assert len(set(found)) == 3, found
        assert max(map(cell_len, found)) <= 12


def test_wide_characters_take_two_cells() -> None:
    assert shortened(["数据集/大", "数据集/小"], 6) == ["…集/大", "…集/小"]
    assert shortened(["数据集甲", "乙据集丙"], 5) == ["…集甲", "…集丙"]
    assert shortened(["数据集", "短"], 6) == ["数据集", "短"]


NUMBERS = st.sampled_from(["1", "0.001", "-1.2346e-05", "nan", "·"])
TEXTS = st.text(alphabet="ab_/.0数é", max_size=90)


@st.composite
def tables(draw: st.DrawFn) -> list[Column]:
    count = draw(st.integers(1, 4))
    columns = []
    for place, is_parameter in enumerate(sorted(draw(st.lists(st.booleans(), min_size=1, max_size=14)), reverse=True)):
        is_text = draw(st.booleans())
        kind: Any = TEXTS if is_text else NUMBERS
        values = draw(st.lists(kind, min_size=count, max_size=count))
        columns.append(Column(f"{place}{draw(TEXTS)[:20]}", tuple(values), is_parameter, is_text))
    return columns


@given(tables(), st.integers(30, 120))
def test_every_metric_is_shown_and_nothing_exceeds_the_screen(columns: list[Column], width: int) -> None:
    found = fit(columns, width)
    metrics = [column.header for column in columns if not column.is_parameter]
    parameters = [column.header for column in columns if column.is_parameter and column.header not in found.left_out]
    assert [name for table in headers(found) for name in table if name in metrics] == metrics
    assert all([name for name in table if name not in metrics] == parameters for table in headers(found))
    assert bool(parameters) == any(column.is_parameter for column in columns)
    original = {column.header: column.cells for column in columns}
    for table in found.tables:
        assert taken(size for _, size in table) <= width
        for column, size in table:
            assert max(map(cell_len, column.cells)) <= size
            assert column.is_text or column.cells == original[column.header]
