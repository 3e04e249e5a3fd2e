"""`run` as a user types it: real processes, directories and exit codes."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project

TWO_STAGES = """\
template:
  train: >
    echo training [lr] with {seed}
    > {_output}/model; sleep 0.05
  test: cat {_output}/model
default: {seed: 0}
resource: {cpu: 2}
---
lr: [1e-3, 0.1]
seed: [0, 1]
"""


def test_a_grid_runs_to_its_end_and_leaves_its_records(project: Project) -> None:
    project.write(TWO_STAGES)
    result = project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert project.trials() == ["Lr_0.001-Seed_0", "Lr_0.001-Seed_1", "Lr_0.1-Seed_0", "Lr_0.1-Seed_1"]
    assert project.stat("Lr_0.1-Seed_1") == {"train": "finished", "test": "finished"}
    assert project.log("Lr_0.1-Seed_1", "test") == "training --lr 0.1 with 1\n"
    param = yaml.safe_load((project.output / "Lr_0.1-Seed_1" / "param").read_text())
    assert param["lr"] == 0.1
    assert param["seed"] == 1
    assert param["_name"] == "Lr_0.1-Seed_1"
    assert param["_output"] == "output/Lr_0.1-Seed_1"
    assert param["_scripts"]["test"] == "cat output/Lr_0.1-Seed_1/model"
    assert (project.output / "params.yaml").read_text() == TWO_STAGES


def test_every_event_is_a_line_and_a_table_closes_the_run(project: Project) -> None:
    project.write(TWO_STAGES)
    lines = project.run().stdout.splitlines()
    assert sum(line.startswith("START") for line in lines) == 8
    done = [line for line in lines if line.startswith("DONE")]
    assert len(done) == 8
    assert all(re.fullmatch(r"DONE +cpu [01], (train|test): [1-4]/4, 0\.\d\d s, output/\S+", line) for line in done)
    assert ["train", "4"] in [line.split() for line in lines]
    assert ["test", "4"] in [line.split() for line in lines]


def test_what_is_finished_is_skipped(project: Project) -> None:
    project.write(TWO_STAGES)
    project.run()
    before = {path: path.stat().st_mtime_ns for path in project.output.glob("[!.]*/*")}
    result = project.run()
    assert result.returncode == 0
    assert sum(line.startswith("SKIP") for line in result.stdout.splitlines()) == 8
    assert "START" not in result.stdout
    assert {path: path.stat().st_mtime_ns for path in project.output.glob("[!.]*/*")} == before


def test_force_runs_finished_stages_again(project: Project) -> None:
    project.write(TWO_STAGES)
    project.run()
    result = project.run("-f", "-c", "test")
    assert result.returncode == 0
    assert [record["stage"] for record in project.attempts("Lr_0.1-Seed_0", "start")] == ["train", "test", "test"]
    assert [record["attempt"] for record in project.attempts("Lr_0.1-Seed_0", "start")] == [1, 1, 2]


def test_a_trial_whose_directory_was_deleted_is_due_again(project: Project) -> None:
    project.write(TWO_STAGES)
    project.run()
    trial = project.output / "Lr_0.1-Seed_0"
    for path in trial.iterdir():
        path.unlink()
    trial.rmdir()
    result = project.run()
    started = [line for line in result.stdout.splitlines() if line.startswith("START")]
    assert len(started) == 2
    assert all("output/Lr_0.1-Seed_0" in line for line in started)
    assert project.stat("Lr_0.1-Seed_0") == {"train": "finished", "test": "finished"}


def test_a_failed_stage_blocks_the_rest_of_its_trial_alone(project: Project) -> None:
    project.write(
        "template:\n  a: 'test {n} != 1 || { echo cannot open it; exit 3; }'\n  b: 'true'\n  c: 'true'\n"
        "resource: {cpu: 2}\n---\nn: [0, 1, 2]\n"
    )
    result = project.run()
    assert result.returncode == 1
    assert project.stat("N_1") == {"a": "failed", "b": "blocked", "c": "blocked"}
    assert project.stat("N_0") == project.stat("N_2") == {"a": "finished", "b": "finished", "c": "finished"}
    fail = next(line for line in result.stdout.splitlines() if line.startswith("FAIL"))
    assert "exit code 3" in fail
    assert "  cannot open it\n" in result.stdout
    assert project.attempts("N_1", "end")[0]["exit_code"] == 3


def test_what_failed_is_due_again_and_can_complete(project: Project) -> None:
    project.write("template:\n  a: 'test -e repaired'\n  b: 'true'\nresource: {cpu: 1}\n---\nn: 0\n")
    assert project.run().returncode == 1
    (project.path / "repaired").touch()
    assert project.run().returncode == 0
    assert project.stat("N_0") == {"a": "finished", "b": "finished"}
    assert [record["exit_code"] for record in project.attempts("N_0", "end")] == [1, 0, 0]


def test_no_more_run_at_a_time_than_there_are_slots(project: Project) -> None:
    # Each attempt counts the attempts that are under way.
    project.write(
        "template:\n  a: 'touch busy.{n}; ls | grep -c ^busy; sleep 0.1; rm busy.{n}'\n"
        "resource: {cpu: 3}\n---\nn: [0, 1, 2, 3, 4, 5, 6, 7, 8]\n"
    )
    assert project.run().returncode == 0
    counts = [int(project.log(trial, "a")) for trial in project.trials()]
    assert max(counts) == 3


def test_the_stages_of_a_trial_keep_its_slot(project: Project) -> None:
    project.write(TWO_STAGES)
    project.run()
    for trial in project.trials():
        slots = {record["slot"] for record in project.attempts(trial, "start")}
        assert len(slots) == 1


@pytest.mark.parametrize(
    ("resource", "shown"), [("[3]", "3 PCI_BUS_ID"), ("['0,1']", "0,1 PCI_BUS_ID"), ("{cpu: 1}", "unset unset")]
)
def test_gpus_are_shown_to_every_command_of_a_line(project: Project, resource: str, shown: str) -> None:
    project.write(
        "template:\n  a: 'true; echo ${CUDA_VISIBLE_DEVICES:-unset} ${CUDA_DEVICE_ORDER:-unset}'\n"
        f"resource: {resource}\n---\nn: 0\n"
    )
    project.run()
    assert project.log("N_0", "a") == f"{shown}\n"


def test_the_environment_says_output_stage_and_attempt(project: Project) -> None:
    project.write(
        "template:\n  a: 'echo $RUNNER_OUTPUT $RUNNER_STAGE $RUNNER_ATTEMPT; exit 1'\nresource: {cpu: 1}\n---\nn: 0\n"
    )
    project.run()
    assert project.log("N_0", "a") == "output/N_0 a 1\n"
    project.run()
    assert project.log("N_0", "a") == "output/N_0 a 2\n"


def test_title_command_and_resource_choose(project: Project) -> None:
    project.write(TWO_STAGES.replace("lr: [1e-3, 0.1]", "_title: first\nlr: 1") + "---\n_title: second\nlr: 2\n")
    assert project.run("-t", "second", "-c", "train", "-r", "cpu:1").returncode == 0
    assert project.trials() == ["Lr_2"]
    assert project.stat("Lr_2") == {"train": "finished"}
    assert (project.output / "params.yaml.second").exists()


def test_cmd_in_a_grid_chooses_its_stages(project: Project) -> None:
    project.write(TWO_STAGES + "---\nlr: 5\n_cmd: train\n")
    assert project.run().returncode == 0
    assert project.stat("Lr_5") == {"train": "finished"}
    assert project.stat("Lr_0.1-Seed_0") == {"train": "finished", "test": "finished"}


def test_dry_run_prints_the_commands_and_writes_nothing(project: Project) -> None:
    project.write(TWO_STAGES)
    result = project.run("--dry-run")
    assert result.returncode == 0
    assert "echo training --lr 0.001 with 0 > output/Lr_0.001-Seed_0/model; sleep 0.05" in result.stdout
    assert sorted(path.name for path in project.path.iterdir()) == ["params.yaml"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("template: {a: 'x {lr}'}\n---\nseed: 0\n", [], "params.yaml, line 1, template.a: no value for {lr}"),
        (TWO_STAGES, ["-t", "frist"], "-t frist: no such title."),
        (TWO_STAGES, ["-c", "tset"], "Did you mean 'test'?"),
        (TWO_STAGES, ["-r", "gpu 1"], "-r gpu 1: no resource"),
        (TWO_STAGES, ["-y", "other.yaml"], "other.yaml: no such file"),
        (TWO_STAGES, ["-o", "params.yaml"], "-o params.yaml: is a file"),
        (TWO_STAGES, ["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (TWO_STAGES, ["params.yaml"], "'params.yaml' is a file: `run -y params.yaml` runs what stands in it"),
        (TWO_STAGES, ["-o", "x", "status"], "'status' is a subcommand, which comes first: `run status …`"),
        (TWO_STAGES, ["stauts"], "there is no subcommand 'stauts'. Did you mean 'status'?"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(
    project: Project, text: str, arguments: list[str], message: str
) -> None:
    project.write(text)
    result = project.run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in project.path.iterdir()] == ["params.yaml"]


def test_an_output_that_cannot_be_made_is_one_message(project: Project) -> None:
    project.write(TWO_STAGES)
    result = project.run("-o", "/proc/output")
    assert result.returncode == 1
    assert "run: error: /proc/output" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_run_joins_the_first_ones_daemon(project: Project, until: Callable[..., None]) -> None:
    project.write("template: {a: 'while ! test -e go; do sleep 0.05; done'}\nresource: {cpu: 1}\n---\nn: 0\n")
    first = project.start()
    until(project.living, project.trials)
    project.write("template: {a: 'true'}\nresource: {cpu: 1}\n---\nn: [0, 1]\n")
    second = project.start()
    assert second.stdout is not None
    until(lambda: "Applied to the queue: 1 new, 1 running." in second.stdout.readline(), project.trials)
    assert len(project.daemons()) == 1
    (project.path / "go").touch()
    assert [process.wait(30) for process in (first, second)] == [0, 0]
    assert [len(project.attempts(f"N_{n}", "start")) for n in (0, 1)] == [1, 1]


def test_orphans_and_suspicious_values_are_told(project: Project) -> None:
    project.write("template:\n  a: echo {lr}\nresource: {cpu: 1}\n---\nlr: 012\nnote: on\n")
    result = project.run()
    assert "Orphan parameters, which no command uses: note" in result.stdout
    assert "params.yaml, line 5, lr: 012 is read as the number 12" in result.stdout
    assert "line 6, note: on is read as True" in result.stdout


def test_values_reach_the_program_as_they_are(project: Project) -> None:
    values = ["it's", 'say "hi"', "$HOME `id` \\", "a;b|c&d", "{lr} [lr]", "é\u2028日本", "-x", "", " ", "*", "~"]
    text = yaml.safe_dump_all(
        [
            {"template": {"a": 'python -c "import sys; print(ascii(sys.argv[1:]))" {v} "{v}"'}, "resource": {"cpu": 2}},
            {"v": values},
        ],
        allow_unicode=True,
    )
    project.write(text)
    result = project.run()
    assert result.returncode == 0, result.stdout
    read = [yaml.safe_load((project.output / trial / "param").read_text())["v"] for trial in project.trials()]
    assert sorted(read) == sorted(values)
    for trial, value in zip(project.trials(), read, strict=True):
        assert project.log(trial, "a") == ascii([value, value]) + "\n"


def test_mlrunners_directories_are_understood(project: Project) -> None:
    for name, lr, stat in (("Lr_0.1", 0.1, "finished"), ("Lr_0.2", 0.2, "running"), ("Lr_0.3", 0.3, "failed")):
        directory = project.output / name
        directory.mkdir(parents=True)
        own = {"_name": name, "_output": f"output/{name}", "_time": "20240101.000000", "_scripts": {}}
        own["_scripts"] = {"a": f"CUDA_VISIBLE_DEVICES=0 true --lr {lr}  > output/{name}/log.a.20240101.000000 2>&1"}
        (directory / "param").write_text(yaml.dump({"lr": lr, "seed": 0, **own}))
        (directory / "stat").write_text(yaml.dump({"a": stat}))
    project.write("template:\n  a: 'true [lr]'\ndefault: {seed: 0}\nresource: {cpu: 1}\n---\nlr: [0.1, 0.2, 0.3]\n")
    result = project.run()
    assert result.returncode == 0
    assert "another command" not in result.stdout
    assert [len(project.attempts(name, "start")) for name in ("Lr_0.1", "Lr_0.2", "Lr_0.3")] == [0, 1, 1]
    assert project.trials() == ["Lr_0.1", "Lr_0.2", "Lr_0.3"]


def test_results_are_printed_and_drawn(project: Project) -> None:
    (project.path / "program.py").write_text(
        "import sys\nprint('step,lr,loss')\n"
        "for step in range(1, 9):\n    print(step, 0.1, 1 / step + float(sys.argv[1]), sep=',')\n"
    )
    command = "python program.py {lr} > {_output}/metrics.csv"
    project.write(f"template:\n  a: {command}\nresource: {{cpu: 2}}\n---\nlr: [0.5, 0.25]\n")
    result = project.run()
    assert result.returncode == 0, result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["lr", "loss"] in rows
    assert ["0.25", "0.375"] in rows
    assert ["0.5", "0.625"] in rows
    assert "Curves of 2 trials: output/curves.png" in result.stdout
    assert (project.output / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_default_that_is_added_runs_nothing_again(project: Project) -> None:
    project.write(TWO_STAGES)
    project.run()
    project.write(TWO_STAGES.replace("default: {seed: 0}", "default: {seed: 0, dropout: 0.0}"))
    assert "START" not in project.run().stdout
    project.write(TWO_STAGES.replace("default: {seed: 0}", "default: {seed: 0, dropout: 0.1}"))
    assert project.run().stdout.count("START") == 8
    assert len(project.trials()) == 8


def test_a_changed_template_runs_nothing_again_and_a_new_stage_runs_alone(project: Project) -> None:
    project.write(TWO_STAGES)
    project.run()
    project.write(TWO_STAGES.replace("sleep 0.05", "sleep 0.06"))
    assert "START" not in project.run().stdout
    project.write(TWO_STAGES.replace("default:", "  third: echo again\ndefault:"))
    result = project.run()
    assert result.stdout.count("START") == 4
    assert project.stat("Lr_0.1-Seed_0") == {"train": "finished", "test": "finished", "third": "finished"}
    scripts = yaml.safe_load((project.output / "Lr_0.1-Seed_0" / "param").read_text())["_scripts"]
    assert list(scripts) == ["train", "test", "third"]


def descriptors_of(log: str) -> list[str]:
    """What the `ls -l` of a process's descriptors shows, without those that ls itself opens."""
    return [line for line in log.splitlines() if "->" in line and "/proc/" not in line]


def test_attempts_inherit_no_descriptors(project: Project) -> None:
    project.write("template: {a: ls -l /proc/self/fd}\nresource: {cpu: 1}\n---\nn: 0\n")
    project.run()
    shown = descriptors_of(project.log("N_0", "a"))
    assert len(shown) == 3
    assert "/dev/null" in shown[0]
    assert all("log.a." in line for line in shown[1:])


def test_an_exclude_that_leaves_nothing_is_told(project: Project) -> None:
    project.write("template: {a: echo}\nresource: {cpu: 2}\n---\nx: [1, 2]\n_exclude: {x: [1, 2]}\n")
    result = project.run()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Orphan parameters, which no command uses: x",
        "Trials: 0, jobs: 0, on 2 CPU slots",
        "`_exclude` leaves out every combination; `run check` counts those of each grid.",
    ]


def test_logs_of_attempts_in_the_same_second_stay_apart(project: Project) -> None:
    project.write("template: {a: 'echo $RUNNER_ATTEMPT; exit 1'}\nresource: {cpu: 1}\n---\nn: 0\n")
    for _ in range(3):
        project.run()
    logs = sorted((project.output / "N_0").glob("log.a.*"), key=os.path.getmtime)
    assert [log.read_text() for log in logs] == ["1\n", "2\n", "3\n"]


def records_of_peak(project: Project) -> list[Any]:
    return [record["peak_rss_mib"] for record in project.attempts("N_0", "end")]


def test_the_end_record_holds_cpu_time_and_peak_memory(project: Project) -> None:
    program = 'python -c "x = bytearray(200 * 2**20); sum(i * i for i in range(10**6))"'
    project.write(f"template:\n  a: {json.dumps(program)}\nresource: {{cpu: 1}}\n---\nn: 0\n")
    project.run()
    end = project.attempts("N_0", "end")[0]
    assert 200 < end["peak_rss_mib"] < 300
    assert end["cpu_s"] > 0
    assert end["seconds"] > 0
