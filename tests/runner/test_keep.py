"""Which files of a finished trial are deleted, and which never."""

import os
from pathlib import Path

import pytest

from runner.keep import refusal, remove_files

OWN = ["param", "stat", "attempts", "log.train.20260101.000000", "metrics.csv", "lr.npy", "trial.yaml"]


def write(directory: Path, *names: str) -> None:
    """Files, each a second newer than the one before it."""
    for second, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
        os.utime(path, (second, second))


def left(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def test_the_newest_files_of_a_pattern_stay(tmp_path: Path) -> None:
    write(tmp_path, "step_9.pt", "step_10.pt", "step_8.pt", "best.ckpt")
    assert remove_files(str(tmp_path), {"*.pt": 2}) == ["step_9.pt"]
    assert remove_files(str(tmp_path), {"*.pt": 2}) == []
    assert left(tmp_path) == ["best.ckpt", "step_10.pt", "step_8.pt"]


def test_of_files_of_one_time_the_last_by_name_stays(tmp_path: Path) -> None:
    write(tmp_path, "a.pt", "b.pt", "c.pt")
    for path in tmp_path.iterdir():
        os.utime(path, (5, 5))
    assert remove_files(str(tmp_path), {"*.pt": 1}) == ["a.pt", "b.pt"]


def test_patterns_reach_into_directories(tmp_path: Path) -> None:
    write(tmp_path, "a.pt", "x/b.pt", "x/y/c.pt", "x/y/d.txt")
    assert remove_files(str(tmp_path), {"**/*.pt": 1}) == ["a.pt", "x/b.pt"]
    assert left(tmp_path) == ["x/y/c.pt", "x/y/d.txt"]


def test_each_pattern_counts_for_itself(tmp_path: Path) -> None:
    write(tmp_path, "a.pt", "b.pt", "a.opt", "b.opt", "c.opt")
    assert remove_files(str(tmp_path), {"*.pt": 1, "*.opt": 0}) == ["a.opt", "a.pt", "b.opt", "c.opt"]
    assert remove_files(str(tmp_path), {"*.none": 0}) == []


def test_the_records_and_results_always_stay(tmp_path: Path) -> None:
    write(tmp_path, *OWN, "model.pt", "version_0/metrics.csv")
    assert remove_files(str(tmp_path), {"*": 0, "**/*": 0}) == ["model.pt"]
    assert left(tmp_path) == sorted([*OWN, "version_0/metrics.csv"])


def test_nothing_outside_or_behind_a_link_is_deleted(tmp_path: Path) -> None:
    trial, elsewhere = tmp_path / "trial", tmp_path / "elsewhere"
    write(elsewhere, "data.pt")
    write(trial, "x/own.pt")
    (trial / "link.pt").symlink_to(elsewhere / "data.pt")
    (trial / "linked").symlink_to(elsewhere)
    (trial / "inside").symlink_to(trial / "x")
    patterns = {"**/*": 0, "linked/*.pt": 0, "inside/*.pt": 0, "../elsewhere/*": 0, "x/../../elsewhere/*": 0}
    assert remove_files(str(trial), patterns) == ["x/own.pt"]
    assert left(elsewhere) == ["data.pt"]
    assert (trial / "link.pt").is_symlink()


def test_the_trial_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    write(tmp_path / "trial", "a.pt")
    (tmp_path / "output").symlink_to(tmp_path / "trial")
    assert remove_files(str(tmp_path / "output"), {"*.pt": 0}) == ["a.pt"]


def test_a_trial_that_is_gone_has_nothing_to_delete(tmp_path: Path) -> None:
    assert remove_files(str(tmp_path / "gone"), {"**/*.pt": 0}) == []


@pytest.mark.parametrize("pattern", ["*.pt", "**/*.pt", "ckpt/step_[0-9]*.pt", "a b/*"])
def test_patterns_that_are_allowed(pattern: str) -> None:
    assert refusal(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "no pattern"),
        ("/tmp/*", "leaves"),
        ("../*", "leaves"),
        ("a/../../*", "leaves"),
        ("a**/x", "**"),
        ("\0", "no"),
    ],
)
def test_patterns_that_are_refused(pattern: str, reason: str) -> None:
    assert reason in (refusal(pattern) or "")
