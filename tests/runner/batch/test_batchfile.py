"""Batches on disk."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from runner.batch import batchfile
from runner.batch.batchfile import DamagedBatchError, Intent, Part

if TYPE_CHECKING:
    from pathlib import Path

INTENT = Intent(
    "run-1", "slurm", {"time": "1h", "lines": ["--x"]}, "p1", "/home/ü", None, 4,
    (
        (Part("T_0", {"a": ("p1", 100, 7), "b": ("p0", 5, 8)}, "ask", "inputs"),),
        (Part("T_1", {"a": ("p1", 9, 9)}, "ask"),),
    ),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = batchfile.directory_of(tmp_path) / INTENT.name
    batchfile.write(path, INTENT)
    return path


def test_an_intent_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    assert batchfile.read(folder) == INTENT
    assert batchfile.folders(tmp_path) == [folder]


def test_no_two_batches_have_one_name() -> None:
    assert len({batchfile.new_name() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1}', '{"version": 99, "tasks": []}', '{"version": 1, "tasks": [[{"key": 1}]]}'],
)
def test_what_cannot_be_read_is_told_with_what_to_do(folder: Path, text: str) -> None:
    (folder / "batch.json").write_text(text)
    with pytest.raises(DamagedBatchError, match=r"run-1/batch\.json cannot be read \(.*\): end the job run-1"):
        batchfile.read(folder)


def test_nothing_is_left_of_a_batch_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        batchfile.write(tmp_path / "run-1", INTENT)
    assert not (tmp_path / "run-1").exists()


def test_what_a_kill_left_half_made_is_cleared_and_the_rest_stays(folder: Path, tmp_path: Path) -> None:
    for name in ("run-2", "other"):
        (folder.parent / name).mkdir()
        (folder.parent / name / "batch.json.tmp").write_text("{")
    batchfile.clear(tmp_path)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["other", "run-1"]


def test_a_job_is_known_once_it_was_noted(folder: Path) -> None:
    assert batchfile.job_of(folder) is None
    batchfile.note_job(folder, "17")
    assert batchfile.job_of(folder) == "17"


def test_while_its_command_lives_a_batch_is_being_submitted(folder: Path) -> None:
    assert not batchfile.was_tried(folder)
    with batchfile.submitting(folder):
        assert batchfile.is_submitting(folder)
    assert not batchfile.is_submitting(folder)
    assert batchfile.was_tried(folder)


def test_settled_tasks_are_remembered(folder: Path) -> None:
    assert batchfile.settled(folder) == set()
    for number in (3, 0, 3):
        batchfile.settle(folder, number)
    assert batchfile.settled(folder) == {0, 3}


def test_each_word_is_read_once(folder: Path) -> None:
    words = batchfile.Words(folder)
    assert words.take() == []
    batchfile.tell(folder, "cancel", ["T_0"])
    batchfile.tell(folder, "stop", ["T_0", "T_1"])
    assert words.take() == [{"word": "cancel", "trials": ["T_0"]}, {"word": "stop", "trials": ["T_0", "T_1"]}]
    assert words.take() == []


def test_a_word_that_is_being_written_waits_until_it_is_whole(folder: Path) -> None:
    words = batchfile.Words(folder)
    path = folder / "words.jsonl"
    path.write_text('{"word": "stop", ')
    assert words.take() == []
    with path.open("a") as file:
        file.write('"trials": ["T_0"]}\n')
    assert len(words.take()) == 1


def test_a_batch_that_is_removed_twice_is_gone(folder: Path, tmp_path: Path) -> None:
    batchfile.delete(folder)
    batchfile.delete(folder)
    assert not folder.exists()
    assert batchfile.folders(tmp_path) == []
