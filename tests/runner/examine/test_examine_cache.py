"""The caches behind the wide table and the curves: nothing is read twice, and nothing is stale."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runner.examine import (
    cache,
    curvecache,
    curves,
    scan,
    tidy,
    wide_table,
)
from tests.runner.examine.made import ROWS, age, attempts


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that were read."""
    found: list[str] = []
    content = scan._content

    def noted(directory: str, name: str, numbers: list[int]) -> bytes | None:
        found.append(name)
        return content(directory, name, numbers)

    monkeypatch.setattr(scan, "_content", noted)
    return found


@pytest.fixture
def three(make_trial: Any, output: Path) -> Path:
    for number in range(3):
        make_trial(f"t{number}", {"x": number}, {"metrics.csv": ROWS, "attempts": attempts()})
    age(output)
    return output


def test_what_did_not_change_is_not_read_twice(three: Path, read: list[str]) -> None:
    first = wide_table(three)
    assert len(read) == 12
    read.clear()
    pd.testing.assert_frame_equal(wide_table(three), first)
    assert read == []
    cache._latest = None  # as in another process
    pd.testing.assert_frame_equal(wide_table(three), first)
    assert read == []


def test_a_table_is_its_callers_own(three: Path) -> None:
    wide_table(three)
    first, second = (wide_table(three, concise=False) for _ in range(2))
    first["x"] = 0
    first.attrs["parameters"].clear()
    assert second["x"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(wide_table(three, concise=False), second)
    assert wide_table(three, concise=False).attrs == second.attrs
    assert wide_table(three, maximize=["loss"])["loss_best"].tolist() == [5, 5, 5]
    assert wide_table(three, regex="1", concise=False)["x"].tolist() == [1]


def test_what_changed_is_read_again(three: Path, read: list[str]) -> None:
    wide_table(three)
    read.clear()
    with (three / "t1" / "metrics.csv").open("a") as file:
        file.write("4,0.1,1,0.9\n")
    (three / "t2" / "eval_test.json").write_text('{"loss": 7}')
    (three / "t0" / "stat").write_text("train: running \n")
    frame = wide_table(three)
    assert frame["loss"].tolist() == [4, 1, 4]
    assert frame["test_loss"].tolist()[2] == 7
    assert frame["state"].tolist() == ["running", "finished", "finished"]


def test_a_change_within_the_clocks_tick_is_seen(three: Path) -> None:
    now = time.time()
    path = three / "t1" / "stat"
    os.utime(path, (now, now))
    assert wide_table(three)["state"].tolist() == ["finished"] * 3
    path.write_text("train: running \n")  # the same size
    os.utime(path, (now, now))
    assert wide_table(three).loc["t1", "state"] == "running"


def test_the_cache_may_be_deleted_damaged_or_copied(three: Path, tmp_path: Path, read: list[str]) -> None:
    first = wide_table(three)
    file = three / ".runner" / "results.cache"
    whole = file.read_bytes()
    for content in (
        None,
        b"",
        whole[:-10],
        whole.replace(b"finished", b"failed  "),
        b"results 99 0 0\n{}",
        b"\xff" * 9,
    ):
        file.unlink() if content is None else file.write_bytes(content)
        pd.testing.assert_frame_equal(wide_table(three), first)
    assert file.read_bytes() == whole
    copy = tmp_path / "elsewhere" / "output"
    shutil.copytree(three, copy)  # keeps the times, as rsync -a does
    cache._latest = None
    read.clear()
    pd.testing.assert_frame_equal(wide_table(copy), first)
    assert read == []


def test_trials_come_and_go(three: Path, make_trial: Any) -> None:
    wide_table(three)
    shutil.rmtree(three / "t1")
    make_trial("t7", {"x": 7}, {"metrics.csv": ROWS})
    assert wide_table(three)["x"].tolist() == [0, 2, 7]
    assert wide_table(three, regex="7")["loss"].tolist() == [4]


def test_values_that_json_would_change_keep_their_types(make_trial: Any, output: Path) -> None:
    make_trial("a", "x: !!python/tuple [1, 2]\n1: y\n")
    make_trial("b", "x: 1e-3\n1: z\n")
    age(output)
    for _ in range(2):
        frame = wide_table(output)
        assert frame["x"].tolist() == [(1, 2), 0.001]
        assert list(frame.columns)[:2] == [1, "x"]


def test_an_output_that_can_not_be_written_has_no_cache(three: Path) -> None:
    (three / ".runner").write_text("in the way")
    assert len(wide_table(three)) == len(wide_table(three)) == 3


def test_readers_at_once_leave_a_whole_cache(three: Path) -> None:
    before = cache.load(three)
    wide_table(three)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for _ in range(20):
                    (three / ".runner" / "results.cache").unlink(missing_ok=True)
                    cache._latest = None
                    assert len(wide_table(three)) == 3
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert len(before) == 0
    assert [path.name for path in (three / ".runner").iterdir()] == ["results.cache"]
    cache._latest = None
    assert cache.load(three).names == ["t0", "t1", "t2"]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the trials whose curves were read from their own files."""
    found: list[str] = []
    content, slowly = tidy._content, tidy._slowly

    def noted(directory: Path, source: str) -> bytes:
        found.append(directory.name)
        return content(directory, source)

    def noted_slowly(directory: Path, source: str) -> pd.DataFrame | None:
        found.append(directory.name)
        return slowly(directory, source)

    monkeypatch.setattr(tidy, "_content", noted)
    monkeypatch.setattr(tidy, "_slowly", noted_slowly)
    return found


@pytest.fixture
def mixed(make_trial: Any, output: Path) -> Path:
    """Trials with curves of every kind: plain, with steps that are not whole, with text, without a step, none."""
    contents = {"plain": ROWS, "same": ROWS, "half": "step,loss\n0.5,1\n1.5,2\n", "text": ROWS.replace("0.2", "x")}
    contents |= {"note": "step,loss,note\n1,2,a\n2,3,b\n", "stepless": "loss\n3\n2\n", "empty": "step,loss\n"}
    for number, (name, content) in enumerate(contents.items()):
        make_trial(name, {"x": number}, {"metrics.csv": content})
    make_trial("json", {"x": 8}, {"metrics.jsonl": '{"step": 1, "loss": 3}\n{"step": 2, "loss": 2.5, "more": 1}\n'})
    make_trial("none", {"x": 9})
    age(output)
    return output


@pytest.mark.parametrize("columns", [None, ["loss"], ["accuracy", "more"], ["none"]])
def test_curves_that_did_not_change_are_not_read_twice(mixed: Path, parsed: list[str], columns: list[str]) -> None:
    wanted = curves(mixed, columns, use_cache=False)
    pd.testing.assert_frame_equal(curves(mixed, columns), wanted)
    parsed.clear()
    pd.testing.assert_frame_equal(curves(mixed, columns), wanted)
    # Text is no column of numbers: such a file is read each time.
    assert set(parsed) == {"note"}
    pd.testing.assert_frame_equal(curves(mixed), curves(mixed, use_cache=False))
    series: Any = wide_table(mixed, series=["loss"])["loss_curve"]
    assert series["half"].to_dict() == {0.5: 1, 1.5: 2}


def test_curves_that_changed_are_read_again(three: Path, make_trial: Any, parsed: list[str]) -> None:
    curves(three)
    shutil.rmtree(three / "t0")
    (three / "t1" / "metrics.csv").write_text(ROWS + "4,0.1,1,0.9\n")
    make_trial("t3", {"x": 3}, {"metrics.csv": ROWS})
    age(three / "t3")
    parsed.clear()
    frame = curves(three, ["loss"])
    assert sorted(parsed) == ["t1", "t3"]
    assert frame["trial"].astype(str).tolist() == ["t1"] * 4 + ["t2"] * 3 + ["t3"] * 3
    assert frame["loss"].tolist() == [5, 3, 4, 1] + [5, 3, 4] * 2
    parsed.clear()
    # What was written just now may change again unnoticed; the others are in the cache, the deleted one is not.
    assert len(curves(three)) == 10
    assert parsed == ["t1"]
    assert b'"t0"' not in (three / ".runner" / "curves.cache").read_bytes()


def test_a_part_of_the_trials_leaves_the_cache_of_the_others(three: Path, parsed: list[str]) -> None:
    curves(three, regex="t[01]")
    curves(three, regex="t2")
    parsed.clear()
    assert len(curves(three)) == 9
    assert parsed == []


def test_the_cache_of_curves_may_be_deleted_damaged_or_copied(three: Path, tmp_path: Path, parsed: list[str]) -> None:
    first = curves(three)
    file = three / ".runner" / "curves.cache"
    whole = file.read_bytes()
    line, rest = whole.split(b"\n", 1)
    damaged = [b"", whole[:-8], whole[:-1] + b"\1", line + b"\n" + rest.replace(b"t1", b"t9", 1), b"\xff" * 99]
    damaged += [b"curves 99 0 0\n", line[:8] + b"\n" + rest, whole.replace(b"float64", b"int64  ")]
    for content in (None, *damaged):
        file.unlink() if content is None else file.write_bytes(content)
        pd.testing.assert_frame_equal(curves(three), first)
        assert file.read_bytes() == whole
    copy = tmp_path / "elsewhere" / "output"
    shutil.copytree(three, copy)
    parsed.clear()
    pd.testing.assert_frame_equal(curves(copy), first)
    assert parsed == []


def test_curves_are_their_callers_own(three: Path) -> None:
    wanted = curves(three)
    for _ in range(2):
        frame = curves(three)
        pd.testing.assert_frame_equal(frame, wanted)
        frame.loc[0, "loss"] = frame.loc[0, "step"] = 99
        frame["accuracy"] *= 2


def test_curves_above_the_limit_are_read_each_time(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvecache, "BYTES_MAX", 3 * 3 * 4 * 8 - 1)
    assert len(curves(three)) == len(curves(three)) == 9
    assert not (three / ".runner" / "curves.cache").exists()


# --- what is in the cache is what is in the files ---

ANY = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.integers(0, 3),
        st.floats(),
        st.sampled_from([0.0, -0.0, 1.0]),
        st.text(max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)
NAMES = st.sampled_from(["lr", "seed", "loss", "state", "ü"])
NUMBERS = st.sampled_from(["1", "2.5", "-3e-4", "", "nan", "inf", "text", "1e300"])
FILES = st.fixed_dictionaries(
    {"param": st.dictionaries(NAMES, ANY, max_size=4)},
    optional={
        "stat": st.sampled_from(["train: finished\n", "train: running\n", "a: failed\nb: finished\n", "[", ""]),
        "attempts": st.sampled_from([attempts(), attempts(peak_vram_mib=2**40), attempts()[:90], "no record\n"]),
        "metrics.csv": st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3),
        "metrics.jsonl": st.sampled_from(['{"step": 1, "loss": 2}\n{"st', '{"loss": NaN}\n', "no record\n"]),
        "eval_test.json": st.sampled_from(['{"loss": 2}', '{"loss": 1.5, "n": 3}', '{"loss": NaN}', '{"loss":']),
    },
)
TREE = st.dictionaries(st.sampled_from(["a", "b2", "b10", "c d", "%é"]), FILES, max_size=4)


def write_tree(output: Path, tree: dict[str, dict[str, Any]]) -> None:
    for name, files in tree.items():
        path = output / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for file, content in files.items():
            if file == "param":
                content = yaml.safe_dump(content, allow_unicode=True)
            elif file == "metrics.csv":
                rows = (f"{step},{a},{b}\n" for step, (a, b) in enumerate(content))
                content = "step,loss,other\n" + "".join(rows)
            (path / file).write_text(content)


def assert_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, wanted)
    assert found.attrs == wanted.attrs
    cells = [[list(map(repr, frame[name].tolist())) for name in frame] for frame in (found, wanted)]
    assert cells[0] == cells[1]  # 1 is not True, nor -0.0 0.0


@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(TREE, TREE, st.booleans())
def test_the_cache_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[str, dict[str, Any]],
    changes: dict[str, dict[str, Any]],
    is_removed: bool,
) -> None:
    output = tmp_path_factory.mktemp("output")
    for place, part in enumerate((tree, changes)):
        write_tree(output, part)
        if place and is_removed and tree:
            shutil.rmtree(output / next(iter(tree)))
        age(output, 60 - place)
        wanted = wide_table(output, concise=False, use_cache=False)
        for is_other_process in (False, True):
            if is_other_process:
                cache._latest = None
            assert_same(wide_table(output, concise=False), wanted)
            assert_same(wide_table(output), wide_table(output, use_cache=False))
        assert_same(wide_table(output, "b"), wide_table(output, "b", use_cache=False))
        pd.testing.assert_frame_equal(curves(output), curves(output, use_cache=False))
    shutil.rmtree(output)


def test_clocks_that_disagree(three: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]) -> None:
    # The file system's clock is an hour behind: what was written just now looks old to this machine.
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3_600_000_000_000)
    path = three / "t1" / "stat"
    path.write_text("train: running \n")
    wide_table(three)
    read.clear()
    assert wide_table(three).loc["t1", "state"] == "running"
    assert set(read) == {"param", "stat", "attempts", "metrics.csv"}
    # Files from the future are not kept until the clocks have passed them.
    monkeypatch.undo()
    os.utime(path, (time.time() + 3600,) * 2)
    wide_table(three)
    assert cache.load(three).names == ["t0", "t2"]


def test_a_file_that_could_not_be_read_is_tried_again(three: Path) -> None:
    (three / "t1" / "attempts").unlink()
    (three / "t1" / "attempts").mkdir()
    age(three)
    for _ in range(2):
        assert wide_table(three).loc["t1", "faults"] == "attempts: can't be read"


def test_a_directory_of_somebody_else_is_told(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir

    def refuse(path: str) -> list[str]:
        if path.endswith("t1"):
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refuse)
        frame: Any = wide_table(three)
        assert frame["state"].tolist() == ["finished", "damaged", "finished"]
        assert frame.loc["t1", "cause"] == "the directory can't be read: Permission denied"
    assert wide_table(three)["state"].tolist() == ["finished"] * 3


def test_a_directory_without_trials_is_left_alone(output: Path) -> None:
    (output / "plots").mkdir()
    assert len(wide_table(output)) == len(curves(output)) == 0
    assert [path.name for path in output.iterdir()] == ["plots"]
