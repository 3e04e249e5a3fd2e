"""What came of a run, counted by stage, and its results."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from runner.events import Event, Kind
from runner.model import Job, JobState, Trial
from runner.screen import closing
from runner.screen.closing import counts_by_stage, print_failures, print_results
from runner.screen.progress import Progress

ENDS = {
    JobState.COMPLETED: Kind.DONE,
    JobState.FAILED: Kind.FAIL,
    JobState.BLOCKED: Kind.BLOCK,
    JobState.INTERRUPTED: Kind.INTERRUPT,
    JobState.CANCELED: Kind.CANCEL,
    JobState.PRUNED: Kind.PRUNE,
    JobState.RUNNING: Kind.START,
}
FINAL: list[dict[str, Kind | None]] = [
    {"train": Kind.DONE, "test": Kind.DONE},
    {"train": Kind.DONE, "test": Kind.FAIL},
    {"train": Kind.FAIL, "test": Kind.BLOCK},
    {"train": Kind.INTERRUPT, "test": Kind.BLOCK},
    {"train": None, "test": None},
    {"avg": Kind.DONE},
]


def run_of(trials: Iterable[Mapping[str, Kind | None]]) -> tuple[list[Job], Progress]:
    """A run in which each job came to an event of a kind, or to none."""
    jobs: list[Job] = []
    progress = Progress(Counter(), 1)
    for index, kinds in enumerate(trials):
        trial = Trial(index, f"id{index}", f"T_{index}", f"output/T_{index}", f"output/T_{index}", tuple(kinds))
        for stage, kind in kinds.items():
            jobs.append(Job(trial, stage))
            if kind is not None:
                progress.handle(Event(kind, jobs[-1], 0.0))
    return jobs, progress


def test_every_job_is_counted_once_in_its_stage() -> None:
    counts = counts_by_stage(*run_of(FINAL))
    assert list(counts) == ["train", "test", "avg"]
    assert dict(counts["train"]) == {"completed": 2, "failed": 1, "interrupted": 1, "not run": 1}
    assert dict(counts["test"]) == {"completed": 1, "failed": 1, "blocked": 2, "not run": 1}
    assert dict(counts["avg"]) == {"completed": 1}


def test_what_was_finished_before_is_skipped_and_not_completed() -> None:
    before: list[dict[str, Kind | None]] = [{"train": Kind.SKIP, "test": Kind.DONE}, *FINAL[1:5], {"avg": Kind.SKIP}]
    counts = counts_by_stage(*run_of(before))
    assert (counts["train"]["completed"], counts["train"]["skipped"]) == (1, 1)
    assert (counts["avg"]["completed"], counts["avg"]["skipped"]) == (0, 1)
    assert sum(counts["train"].values()) == 5


def test_every_end_has_its_word() -> None:
    counts = counts_by_stage(*run_of([{"train": None}, *({"train": kind} for kind in ENDS.values())]))
    assert set(counts["train"].values()) == {1}
    assert sum(counts["train"].values()) == len(ENDS) + 1


@pytest.mark.parametrize(("kind", "word"), [(Kind.RETRY, "not run"), (Kind.WAIT, "not run"), (Kind.DROP, "canceled")])
def test_what_is_due_again_has_not_run_and_what_was_taken_out_is_canceled(kind: Kind, word: str) -> None:
    jobs, progress = run_of([{"train": Kind.FAIL}])
    progress.handle(Event(kind, jobs[0], 1.0))
    assert dict(counts_by_stage(jobs, progress)["train"]) == {word: 1}


def test_an_empty_plan_has_no_counts() -> None:
    assert counts_by_stage(*run_of([])) == {}


def test_what_many_failed_of_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [Trial(index, f"id{index}", f"T_{index}", f"o/T_{index}", f"o/T_{index}", ("a",)) for index in range(1500)]
    refused = [Event(Kind.FAIL, Job(trial, "a"), 0.0, cause="exit", line="no such partition") for trial in trials]
    own = Event(
        Kind.FAIL, Job(trials[3], "b"), 0.0, exit_code=1, log="o/T_3/log", cause="exit", line="no such partition"
    )
    print_failures(Console(width=200), [*refused, own])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Failed")] == [
        "Failed: a, T_0 and 1,499 more trials",
        "Failed: b, T_3",
    ]
    assert lines.count("  no such partition") == 2
    assert "more that failed" not in "".join(lines)


DATA = "/home/somebody/data/数据集/{}/tokens-of-the-training-split.bin"


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Trials that a screen of 80 columns is too narrow for."""
    monkeypatch.chdir(tmp_path)
    found = []
    for number in range(8):
        params: dict[str, Any] = {"data": DATA.format("大小"[number // 4]), "lr": [0.1, 0.01][number // 2 % 2]}
        params |= {"seed": number % 2, "warmup": [100, 1000][number // 2 % 2], "schedule": "cosine"}
        params |= {"weight_decay": None if number < 4 else 0.5, "gradient_accumulation_steps": 1 + number // 4}
        directory = Path(f"results/T_{number}")
        directory.mkdir(parents=True)
        (directory / "param").write_text(yaml.safe_dump(params, allow_unicode=True))
        (directory / "metrics.csv").write_text(f"step,lr,loss,val_loss\n1,0.1,{2 + number / 10},{number + 1 / 3!r}\n")
        found.append(Trial(number, f"id{number}", directory.name, str(directory), str(directory), ("train",)))
    return found


def printed_results(trials: list[Trial], width: int, is_terminal: bool = True) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system=None, highlight=False)
    print_results(console, trials, Path("results"))
    return file.getvalue().strip().splitlines()


METRICS = [f"{2 + number / 10:.5g} {number + 1 / 3:.5g}" for number in (2, 3, 0, 1, 6, 7, 4, 5)]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_shows_all_metrics(trials: list[Trial], width: int) -> None:
    lines = printed_results(trials, width)
    assert max(map(cell_len, lines)) <= width
    start = next(place for place, line in enumerate(lines) if line.endswith("val_loss"))
    assert lines[start].split()[-2:] == ["loss", "val_loss"]
    assert [" ".join(line.split()[-2:]) for line in lines[start + 1 : start + 9]] == METRICS


def test_texts_are_shortened_before_parameters_are_left_out(trials: list[Trial]) -> None:
    narrow, narrower = printed_results(trials, 80), printed_results(trials, 60)
    assert not any("Left out" in line for line in narrow)
    assert narrow[2].split() == ["…ta/数据集/大…", "1", "0.01", "1000", "·", "0", "2.2", "2.3333"]
    assert narrower[1].split() == ["…omebody/data/数据集/大…", "0.01", "1000", "0", "2.2", "2.3333"]
    assert " ".join(" ".join(narrower[9:11]).split()) == (
        "Left out to fit: gradient_accumulation_steps, weight_decay; `run table -o results` and the Examiner show all."
    )


@pytest.mark.parametrize(("width", "is_terminal"), [(200, True), (80, False)])
def test_on_a_wide_terminal_and_in_a_file_the_table_is_whole(
    trials: list[Trial], width: int, is_terminal: bool
) -> None:
    header, *lines = printed_results(trials, width, is_terminal)
    assert header.split() == [
        "data", "gradient_accumulation_steps", "lr", "warmup", "weight_decay", "seed", "loss", "val_loss"
    ]  # fmt: skip
    assert lines[0].split()[0] == DATA.format("大")
    assert [" ".join(line.split()[-2:]) for line in lines[:8]] == METRICS
    assert not any("Left out" in line for line in lines)


def test_of_many_trials_the_first_are_shown(trials: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "_RESULTS_SHOWN", 3)
    assert printed_results(trials, 200)[4] == "… and 5 more trials."


def test_results_without_any_column_are_no_table(trials: list[Trial]) -> None:
    Path(trials[0].output, "metrics.csv").write_text("step,lr\n1,0.1\n")
    assert printed_results(trials[:1], 80) == []
    assert printed_results([], 80) == []
