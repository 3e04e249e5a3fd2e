"""The files of a trial: what is written is read again, by us and by others, and damage is told."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner import records
from runner.model import JobState, Outcome
from runner.records import DamagedRecordError
from runner.values import Params, Value, canonical

property_test = settings(suppress_health_check=[HealthCheck.too_slow])

OWN = {"_name": "Lr_1", "_output": "output/Lr_1", "_time": "20260101.000000"}


TEXTS = st.one_of(
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.text(alphabet="0123456789_+-.:eE", max_size=8),
    st.text(alphabet="\n\t '\"\\#:-{}[]a", max_size=12),
    st.sampled_from(["1e-3", "on", "012", "1:30", "null", "~", "", "---", "...", "é\U0001f600", "\x85\u2028\ufeff"]),
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,10}", fullmatch=True)


def typed(params: dict[str, Value]) -> list[tuple[str, str, type]]:
    return [(key, canonical(value), type(value)) for key, value in params.items()]


# --- param ---


@property_test
@given(params=st.dictionaries(KEYS, VALUES, max_size=5), scripts=st.dictionaries(KEYS, TEXTS, max_size=3))
@example(params={"a": 1e-05, "b": math.inf, "c": math.nan, "d": "1e-3", "e": "on"}, scripts={"train": "a\nb\n\n c"})
@example(params={"on": True, "null": None, "1": "1", "1e-3": 0}, scripts={"on": "x", "1": "y"})
@example(params={}, scripts={})
def test_param_is_read_as_it_was_written_by_us_and_by_other_yaml_loaders(
    tmp_path_factory: pytest.TempPathFactory, params: Params, scripts: dict[str, str]
) -> None:
    directory = tmp_path_factory.mktemp("trial")
    records.write_param(str(directory), params, OWN, scripts)
    text = (directory / "param").read_text(encoding="utf-8")
    for loaded in (
        records.read_param(str(directory)),
        yaml.load(text, Loader=yaml.FullLoader),
        yaml.load(text, Loader=yaml.SafeLoader),
    ):
        assert loaded is not None
        assert list(loaded) == [*params, *OWN, "_scripts"]
        assert typed({key: value for key, value in loaded.items() if not key.startswith("_")}) == typed(params)
        assert {key: loaded[key] for key in OWN} == OWN
        assert loaded["_scripts"] == scripts


@pytest.mark.parametrize("value", ["08", "0o17", "-09"])
def test_a_text_of_digits_after_a_zero_keeps_its_type(tmp_path: Path, value: str) -> None:
    records.write_param(str(tmp_path), {"x": value}, OWN, {})
    loaded = records.read_param(str(tmp_path))
    assert loaded is not None
    assert loaded["x"] == value


def test_param_is_plain_for_people(tmp_path: Path) -> None:
    params: Params = {"lr": 0.01, "name": "wsd", "text": "1e-3", "flag": True, "none": None, "n": 3}
    records.write_param(str(tmp_path), params, OWN, {"train": "python -m train --lr 0.01"})
    assert (tmp_path / "param").read_text() == (
        "lr: 0.01\nname: wsd\ntext: '1e-3'\nflag: true\nnone: null\nn: 3\n"
        '_name: "Lr_1"\n_output: "output/Lr_1"\n_time: "20260101.000000"\n'
        '_scripts:\n  train: "python -m train --lr 0.01"\n'
    )


def test_param_is_replaced_as_a_whole(tmp_path: Path) -> None:
    records.write_param(str(tmp_path), {"x": "long " * 100}, OWN, {"a": "1", "b": "2"})
    records.write_param(str(tmp_path), {"y": 1}, OWN, {"b": "3"})
    assert records.read_param(str(tmp_path)) == {"y": 1, **OWN, "_scripts": {"b": "3"}}
    assert [path.name for path in tmp_path.iterdir()] == ["param"]


def test_a_param_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write_param(str(tmp_path), {"x": 1}, OWN, {})

    def refuse(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        records.write_param(str(tmp_path), {"x": 2}, OWN, {})
    monkeypatch.undo()
    assert (records.read_param(str(tmp_path)) or {})["x"] == 1


@pytest.mark.parametrize("text", ["", "lr: 1\n", "_name: x\n_scripts: y\n", "_name: x\n_scripts:\n  a: echo\n  b:\n"])
def test_a_missing_param_is_none_and_one_that_is_cut_is_damaged(tmp_path: Path, text: str) -> None:
    assert records.read_param(str(tmp_path)) is None
    (tmp_path / "param").write_text(text)
    with pytest.raises(DamagedRecordError, match="param: not whole"):
        records.read_param(str(tmp_path))


# --- stat ---

STATS = st.dictionaries(KEYS, st.sampled_from(list(JobState)), max_size=5)


@property_test
@given(stats=st.lists(STATS, min_size=1, max_size=5))
def test_stat_is_read_as_it_was_last_written_even_when_that_was_shorter(
    tmp_path_factory: pytest.TempPathFactory, stats: list[dict[str, JobState]]
) -> None:
    directory = tmp_path_factory.mktemp("trial")
    size = 0
    for stat in stats:
        records.write_stat(str(directory), stat)
        read = records.read_stat(str(directory))
        assert list(read.items()) == list(stat.items())
        size = max(size, (directory / "stat").stat().st_size)
        assert (directory / "stat").stat().st_size == size
        loaded = yaml.load((directory / "stat").read_text(), Loader=yaml.FullLoader) or {}
        assert loaded == {stage: state.value for stage, state in stat.items()}


def test_stat_is_plain_for_people(tmp_path: Path) -> None:
    records.write_stat(str(tmp_path), {"train": JobState.COMPLETED, "test": JobState.RUNNING})
    assert (tmp_path / "stat").read_text() == "train: finished\ntest: running\n"


def test_the_words_of_mlrunner_are_read(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("a: finished\nb: failed\nc: running\n")
    assert records.read_stat(str(tmp_path)) == {
        "a": JobState.COMPLETED,
        "b": JobState.FAILED,
        "c": JobState.RUNNING,
    }


def test_an_unknown_word_counts_as_interrupted(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("a: done\nb: COMPLETED\nc: 1\nd:\ne: [finished]\nf: finished\n")
    stat = records.read_stat(str(tmp_path))
    assert stat.pop("f") is JobState.COMPLETED
    assert set(stat) == {"a", "b", "c", "d", "e"}
    assert set(stat.values()) == {JobState.INTERRUPTED}


def test_a_missing_stat_says_nothing(tmp_path: Path) -> None:
    assert records.read_stat(str(tmp_path)) == {}


@pytest.mark.parametrize("stage", ["08", "0o7"])
def test_a_stage_with_the_name_of_a_padded_number_is_found_again(tmp_path: Path, stage: str) -> None:
    records.write_stat(str(tmp_path), {stage: JobState.COMPLETED})
    assert records.read_stat(str(tmp_path)) == {stage: JobState.COMPLETED}


@pytest.mark.parametrize("file", ["param", "stat"])
@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"a: [1\n", "cannot be read"),
        (b"a: 1\nb: \xff\n", "cannot be read (UnicodeDecodeError)"),
        (b"a: !!python/object/apply:os.getcwd []\n", "cannot be read"),
        (b"a: 1\0\0\0\n", "cannot be read"),
        (b"a: 1\n---\nb: 1\n", "cannot be read"),
        (b"- 1\n", "holds no mapping"),
        (b"finished\n", "holds no mapping"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, file: str, content: bytes, hint: str) -> None:
    (tmp_path / file).write_bytes(content)
    read = records.read_param if file == "param" else records.read_stat
    with pytest.raises(DamagedRecordError) as caught:
        read(str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/{file}: ")
    assert hint in message
    assert message.endswith("move it away or mend it.")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("text", ["a: 0x_\n", "a: !!int x\n", "a: !!bool x\n"])
def test_a_number_that_is_none_is_a_damaged_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "param").write_text(text)
    with pytest.raises(DamagedRecordError):
        records.read_param(str(tmp_path))


# --- attempts ---


def start(stage: str, attempt: int) -> records.Record:
    where = {"slot": "cpu 0", "log": f"log.{stage}", "host": "here", "boot": "b", "pid_namespace": "n"}
    return {"event": "start", "stage": stage, "attempt": attempt, "started": "2026-01-01T00:00:00+00:00", **where}


def exit_as_the_shell_writes_it(directory: Path, stage: str, attempt: int, code: int) -> None:
    script = 'echo "$1$2}" >> "$3"'
    prefix = records.exit_prefix(stage, attempt)
    file = records.attempts_file(str(directory))
    subprocess.run(["bash", "-c", script, "sh", prefix, str(code), file], check=True)


def test_a_trial_without_attempts_has_no_history(tmp_path: Path) -> None:
    history = records.read_attempts(str(tmp_path))
    assert history.attempts == []
    assert history.last("train") is None
    assert records.read_exit_code(str(tmp_path), "train", 1) is None


def test_the_history_is_that_of_all_attempts_in_order(tmp_path: Path) -> None:
    directory = str(tmp_path)
    process = {"event": "process", "stage": "train", "attempt": 1, "pid": 5}
    end = records.end_record("train", 1, Outcome(JobState.FAILED, 3, 1.23456, 20.5, 0.5), "2026-01-01T00:00:00+00:00")
    records.append_attempt(directory, start("train", 1))
    records.append_attempt(directory, process)
    exit_as_the_shell_writes_it(tmp_path, "train", 1, 3)
    records.append_attempt(directory, end)
    records.append_attempt(directory, start("train", 2))
    records.append_attempt(directory, start("test", 1))
    exit_as_the_shell_writes_it(tmp_path, "train", 2, 0)
    history = records.read_attempts(directory)
    assert [(item.stage, item.number, item.exit_code) for item in history.attempts] == [
        ("train", 1, 3),
        ("train", 2, 0),
        ("test", 1, None),
    ]
    first, second, third = history.attempts
    assert (first.start, first.process, first.end) == (start("train", 1), process, end)
    assert (second.process, second.end) == (None, None)
    assert history.last("train") is second
    assert history.last("test") is third
    assert history.last("avg") is None


def test_the_end_record_says_how_it_ended() -> None:
    outcome = Outcome(JobState.FAILED, 1, 1.23456, 20.5, 0.5, "traceback", "ValueError: é")
    assert records.end_record("train", 2, outcome, "2026-01-01T00:00:00+00:00") == {
        "event": "end",
        "stage": "train",
        "attempt": 2,
        "ended": "2026-01-01T00:00:00+00:00",
        "state": "failed",
        "exit_code": 1,
        "seconds": 1.235,
        "cpu_s": 0.5,
        "peak_rss_mib": 20.5,
        "cause": "traceback",
        "line": "ValueError: é",
    }


@pytest.mark.parametrize("code", [0, 1, 75, 143, 255])
def test_the_exit_code_is_the_one_that_the_shell_of_this_attempt_wrote(tmp_path: Path, code: int) -> None:
    for attempt in (1, 11, 111):
        records.append_attempt(str(tmp_path), start("train", attempt))
    exit_as_the_shell_writes_it(tmp_path, "train", 11, code)
    exit_as_the_shell_writes_it(tmp_path, "test", 1, 9)
    assert records.read_exit_code(str(tmp_path), "train", 11) == code
    assert records.read_exit_code(str(tmp_path), "train", 1) is None
    assert records.read_exit_code(str(tmp_path), "train", 111) is None
    assert json.loads(records.exit_prefix("train", 11) + f"{code}}}") == {
        "event": "exit",
        "stage": "train",
        "attempt": 11,
        "exit_code": code,
    }


def test_an_exit_line_that_is_cut_off_does_not_count(tmp_path: Path) -> None:
    records.append_attempt(str(tmp_path), start("train", 1))
    exit_as_the_shell_writes_it(tmp_path, "train", 1, 17)
    text = (tmp_path / "attempts").read_bytes()
    first = text.index(b"\n") + 1
    for length in range(first, len(text)):
        (tmp_path / "attempts").write_bytes(text[:length])
        assert records.read_exit_code(str(tmp_path), "train", 1) is None
        (attempt,) = records.read_attempts(str(tmp_path)).attempts
        assert attempt.exit_code is None
        records.append_attempt(str(tmp_path), start("train", 2))
        assert [item.number for item in records.read_attempts(str(tmp_path)).attempts] == [1, 2]


def test_an_exit_line_after_one_that_was_cut_off_counts(tmp_path: Path) -> None:
    records.append_attempt(str(tmp_path), start("train", 1))
    with (tmp_path / "attempts").open("a") as file:  # the disk was full for a moment
        file.write('{"event": "process", "stage": "train", "attempt": 1, "p')
    exit_as_the_shell_writes_it(tmp_path, "train", 1, 17)
    assert records.read_exit_code(str(tmp_path), "train", 1) == 17
    (attempt,) = records.read_attempts(str(tmp_path)).attempts
    assert (attempt.process, attempt.exit_code) == (None, 17)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        "{}",
        '{"event": "start", "stage": "train"}',
        '{"stage": "train", "attempt": 1}',
        '{"event": "start", "stage": "train", "attempt": "x"}',
        '{"event": "exit", "stage": "train", "attempt": 1}',
        '{"event": "exit", "stage": "train", "attempt": 2, "exit_code": 0}',
        '{"event": "exit", "stage": "train", "attempt": 1, "exit_code": }',
        "\0\0\0",
    ],
)
def test_a_damaged_line_is_refused_with_file_and_number(tmp_path: Path, line: str) -> None:
    good = json.dumps(start("train", 1))
    (tmp_path / "attempts").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DamagedRecordError) as caught:
        records.read_attempts(str(tmp_path))
    message = f"{tmp_path}/attempts, line 2: no attempt record; move the file away or mend it."
    assert str(caught.value) == message


def test_an_event_of_a_newer_version_is_not_taken_for_an_end(tmp_path: Path) -> None:
    records.append_attempt(str(tmp_path), start("train", 1))
    records.append_attempt(str(tmp_path), {"event": "heartbeat", "stage": "train", "attempt": 1})
    with pytest.raises(DamagedRecordError, match="line 2"):
        records.read_attempts(str(tmp_path))


def test_records_of_an_emptied_directory_are_written_again_once_also_where_that_is_cut_off(tmp_path: Path) -> None:
    text = records.write_param(str(tmp_path), {"lr": 1}, OWN, {})
    line = records.append_attempt(str(tmp_path), start("train", 1))
    assert not records.restore(str(tmp_path), text, line)
    (tmp_path / "param").unlink()
    (tmp_path / "attempts").write_text("exit\n")
    (tmp_path / "param.tmp").mkdir()  # in the way of the second file
    with pytest.raises(OSError, match="param"):
        records.restore(str(tmp_path), text, line)
    (tmp_path / "param.tmp").rmdir()
    assert records.restore(str(tmp_path), text, line)
    assert (tmp_path / "param").read_text() == text
    assert (tmp_path / "attempts").read_text() == f"{line}exit\n"


def test_exit_codes_alone_are_what_an_emptied_directory_keeps_only_where_param_is_gone_too(tmp_path: Path) -> None:
    directory = str(tmp_path)
    exit_as_the_shell_writes_it(tmp_path, "train", 1, 0)
    assert records.read_attempts(directory).attempts == []
    (tmp_path / "param").touch()
    with pytest.raises(records.DamagedRecordError, match="line 1: no attempt record"):
        records.read_attempts(directory)
    records.drop_leftover(directory)
    assert (tmp_path / "attempts").exists()
    (tmp_path / "param").unlink()
    records.drop_leftover(directory)
    assert not (tmp_path / "attempts").exists()
    records.append_attempt(directory, {"event": "process", "stage": "train", "attempt": 1, "pid": 5})
    exit_as_the_shell_writes_it(tmp_path, "train", 1, 0)
    with pytest.raises(records.DamagedRecordError, match="line 1: no attempt record"):
        records.read_attempts(directory)
