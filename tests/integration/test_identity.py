"""What makes a trial the same one: real runs of a file, then of the file as a user changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project, Said

    Typed = Callable[..., "Said"]

HEAD = "template: {go: 'echo {lr} {seed} >> {_output}/said'}\nresource: {cpu: 2}\ndefault: {seed: 0}\n"
GRID = "---\n_title: first\nlr: [1e-3, 2]\n"
NAMES = ["Lr_0.001", "Lr_2"]


def files(project: Project) -> dict[str, tuple[int, bytes]]:
    """Every file of every trial with its time of change and its content."""
    found = [path for path in project.output.rglob("*") if path.is_file() and path.parent.name in project.trials()]
    return {str(path.relative_to(project.output)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture
def changed(project: Project, typed: Typed) -> Callable[[str, str], Said]:
    """Runs one file to its end, then another; what the first one made must stay as it is."""

    def run(before: str, after: str) -> Said:
        project.write(before)
        first = typed()
        assert first.code == 0, first.out + first.err
        old = files(project)
        project.write(after)
        second = typed()
        assert second.code == 0, second.out + second.err
        if not second.started():
            assert files(project) == old
        return second

    return run


NOTHING_RUNS = {
    "a new parameter with a default": (
        HEAD + GRID,
        HEAD.replace("seed: 0", "seed: 0, drop: 0.0").replace("{seed}", "{seed} {drop}") + GRID,
    ),
    "a new parameter with a default of null": (HEAD + GRID, HEAD.replace("seed: 0", "seed: 0, note: null") + GRID),
    "a parameter with a default taken away": (HEAD.replace("seed: 0", "seed: 0, drop: 0.1") + GRID, HEAD + GRID),
    "a new parameter whose default all of a grid's values are": (
        HEAD + GRID,
        HEAD.replace("seed: 0", "seed: 0, drop: 0.0") + GRID + "drop: [0.0]\n",
    ),
    "a changed template": (HEAD + GRID, HEAD.replace("echo", "echo now") + GRID),
    "a renamed title": (HEAD + GRID, HEAD + GRID.replace("first", "second")),
    "a title taken away": (HEAD + GRID, HEAD + GRID.replace("_title: first\n", "")),
    "a removed value": (HEAD + GRID, HEAD + GRID.replace("[1e-3, 2]", "2")),
    "a value moved from the default to the grid": (
        HEAD + GRID,
        HEAD.replace("default: {seed: 0}\n", "") + GRID + "seed: 0\n",
    ),
    "a value moved to the grid beside the default": (HEAD + GRID, HEAD + GRID + "seed: 0\n"),
    "a value moved from the grid to the default": (
        HEAD.replace("default: {seed: 0}\n", "") + GRID + "seed: 0\n",
        HEAD + GRID,
    ),
    "reordered keys": (HEAD + GRID + "seed: [0, 1]\n", HEAD + "---\nseed: [1, 0]\nlr: [2, 1e-3]\n_title: first\n"),
    "reordered settings": (HEAD + GRID, "\n".join(reversed(HEAD.splitlines())) + "\n" + GRID),
    "reordered documents": (HEAD + GRID + "---\nlr: 3\nseed: 4\n", HEAD + "---\nseed: 4\nlr: 3\n" + GRID),
    "one grid written as two": (HEAD + GRID, HEAD + "---\nlr: 2\n---\nlr: 1e-3\n"),
    "a number written otherwise": (HEAD + GRID, HEAD + GRID.replace("1e-3", "0.001")),
    "a list written as a range": (HEAD + "---\nlr: [1, 2, 3]\n", HEAD + "---\nlr: {_range: [1, 4]}\n"),
    "a list written as a logspace": (HEAD + "---\nlr: [1e-2, 1e-1]\n", HEAD + "---\nlr: {_logspace: [0.01, 0.1, 2]}\n"),
    "a product written as a union": (HEAD + GRID + "seed: 7\n", HEAD + "---\nseed: 7\nLIST: [{lr: 1e-3}, {lr: 2}]\n"),
    "a product written with an exclusion": (HEAD + GRID, HEAD + "---\nlr: [1e-3, 1, 2]\n_exclude: [{lr: 1}]\n"),
    "an alias that sets the same": (
        HEAD + GRID,
        HEAD + "alias: {rate: {low: {lr: 1e-3}, high: {lr: 2}}}\n---\nrate: [low, high]\n",
    ),
    "an alias of two that sets the same": (
        HEAD + "---\n_zip: {lr: [1, 2], seed: [3, 4]}\n",
        HEAD + "alias: {both: {a: {lr: 1, seed: 3}, b: {lr: 2, seed: 4}}}\n---\nboth: [a, b]\n",
    ),
    "an alias as the default": (
        HEAD + GRID,
        HEAD.replace("{seed: 0}", "{luck: none}") + "alias: {luck: {none: {seed: 0}, some: {seed: 7}}}\n" + GRID,
    ),
    "other slots": (HEAD + GRID, HEAD.replace("cpu: 2", "cpu: 1") + GRID),
    "a command written as a mapping": (
        HEAD + GRID,
        HEAD.replace("{go: 'echo {lr} {seed} >> {_output}/said'}", "{go: {cmd: 'echo {lr} {seed} >> {_output}/said'}}")
        + GRID,
    ),
}


@pytest.mark.parametrize(("before", "after"), NOTHING_RUNS.values(), ids=NOTHING_RUNS.keys())
def test_what_is_the_same_is_not_run_again(
    before: str, after: str, changed: Callable[[str, str], Said], project: Project
) -> None:
    second = changed(before, after)
    assert second.started() == []
    assert all((project.output / name / "stat").read_text().strip() == "go: finished" for name in project.trials())


def test_a_removed_value_leaves_its_directory(changed: Callable[[str, str], Said], project: Project) -> None:
    changed(HEAD + GRID, HEAD + GRID.replace("[1e-3, 2]", "2"))
    assert project.trials() == NAMES


def test_a_value_goes_to_the_grid_and_back(changed: Callable[[str, str], Said], typed: Typed, project: Project) -> None:
    assert changed(HEAD + GRID, HEAD + GRID + "seed: [0, 1]\n").started() == ["go Lr_0.001-Seed_1", "go Lr_2-Seed_1"]
    project.write(HEAD + GRID)
    assert typed().started() == []
    assert project.trials() == ["Lr_0.001", "Lr_0.001-Seed_1", "Lr_2", "Lr_2-Seed_1"]


def test_a_changed_default_makes_other_trials(
    changed: Callable[[str, str], Said], typed: Typed, project: Project
) -> None:
    project.write(HEAD + GRID)
    typed()
    old = files(project)
    second = changed(HEAD + GRID, HEAD.replace("seed: 0", "seed: 5") + GRID)
    others = [name for name in project.trials() if name not in NAMES]
    assert second.started() == [f"go {name}" for name in others]
    assert [name.rsplit("-", 1)[0] for name in others] == NAMES
    assert all(len(name.rsplit("-", 1)[1]) == 8 for name in others)
    assert (project.output / others[0] / "said").read_text() == "0.001 5\n"
    assert {path: what for path, what in files(project).items() if path in old} == old
    assert typed().started() == []
    project.write(HEAD + GRID)
    assert typed().started() == []
    assert len(project.trials()) == 4


def test_a_default_that_came_later_and_changed_makes_other_trials(typed: Typed, project: Project) -> None:
    for default, count in (("seed: 0", 2), ("seed: 0, drop: 0.0", 0), ("seed: 0, drop: 0.5", 2), ("seed: 0", 0)):
        project.write(HEAD.replace("seed: 0", default) + GRID)
        assert len(typed().started()) == count, default
    assert len(project.trials()) == 4


def test_force_runs_a_changed_template(changed: Callable[[str, str], Said], typed: Typed, project: Project) -> None:
    changed(HEAD + GRID, HEAD.replace("echo", "echo now") + GRID)
    assert typed("-f").started() == [f"go {name}" for name in NAMES]
    assert (project.output / "Lr_2" / "said").read_text() == "2 0\nnow 2 0\n"
    scripts = yaml.safe_load((project.output / "Lr_2" / "param").read_text())["_scripts"]
    assert scripts == {"go": "echo now 2 0 >> output/Lr_2/said"}


def test_run_says_that_a_template_was_changed(changed: Callable[[str, str], Said]) -> None:
    second = changed(HEAD + GRID, HEAD.replace("echo", "echo now") + GRID)
    assert "another command" in second.out
    assert "-f" in second.out


@pytest.mark.parametrize("template", ["{go: 'true', new: 'echo {lr}'}", "{new: 'echo {lr}', go: 'true'}"])
def test_a_new_stage_runs_alone(template: str, changed: Callable[[str, str], Said], project: Project) -> None:
    second = changed(HEAD + GRID, HEAD.replace(HEAD.splitlines()[0], f"template: {template}") + GRID)
    assert second.started() == [f"new {name}" for name in NAMES]
    assert project.stat("Lr_2") == {"go": "finished", "new": "finished"}
    scripts = yaml.safe_load((project.output / "Lr_2" / "param").read_text())["_scripts"]
    assert scripts == {"go": "echo 2 0 >> output/Lr_2/said", "new": "echo 2"}


def test_a_directory_that_was_deleted_by_hand_is_made_again(typed: Typed, project: Project) -> None:
    project.write(HEAD + GRID)
    typed()
    for path in (project.output / "Lr_2").iterdir():
        path.unlink()
    (project.output / "Lr_2").rmdir()
    assert typed().started() == ["go Lr_2"]
    assert typed().started() == []


@pytest.mark.parametrize(
    ("first", "second"), [("1", '"1"'), ('"1"', "1"), ("1", "1.0"), ("true", '"T"'), ("1", "true")]
)
def test_a_value_of_another_type_is_another_trial(
    first: str, second: str, changed: Callable[[str, str], Said], typed: Typed, project: Project
) -> None:
    said = changed(f"{HEAD}---\nlr: {first}\n", f"{HEAD}---\nlr: {second}\n")
    assert len(said.started()) == 1
    assert len(project.trials()) == 2
    project.write(f"{HEAD}---\nlr: {first}\n")
    assert typed().started() == []


def test_a_parameter_that_is_no_default_is_part_of_the_trial(
    changed: Callable[[str, str], Said], project: Project
) -> None:
    said = changed(HEAD + GRID, HEAD + GRID + "note: [a, b]\n")
    assert len(said.started()) == 4
    assert len(project.trials()) == 6


def test_a_changed_case_of_an_alias_makes_another_trial(typed: Typed, project: Project) -> None:
    text = HEAD + "alias: {rate: {low: {lr: 1}, high: {lr: 2}}}\n---\nrate: [low, high]\n"
    project.write(text)
    assert typed().started() == ["go Rate_high", "go Rate_low"]
    project.write(text.replace("lr: 2", "lr: 3"))
    (name,) = typed().started()
    assert name.startswith("go Rate_high-")
    project.write(text)
    assert typed().started() == []
