"""`run check`, `run schema`, `run rm` and `run archive`, as a user types them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from runner.cli import COMMANDS, main

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project, Said

    Typed = Callable[..., "Said"]

HEAD = (
    "template:\n  go: 'echo {lr} > {_output}/said; test {lr} != 3'\n  then: 'true'\n"
    "resource: {cpu: 2}\ndefault: {seed: 0}\n"
)
GRIDS = "---\n_title: small\nlr: [1, 2, 3]\n---\n_title: large\nlr: [10, 20]\n_cmd: go\n"
NAMES = ["Lr_1", "Lr_10", "Lr_2", "Lr_20", "Lr_3"]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What the user types at a question."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.fixture
def ran(project: Project, typed: Typed) -> Project:
    """A project after its first run: Lr_3 has failed, the others are complete."""
    project.write(HEAD + GRIDS)
    assert typed().code == 1
    assert project.trials() == NAMES
    return project


def files(project: Project) -> dict[str, tuple[int, bytes]]:
    """Every file of the project with its time of change and its content."""
    found = [path for path in project.path.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(project.path)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


# --- check ---


def test_check_of_a_new_file_counts_its_trials_and_writes_nothing(project: Project, typed: Typed) -> None:
    project.write(HEAD + GRIDS + "_exclude: [{lr: 10}]\n")
    said = typed("check")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "grid small: 3 combinations",
        "grid large: 1 combination, 1 more excluded, only go",
        "trials: 4 (4 new)",
        "orphan parameters, which no command uses: seed",
    ]
    assert [path.name for path in project.path.iterdir()] == ["params.yaml"]


def test_check_tells_what_is_begun_and_done(ran: Project, typed: Typed) -> None:
    ran.write(HEAD + GRIDS + "---\nlr: 30\n")
    before = files(ran)
    said = typed("check")
    assert said.code == 0
    assert "grid 3: 1 combination\n" in said.out
    assert "trials: 6 (1 new, 1 begun, 4 done)" in said.out
    assert files(ran) == before


def test_check_of_a_title_counts_that_grid_alone(ran: Project, typed: Typed) -> None:
    assert typed("check", "-t", "large").out.splitlines()[:2] == [
        "grid large: 2 combinations, only go",
        "trials: 2 (2 done)",
    ]
    assert typed("check", "-t", "none").code == 2


def test_the_time_of_a_run_makes_no_other_command(project: Project, typed: Typed) -> None:
    project.write("template: {go: 'echo {_time}', then: 'echo at {_time}'}\nresource: {cpu: 1}\n---\nlr: 1\n")
    assert typed().code == 0
    param = project.output / "Lr_1" / "param"
    param.write_text(re.sub(r"\d{8}\.\d{6}", "20240131.000000", param.read_text()))
    assert "another command" not in typed().out
    param.write_text(param.read_text().replace("echo at", "echo once at"))
    assert "Finished with another command of `then`" in typed("check").out


def test_check_tells_which_commands_changed(ran: Project, typed: Typed) -> None:
    ran.write(HEAD.replace("'true'", "echo new") + GRIDS)
    before = files(ran)
    out = typed("check").out
    assert "Finished with another command of `then`, which only -f runs again: Lr_1, Lr_2\n" in out
    assert "`go`" not in out
    ran.write(HEAD.replace("echo", "echo now") + GRIDS)
    assert "of `go`, which only -f runs again: Lr_1, Lr_2, Lr_10, Lr_20\n" in typed("check").out
    assert {path: what for path, what in files(ran).items() if path != "params.yaml"} == {
        path: what for path, what in before.items() if path != "params.yaml"
    }


def test_check_tells_of_suspicious_values_and_orphans(project: Project, typed: Typed) -> None:
    project.write(HEAD + "---\nlr: 012\nflag: on\n")
    said = typed("check")
    assert said.code == 0
    assert "orphan parameters, which no command uses: flag, seed\n" in said.out
    suspicious = [line for line in said.out.splitlines() if line.startswith("suspicious: ")]
    assert len(suspicious) == 2
    assert suspicious[0].startswith("suspicious: params.yaml, line 7, lr: 012 is read as the number 12")
    assert suspicious[1].startswith("suspicious: params.yaml, line 8, flag: on is read as True")


def test_check_tells_of_names_with_a_hash(ran: Project, typed: Typed) -> None:
    ran.write(HEAD + f"---\nlr: ['1', {'x' * 90}]\nseed: {'y' * 90}\n---\nlr: 5\n")
    lines = typed("check").out.splitlines()
    cut = next(line for line in lines if line.startswith("names cut to 143 bytes, ending with a hash: "))
    assert cut.count("Lr_") == 1
    assert not any(line.startswith("names ending with a hash") for line in lines)
    ran.write(HEAD + "---\nlr: ['1', 5]\n")
    lines = typed("check").out.splitlines()
    double = next(line for line in lines if line.startswith("names ending with a hash"))
    assert double.count("Lr_") == double.count("Lr_1-") == 1


def test_check_of_a_bad_file_is_one_message(project: Project, typed: Typed) -> None:
    project.write(HEAD + "---\nlr: []\n")
    said = typed("check")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("run: error: params.yaml, line 7, lr: ")


# --- schema ---


def test_schema_prints_a_json_schema(project: Project, typed: Typed) -> None:
    said = typed("schema")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["title"] == "params.yaml"
    assert list(project.path.iterdir()) == []


# --- rm and archive ---

CHOICES: dict[str, tuple[list[str], list[str]]] = {
    "a name": (["Lr_1"], ["Lr_1"]),
    "two names": (["Lr_1", "Lr_20"], ["Lr_1", "Lr_20"]),
    "a wildcard": (["Lr_1*"], ["Lr_1", "Lr_10"]),
    "one character": (["Lr_?0"], ["Lr_10", "Lr_20"]),
    "names that overlap": (["Lr_1", "Lr_1*"], ["Lr_1", "Lr_10"]),
    "all": (["*"], NAMES),
    "a title": (["-t", "large"], ["Lr_10", "Lr_20"]),
    "a title and a name": (["Lr_2*", "-t", "large"], ["Lr_20"]),
    "failed": (["--state", "failed"], ["Lr_3"]),
    "blocked": (["--state", "blocked"], ["Lr_3"]),
    "a state and a title": (["--state", "finished", "-t", "small"], ["Lr_1", "Lr_2"]),
}


@pytest.mark.parametrize(("words", "chosen"), CHOICES.values(), ids=CHOICES.keys())
def test_rm_deletes_what_was_chosen_and_nothing_else(
    words: list[str], chosen: list[str], ran: Project, typed: Typed
) -> None:
    kept = {path: what for path, what in files(ran).items() if not any(f"/{name}/" in path for name in chosen)}
    said = typed("rm", *words, "--yes")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{len(chosen)} {'trial' if len(chosen) == 1 else 'trials'} deleted.\n"
    assert files(ran) == kept
    assert ran.trials() == [name for name in NAMES if name not in chosen]
    again = typed()
    due = {name: ["go"] if name in {"Lr_10", "Lr_20", "Lr_3"} else ["go", "then"] for name in {*chosen, "Lr_3"}}
    assert again.started() == sorted(f"{stage} {name}" for name, stages in due.items() for stage in stages)
    assert ran.trials() == NAMES


@pytest.mark.parametrize("choice", ["a name", "a wildcard", "a title", "blocked"])
@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_trials_that_share_the_output_directory_lose_their_records_alone(
    subcommand: str, choice: str, project: Project, typed: Typed
) -> None:
    words, chosen = CHOICES[choice]
    project.write(HEAD + GRIDS)
    assert typed("--no-subdir").code == 1
    assert typed(subcommand, *words, "--yes").code == 0
    left = [row["trial"] for row in map(json.loads, typed("table", "--json").out.splitlines())]
    assert left == [name for name in sorted(NAMES, key=lambda name: int(name[3:])) if name not in chosen]
    assert (project.output / "said").exists()
    if subcommand == "archive":
        for path in (project.output / ".runner" / "archive").iterdir():
            subprocess.run(["tar", "-xzf", path, "-C", project.output], check=True)
        assert len(typed("table", "--json").out.splitlines()) == len(NAMES)


def test_a_question_names_the_trials_that_share_a_directory(
    project: Project, typed: Typed, answer: Callable[[str], None]
) -> None:
    project.write(HEAD + GRIDS)
    typed("--no-subdir")
    answer("n\n")
    assert typed("rm", "Lr_1*").out.splitlines()[:2] == ["  output: Lr_1", "  output: Lr_10"]


def test_a_stage_that_is_in_the_file_no_more_does_not_count(ran: Project, typed: Typed) -> None:
    file = ran.path / "params.yaml"
    text = file.read_text()
    assert "then:" in text
    file.write_text("".join(line for line in text.splitlines(keepends=True) if "then:" not in line))
    assert "Lr_3" in ran.trials()
    assert typed("rm", "--state", "blocked", "--yes").out == "No such trial.\n"
    file.write_text(text)
    assert typed("rm", "--state", "blocked", "--yes").out == "1 trial deleted.\n"


@pytest.mark.parametrize(("words", "chosen"), CHOICES.values(), ids=CHOICES.keys())
def test_archive_packs_what_was_chosen(words: list[str], chosen: list[str], ran: Project, typed: Typed) -> None:
    before = files(ran)
    said = typed("archive", *words, "--yes")
    assert (said.code, said.err) == (0, "")
    assert ran.trials() == [name for name in NAMES if name not in chosen]
    archive = ran.output / ".runner" / "archive"
    assert sorted(path.name for path in archive.iterdir()) == sorted(f"{name}.tar.gz" for name in chosen)
    for name in chosen:
        subprocess.run(["tar", "-xzf", archive / f"{name}.tar.gz", "-C", ran.output], check=True)
    packed_files = {path: what for path, what in files(ran).items() if "/.runner/" not in path}
    assert {path: content for path, (_, content) in packed_files.items()} == {
        path: content for path, (_, content) in before.items() if "/.runner/" not in path
    }
    assert typed().started() == ["go Lr_3"]


def test_what_was_archived_is_due_again_and_can_be_archived_again(ran: Project, typed: Typed) -> None:
    archive = ran.output / ".runner" / "archive"
    for _ in range(3):
        assert typed("archive", "Lr_1", "--yes").code == 0
        assert "go Lr_1" in typed().started()
    assert sorted(path.name for path in archive.iterdir()) == ["Lr_1.2.tar.gz", "Lr_1.3.tar.gz", "Lr_1.tar.gz"]


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
@pytest.mark.parametrize("typed_text", ["n\n", "\n", "", "no\n", "yess\n", "1\n"])
def test_without_a_yes_nothing_is_done(
    subcommand: str, typed_text: str, ran: Project, typed: Typed, answer: Callable[[str], None]
) -> None:
    before = files(ran)
    answer(typed_text)
    said = typed(subcommand, "Lr_1*")
    assert said.code == 1
    assert said.out.splitlines()[:2] == ["  output/Lr_1", "  output/Lr_10"]
    assert "2 trials? [y/N]" in said.out
    assert said.out.endswith("Nothing was done.\n")
    assert files(ran) == before


@pytest.mark.parametrize("typed_text", ["y\n", "Yes\n", " Y \n", "y"])
def test_with_a_yes_it_is_done(typed_text: str, ran: Project, typed: Typed, answer: Callable[[str], None]) -> None:
    answer(typed_text)
    assert typed("rm", "Lr_1*").code == 0
    assert ran.trials() == ["Lr_2", "Lr_20", "Lr_3"]


def test_many_are_not_all_listed(project: Project, typed: Typed, answer: Callable[[str], None]) -> None:
    project.write("template: {go: 'true'}\nresource: {cpu: 2}\n---\nlr: {_range: [0, 13]}\n")
    typed()
    answer("n\n")
    out = typed("rm", "*").out
    assert out.count("output/Lr_") == 10
    assert "… and 3 more" in out


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["Lr_7"], 2, "Lr_7: no such trial in output. Did you mean"),
        (["Lr_1", "x*"], 2, "x*: no such trial"),
        (["--state", "faild"], 2, "Allowed: pending, submitted, running, finished"),
        (["-t", "smal"], 2, "no such title. Did you mean 'small'?"),
        (["--state", "interrupted"], 0, "No such trial."),
        (["params.yaml"], 2, "no such trial"),
        ([".runner"], 2, "no such trial"),
        (["../output/Lr_1"], 2, "no such trial"),
        ([], 2, "name trials"),
        (["-o", "."], 2, "name trials"),
    ],
)
def test_a_choice_that_fits_nothing_deletes_nothing(
    subcommand: str, words: list[str], code: int, said: str, ran: Project, typed: Typed
) -> None:
    before = files(ran)
    told = typed(subcommand, *words, "--yes")
    assert told.code == code
    assert said in told.out + told.err
    assert files(ran) == before


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_a_directory_without_trials_is_not_written_to(subcommand: str, project: Project, typed: Typed) -> None:
    (project.path / "mine").mkdir()
    assert typed(subcommand, "x", "-o", "mine", "--yes").code == 2
    assert list((project.path / "mine").iterdir()) == []


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_a_directory_that_is_no_trial_is_left_alone(subcommand: str, ran: Project, typed: Typed) -> None:
    (ran.output / "Lr_mine").mkdir()
    (ran.output / "Lr_mine" / "notes").write_text("keep")
    assert typed(subcommand, "*", "--yes").code == 0
    assert ran.trials() == ["Lr_mine"]
    assert (ran.output / "Lr_mine" / "notes").read_text() == "keep"
    assert (ran.output / "params.yaml").exists()


def test_rm_reads_another_file_and_directory(project: Project, typed: Typed) -> None:
    project.write(HEAD + GRIDS, "other.yaml")
    typed("-y", "other.yaml", "-o", "results")
    assert typed("rm", "-y", "other.yaml", "-o", "results", "-t", "large", "--yes").code == 0
    left = sorted(path.name for path in (project.path / "results").iterdir() if path.name.startswith("Lr_"))
    assert left == ["Lr_1", "Lr_2", "Lr_3"]
    assert typed("rm", "-o", "results", "Lr_1", "--yes").code == 0, "names need no file"


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_a_trial_that_is_a_link_is_dealt_with_whole(subcommand: str, ran: Project, typed: Typed) -> None:
    elsewhere = ran.path / "elsewhere"
    (ran.output / "Lr_1").rename(elsewhere)
    (ran.output / "Lr_1").symlink_to(elsewhere)
    said = typed(subcommand, "Lr_1", "--yes")
    assert (said.code, said.err) == (0, "")
    assert ran.output / "Lr_1" not in ran.output.iterdir()
    assert not list((ran.output / ".runner").glob("deleting.*"))
    if subcommand == "archive":
        with tarfile.open(ran.output / ".runner" / "archive" / "Lr_1.tar.gz") as packed:
            assert "Lr_1/said" in packed.getnames()


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_what_a_crash_left_half_deleted_is_in_nobodys_way(subcommand: str, ran: Project, typed: Typed) -> None:
    (ran.output / ".runner" / "deleting.Lr_1").mkdir()
    (ran.output / ".runner" / "deleting.Lr_1" / "said").touch()
    said = typed(subcommand, "Lr_1", "--yes")
    assert (said.code, said.err) == (0, "")
    assert ran.trials() == [name for name in NAMES if name != "Lr_1"]


@pytest.mark.parametrize("name", ["A_[1]", "A_[!x]", "A_*", "A_?"])
def test_a_name_with_a_wildcards_character_means_that_trial_alone(name: str, project: Project, typed: Typed) -> None:
    others = ["A_1", "A_y"]
    project.write(f"template: {{go: 'true'}}\nresource: {{cpu: 2}}\n---\na: ['{name[2:]}', 1, y]\n")
    typed()
    assert project.trials() == sorted([name, *others])
    said = typed("rm", name, "--yes")
    assert (said.code, said.err) == (0, "")
    assert project.trials() == others


WAIT = "template: {go: 'touch begun.{lr}; exec cat pipe'}\nresource: {cpu: 1}\n---\nlr: 1\n"


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_nothing_is_removed_while_a_run_holds_the_directory(
    subcommand: str, project: Project, typed: Typed, until: Callable[..., None]
) -> None:
    project.write(WAIT)
    os.mkfifo(project.path / "pipe")
    process = project.start()
    until((project.path / "begun.1").exists, lambda: "not begun")
    said = typed(subcommand, "Lr_1", "--yes")
    assert said.code != 0
    assert "a daemon works here" in said.err
    assert typed("check").out.splitlines()[1] == "trials: 1 (1 begun)"
    assert typed("--dry-run").code == 0
    (project.path / "pipe").write_text("go on")
    assert process.wait(20) == 0
    assert project.trials() == ["Lr_1"]
    assert typed(subcommand, "Lr_1", "--yes").code == 0
    assert project.trials() == []


@pytest.mark.parametrize("subcommand", ["rm", "archive"])
def test_a_trial_that_outlived_its_run_is_not_removed(
    subcommand: str, project: Project, typed: Typed, until: Callable[..., None]
) -> None:
    project.write(WAIT)
    os.mkfifo(project.path / "pipe")
    process = project.start()
    until((project.path / "begun.1").exists, lambda: "not begun")
    process.kill()
    process.wait(20)
    for daemon in project.daemons():
        daemon.kill()
        daemon.wait(20)
    assert project.living()
    said = typed(subcommand, "Lr_1", "--yes")
    assert said.code != 0
    assert "Lr_1" in said.err
    assert project.trials() == ["Lr_1"]


# --- the command line ---


@pytest.mark.parametrize("subcommand", list(COMMANDS))
def test_every_subcommand_has_a_help(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([subcommand, "--help"])
    assert ended.value.code == 0
    assert f"usage: run {subcommand}" in capsys.readouterr().out


@pytest.mark.parametrize("stage", list(COMMANDS))
def test_a_stage_may_have_the_name_of_a_subcommand(stage: str, project: Project, typed: Typed) -> None:
    project.write(f"template: {{{stage}: 'true', other: 'true'}}\nresource: {{cpu: 1}}\n---\nlr: 1\n")
    assert typed("-c", stage).started() == [f"{stage} Lr_1"]
