"""The journal of an output directory."""

import json
import zlib
from pathlib import Path

import pytest

from runner.plan import DamagedJournalError, Journal, newly_introduced
from runner.values import Params


def journal(output: Path, *entries: dict[str, object]) -> Journal:
    written = Journal(output)
    for entry in entries:
        written.append(entry)
    return written


def test_a_new_output_directory_has_an_empty_journal(tmp_path: Path) -> None:
    empty = Journal(tmp_path / "output")
    assert empty.entries() == []
    assert empty.introduced() == {}
    assert not (tmp_path / "output").exists()


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    written = journal(tmp_path / "output", {"kind": "plan", "n": 1}, {"kind": "plan", "text": "é\n"})
    assert written.path == tmp_path / "output" / ".runner" / "plan.jsonl"
    expected = [{"version": 1, "kind": "plan", "n": 1}, {"version": 1, "kind": "plan", "text": "é\n"}]
    assert Journal(tmp_path / "output").entries() == expected


def test_every_line_is_a_checksum_and_a_json_object(tmp_path: Path) -> None:
    path = journal(tmp_path, {"kind": "plan"}).path
    checksum, _, text = path.read_bytes().rstrip(b"\n").partition(b" ")
    assert int(checksum, 16) == zlib.crc32(text)
    assert json.loads(text) == {"version": 1, "kind": "plan"}


def test_a_journal_cut_at_any_byte_keeps_its_whole_entries_and_goes_on(tmp_path: Path) -> None:
    text = journal(tmp_path / "whole", {"n": 1}, {"n": 2}, {"n": 3}).path.read_bytes()
    for length in range(len(text) + 1):
        cut = Journal(tmp_path / str(length))
        cut.path.parent.mkdir(parents=True)
        cut.path.write_bytes(text[:length])
        whole = [1, 2, 3][: text[:length].count(b"\n")]
        assert [entry["n"] for entry in cut.entries()] == whole
        cut.append({"n": 4})
        assert [entry["n"] for entry in cut.entries()] == [*whole, 4]


def test_a_line_damaged_at_any_byte_is_refused_with_its_number(tmp_path: Path) -> None:
    damaged = journal(tmp_path, {"n": 1}, {"n": 2}, {"n": 3})
    lines = damaged.path.read_bytes().splitlines(keepends=True)
    for index in range(len(lines[1]) - 1):
        broken = bytearray(lines[1])
        broken[index] ^= 1 if broken[index] ^ 1 != ord("\n") else 2
        damaged.path.write_bytes(lines[0] + bytes(broken) + lines[2])
        with pytest.raises(DamagedJournalError) as caught:
            damaged.entries()
        assert str(caught.value) == f"{damaged.path}, line 2: damaged; move the file away or mend it."


@pytest.mark.parametrize("line", [b"", b"\0\0\0\0", b"{}", b"00000000 {}"])
def test_a_foreign_line_is_refused(tmp_path: Path, line: bytes) -> None:
    damaged = journal(tmp_path, {"n": 1})
    damaged.path.write_bytes(damaged.path.read_bytes() + line + b"\n")
    with pytest.raises(DamagedJournalError, match="line 2: damaged"):
        damaged.introduced()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    newer = journal(tmp_path, {"n": 1}, {"n": 2, "version": 2})
    with pytest.raises(DamagedJournalError, match="line 2: written by a newer version of run; use that one"):
        newer.entries()


def test_a_damaged_journal_ends_a_run_with_exit_code_1() -> None:
    assert DamagedJournalError("x").exit_code == 1


def test_a_default_counts_as_it_was_first_introduced(tmp_path: Path) -> None:
    written = journal(
        tmp_path,
        {"introduced": {"lr": 0.01, "seed": 0}},
        {"kind": "other"},
        {"introduced": {"lr": 0.1, "dropout": None, "name": "1e-3", "x": 1.0}},
    )
    introduced = written.introduced()
    assert introduced == {"lr": 0.01, "seed": 0, "dropout": None, "name": "1e-3", "x": 1.0}


def test_introduced_defaults_keep_their_types(tmp_path: Path) -> None:
    values: Params = {"a": 1, "b": 1.0, "c": True, "d": None, "e": "1", "f": 1e-05, "g": float("inf"), "h": "é\n"}
    introduced = journal(tmp_path, {"introduced": values}).introduced()
    assert {key: repr(value) for key, value in introduced.items()} == {
        key: repr(value) for key, value in values.items()
    }


def test_only_unknown_parameters_are_newly_introduced() -> None:
    assert newly_introduced({"lr": 0.1, "seed": 1, "x": None}, {"lr": 0.01, "y": 2}) == {"seed": 1, "x": None}
