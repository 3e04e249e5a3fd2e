"""The grammar of params.yaml and the options that choose trials, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project, Said

    Typed = Callable[..., "Said"]

RUN = str(Path(sys.executable).with_name("run"))
SAY = "template: {go: 'echo {a} {b} > {_output}/said'}\nresource: {cpu: 2}\n"
MILLION = (
    "template: {go: 'echo {a} {b} {c}'}\n---\na: {_range: [0, 100]}\nb: {_range: [0, 100]}\nc: {_range: [0, 100]}\n"
)


@pytest.fixture
def shown(typed: Typed, project: Project) -> Callable[..., list[dict[str, Any]]]:
    """The trials of a file as `run --dry-run --json` shows them; it must say nothing else and write nothing."""

    def dry_run(text: str, *arguments: str) -> list[dict[str, Any]]:
        project.write(text)
        before = sorted(project.path.rglob("*"))
        said = typed("--dry-run", "--json", *arguments)
        assert (said.code, said.err) == (0, "")
        assert sorted(project.path.rglob("*")) == before
        trials = [json.loads(line) for line in said.out.splitlines()]
        assert all(list(trial) == ["name", "output", "params", "commands"] for trial in trials)
        return trials

    return dry_run


def params_of(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [trial["params"] for trial in trials]


# --- --dry-run --json ---


def test_json_holds_what_a_run_records(
    shown: Callable[..., list[dict[str, Any]]], typed: Typed, project: Project
) -> None:
    trials = shown(
        "template:\n  train: >\n    echo [lr] [flag] [none] '{text}' \"{text}\"\n    > {_output}/out\n"
        "  test: {cmd: 'cat {_output}/out {_name}.txt || true'}\n  config: 'cat {_config}'\n"
        "resource: {cpu: 2}\ndefault: {none: null, flag: true, text: 'é \"q\" $x,y'}\n"
        "---\nlr: [1e-3, 1, '1', true]\n---\nlr: 7\n_cmd: [test]\n_zip: {u: [1.5], v: [-0.0]}\n"
    )
    assert [(type(params["lr"]), params["lr"]) for params in params_of(trials)] == [
        (float, 0.001),
        (int, 1),
        (str, "1"),
        (bool, True),
        (int, 7),
    ]
    assert all(params["none"] is None and params["flag"] is True for params in params_of(trials))
    assert [list(trial["commands"]) for trial in trials] == [["train", "test", "config"]] * 4 + [["test"]]
    assert typed().code == 0
    assert project.trials() == sorted(trial["name"] for trial in trials)
    for trial in trials:
        assert trial["output"] == f"output/{trial['name']}"
        param = yaml.safe_load((project.path / trial["output"] / "param").read_text())
        assert param["_scripts"] == trial["commands"]
        recorded = {key: value for key, value in param.items() if not key.startswith("_")}
        assert [(key, repr(value)) for key, value in recorded.items()] == [
            (key, repr(value)) for key, value in trial["params"].items()
        ]


def test_json_after_a_run_shows_the_same_names(shown: Callable[..., list[dict[str, Any]]], typed: Typed) -> None:
    text = SAY + "default: {b: 0}\n---\na: [1, '1', 2]\n"
    before = shown(text)
    typed()
    assert shown(text) == before
    changed = shown(text.replace("b: 0", "b: 3"))
    assert len({trial["name"] for trial in [*before, *changed]}) == 6


def test_json_says_warnings_and_orphans_nowhere_on_standard_output(shown: Callable[..., list[dict[str, Any]]]) -> None:
    assert params_of(shown(SAY + "---\na: on\nb: 012\norphan: 1:30\n")) == [{"a": True, "b": 12, "orphan": "1:30"}]


def test_a_number_that_json_lacks_is_shown_all_the_same(shown: Callable[..., list[dict[str, Any]]]) -> None:
    trials = shown(SAY + "---\na: [.inf, -.inf, .nan]\nb: 0\n")
    assert [trial["commands"]["go"].split()[1] for trial in trials] == ["inf", "-inf", "nan"]


def test_every_line_is_json_that_any_program_reads(typed: Typed, project: Project) -> None:
    project.write(SAY + "---\na: [.inf, .nan]\nb: 0\n")

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    for line in typed("--dry-run", "--json").out.splitlines():
        json.loads(line, parse_constant=refuse)


def test_json_needs_no_utf_8_terminal(project: Project) -> None:
    project.write(SAY + "---\na: é\nb: 0\n")
    project.environment["PYTHONIOENCODING"] = "ascii"
    result = project.run("--dry-run", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["params"]["a"] == "é"


# --- grids ---


def test_an_alias_sets_its_parameters(shown: Callable[..., list[dict[str, Any]]]) -> None:
    head = SAY + "alias: {s: {small: {a: 1, b: x}, 2: {a: 3, b: y}}}\n"
    trials = shown(head + "---\ns: [small, 2]\n")
    assert params_of(trials) == [{"a": 1, "b": "x"}, {"a": 3, "b": "y"}]
    assert [trial["name"] for trial in trials] == ["S_small", "S_2"]
    assert trials[0]["commands"] == {"go": "echo 1 x > output/S_small/said"}


def test_a_default_alias_gives_way_to_the_grid(shown: Callable[..., list[dict[str, Any]]]) -> None:
    head = SAY + "default: {s: small, a: 9, c: 0}\nalias: {s: {small: {a: 1, b: 2}, big: {a: 3, b: 4}}}\n"
    assert params_of(shown(head + "---\nc: 5\n")) == [{"c": 5, "a": 1, "b": 2}]
    assert params_of(shown(head + "---\nb: [6, 7]\n")) == [{"b": 6, "a": 1, "c": 0}, {"b": 7, "a": 1, "c": 0}]
    assert params_of(shown(head + "---\ns: big\n")) == [{"a": 3, "b": 4, "c": 0}]


def test_zips_unions_and_exclusions_make_their_trials(shown: Callable[..., list[dict[str, Any]]]) -> None:
    grid = (
        "---\n_zip: [{a: [1, 2], c: [x, y]}]\nLIST_b:\n  - {b: [3, 4]}\n  - {b: 5, LIST: [{d: 6}, {e: [7, 8]}]}\n"
        "_exclude: [{a: 1, b: [3, 4]}, {e: 8}]\n"
    )
    assert params_of(shown(SAY + grid)) == [
        {"a": 1, "c": "x", "b": 5, "d": 6},
        {"a": 1, "c": "x", "b": 5, "e": 7},
        {"a": 2, "c": "y", "b": 3},
        {"a": 2, "c": "y", "b": 4},
        {"a": 2, "c": "y", "b": 5, "d": 6},
        {"a": 2, "c": "y", "b": 5, "e": 7},
    ]


def test_a_combination_of_two_grids_is_one_trial_with_the_stages_of_both(
    shown: Callable[..., list[dict[str, Any]]], typed: Typed, project: Project
) -> None:
    head = "template: {x: 'true', y: 'true', z: 'true'}\nresource: {cpu: 2}\ndefault: {b: 0}\n"
    trials = shown(head + "---\n_cmd: z\na: [1, 2]\n---\n_cmd: x\n_title: second\na: 2\nb: 0\n")
    assert [(trial["name"], list(trial["commands"])) for trial in trials] == [("A_1", ["z"]), ("A_2", ["x", "z"])]
    assert typed().started() == ["x A_2", "z A_1", "z A_2"]
    assert [record["stage"] for record in project.attempts("A_2", "start")] == ["x", "z"]
    assert typed("-t", "second").started() == []
    assert typed("-t", "second", "-c", "y").started() == ["y A_2"]


def test_a_later_grid_may_say_which_of_the_combinations_come_first(typed: Typed, project: Project) -> None:
    text = "template: {go: 'echo {a} >> order'}\nresource: {cpu: 1}\n"
    project.write(text + "---\na: [1, 2, 3, 4]\n---\na: 3\n_priority: 10\n---\na: 4\n_priority: -1\n")
    assert typed().code == 0
    assert (project.path / "order").read_text().split() == ["3", "1", "2", "4"]


def test_a_preview_says_what_is_doubtful_on_standard_error(typed: Typed, project: Project) -> None:
    project.write("template:\n  go: |\n    cd .\n    echo {a}\ndefault: {b: no}\n---\na: 1\n")
    said = typed("--dry-run")
    assert said.out.splitlines() == ["# 1, output/A_1", "cd . echo 1"]
    assert "line 2, template.go: its lines become one, so that `echo {a}` is a part of `cd .`" in said.err
    assert "Orphan parameters, which no command uses: b" in said.err


def test_two_cases_of_an_alias_that_set_the_same_are_one_trial(shown: Callable[..., list[dict[str, Any]]]) -> None:
    head = SAY + "alias: {s: {x: {a: 1, b: 2}, y: {a: 1, b: 2}}}\n"
    assert params_of(shown(head + "---\ns: [x, y]\n")) == [{"a": 1, "b": 2}]


# --- {_config} ---


def test_the_configuration_file_holds_the_parameters_nested(typed: Typed, project: Project) -> None:
    project.write(
        "template: {go: 'cp {_config} {_output}/copy', other: 'true'}\nresource: {cpu: 1}\n"
        "default: {model.size: small, model.head.bias: false, text: '1e-3', none: null}\n"
        "alias: {o: {sgd: {opt.name: sgd, opt.lr: 1e-3}}}\n"
        '---\no: sgd\nseed: 012\nnote: ["on"]\n'
        'words.date: "2024-01-31"\nwords.time: "1:30"\nwords.nothing: "~"\nwords.tiny: 1e-7\n'
    )
    said = typed()
    assert said.code == 0, said.out
    assert "rphan" not in said.out
    (name,) = project.trials()
    copy = (project.output / name / "copy").read_text()
    assert yaml.safe_load(copy) == {
        "opt": {"name": "sgd", "lr": 0.001},
        "seed": 12,
        "note": "on",
        "words": {"date": "2024-01-31", "time": "1:30", "nothing": "~", "tiny": 1e-7},
        "model": {"size": "small", "head": {"bias": False}},
        "text": "1e-3",
        "none": None,
    }
    assert copy == (project.output / name / "trial.yaml").read_text()


def test_without_it_no_file_is_written_and_orphans_are_told(typed: Typed, project: Project) -> None:
    project.write("template: {go: 'echo {lr}'}\nresource: {cpu: 1}\ndefault: {spare: 1}\n---\nlr: 1\nseed: 2\n")
    assert "Orphan parameters, which no command uses: seed, spare" in typed().out
    assert not (project.output / "Lr_1-Seed_2" / "trial.yaml").exists()


@pytest.mark.parametrize("names", ["{a: 1, a.b: 2}", "{a.b: 1, a: 2}", "{a.b.c: 1, a.b: 2}"])
def test_a_parameter_that_is_inside_another_is_refused(names: str, typed: Typed, project: Project) -> None:
    project.write(f"template: {{go: 'cat {{_config}}'}}\nresource: {{cpu: 1}}\ndefault: {names}\n---\nlr: 1\n")
    said = typed()
    assert said.code == 2
    assert "params.yaml" in said.err
    assert not project.output.exists()


# --- options ---


def test_without_subdirectories_all_trials_share_the_output_directory(
    shown: Callable[..., list[dict[str, Any]]], typed: Typed, project: Project
) -> None:
    text = (
        "template:\n  go: 'echo {_name} > {_output}/of.{lr}; cp {_config} {_output}/config.{lr}'\n"
        "  b: 'test -e {_output}'\nresource: {cpu: 2}\n---\nlr: [1, 2]\n"
    )
    trials = shown(text, "--no-subdir")
    assert [(trial["name"], trial["output"]) for trial in trials] == [("Lr_1", "output"), ("Lr_2", "output")]
    assert typed("--no-subdir").code == 0
    assert project.trials() == []
    assert (project.output / "of.2").read_text() == "Lr_2\n"
    assert yaml.safe_load((project.output / "config.2").read_text()) == {"lr": 2}
    records = {path.name: path for path in (project.output / ".runner" / "trials").iterdir()}
    assert len(records) == 2
    for name, directory in records.items():
        assert len(name) == 64
        assert (directory / "stat").read_text() == "go: finished\nb: finished\n"
        param = yaml.safe_load((directory / "param").read_text())
        trial = next(trial for trial in trials if trial["params"]["lr"] == param["lr"])
        assert param["_output"] == "output"
        assert param["_scripts"] == trial["commands"]
        assert len(list(directory.glob("log.go.*"))) == 1
    again = typed("--no-subdir")
    assert again.code == 0
    assert again.out.count("SKIP") == 4
    assert "START" not in again.out


def test_a_sample_is_the_same_every_time_and_grows(
    shown: Callable[..., list[dict[str, Any]]], typed: Typed, project: Project
) -> None:
    text = SAY + "---\na: {_range: [0, 6]}\nb: {_range: [0, 6]}\n---\na: 100\nb: [1, 2, 3]\n"
    three = shown(text, "--sample", "3")
    assert len(three) == 6
    assert [trial["params"]["a"] == 100 for trial in three] == [False] * 3 + [True] * 3
    assert shown(text, "--sample", "3", "--seed", "1") != three
    four = shown(text, "--sample", "4")
    assert [trial for trial in four if trial in three] == three
    assert shown(text, "--sample", "1000") == shown(text)
    assert len(typed("--sample", "3").started()) == 6
    assert project.trials() == sorted(trial["name"] for trial in three)
    assert len(typed("--sample", "4").started()) == 1


def test_a_preview_of_a_million_ends_when_its_reader_goes(project: Project) -> None:
    project.write(MILLION)
    command = [RUN, "--dry-run", "--json"]
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(20_000)]
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == ""
    last = json.loads(lines[-1])
    assert last["params"] == {"a": 1, "b": 99, "c": 99}
    assert last["commands"] == {"go": "echo 1 99 99"}
    assert len(set(lines)) == 20_000
    assert not project.output.exists()


def test_checking_many_trials_takes_little_memory(project: Project) -> None:
    def peak_kib(values: int) -> int:
        project.write(MILLION.replace("a: {_range: [0, 100]}", f"a: {{_range: [0, {values}]}}"))
        # The peak of this program alone: getrusage would count the memory of the process that it was forked from.
        code = (
            "import re, sys\nfrom runner.cli import main\nmain(['check'])\n"
            "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=project.path, capture_output=True, text=True, timeout=110, check=True
        )
        *report, peak = result.stdout.splitlines()
        trials = f"{values * 10_000:,}"
        assert report == [f"grid 1: {trials} combinations", f"trials: {trials} ({trials} new)"]
        return int(peak)

    assert peak_kib(6) - peak_kib(1) < 50_000 * 0.2  # a trial that is kept takes more than 200 bytes
    assert not project.output.exists()


# --- -d ---

ASK = (
    "template: {ask: 'read word; echo \"got $word for {n}\"; test \"$word\" = good', then: 'echo then {n}'}\n"
    "resource: {cpu: 2}\n---\nn: [1, 2]\n"
)


def debug(project: Project, line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Types `run -d` and then a line."""
    return subprocess.run(
        [RUN, "-d", *arguments],
        cwd=project.path,
        env=project.environment,
        input=line,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_debugging_runs_the_first_trial_on_this_terminal(project: Project) -> None:
    project.write(ASK)
    result = debug(project, "good\n")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "got good for 1\n" in result.stdout
    assert "then 1\n" in result.stdout
    assert project.trials() == ["N_1"]
    assert project.stat("N_1") == {"ask": "finished", "then": "finished"}
    assert [record["exit_code"] for record in project.attempts("N_1", "end")] == [0, 0]


def test_debugging_records_how_the_program_ended(project: Project) -> None:
    project.write(ASK.replace('test "$word" = good', "exit 3"))
    result = debug(project, "bad\n")
    assert result.returncode == 1
    assert "got bad for 1\n" in result.stdout
    assert "  (it has no log)\n  exit code 3\n" in result.stdout
    assert project.stat("N_1") == {"ask": "failed", "then": "blocked"}
    assert [record["exit_code"] for record in project.attempts("N_1", "exit")] == [3]
    assert [record["exit_code"] for record in project.attempts("N_1", "end")] == [3]


def test_debugging_runs_what_is_finished_too(project: Project) -> None:
    project.write(ASK)
    debug(project, "good\n")
    result = debug(project, "good\n", "-c", "ask")
    assert result.returncode == 0
    assert "got good for 1\n" in result.stdout
    assert [record["attempt"] for record in project.attempts("N_1", "start")] == [1, 1, 2]
    assert project.trials() == ["N_1"]


def test_what_was_debugged_is_done_and_the_rest_is_due(project: Project) -> None:
    project.write(ASK.replace("read word; ", "word=good; "))
    assert debug(project, "").returncode == 0
    said = project.run()
    assert said.returncode == 0
    assert [line.rsplit("/", 1)[-1] for line in said.stdout.splitlines() if line.startswith("START")] == ["N_2"] * 2


def test_debugging_chooses_its_trial_like_a_run(project: Project) -> None:
    project.write(ASK + "---\n_title: other\nn: [7, 8]\n")
    assert debug(project, "good\n", "-t", "other").returncode == 0
    assert project.trials() == ["N_7"]


def test_the_first_of_a_million_trials_is_found_at_once(project: Project) -> None:
    project.write(MILLION.replace("100]", "1_000_000_000]").replace("---", "resource: {cpu: 1}\n---"))
    assert "0 0 0\n" in debug(project, "").stdout
