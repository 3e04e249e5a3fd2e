"""The text and its splits."""

from pathlib import Path

import numpy as np
import pytest

from train.data import STDLIB_BYTES, load, spaced_windows
from train.errors import TrainError


def test_the_standard_library_is_read_the_same_each_time() -> None:
    first, second = load("stdlib", 32), load("stdlib", 32)
    assert first.sha256 == second.sha256
    assert STDLIB_BYTES <= first.n_bytes < STDLIB_BYTES + 1_000_000
    assert 0.88 < len(first.train) / first.n_bytes < 0.92
    assert 0.03 < len(first.val) / first.n_bytes < 0.07
    assert b"import " in first.val.tobytes()


def test_splits_are_disjoint_and_cover_the_text(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    path = tmp_path / "text"
    path.write_bytes(content)
    text = load(str(path), 32)
    assert text.train.tobytes() + text.val.tobytes() + text.test.tobytes() == content
    assert len(text.train) == 9216
    assert len(text.val) == len(text.test) == 512
    assert [len(text.split(name)) for name in ("train", "val", "test")] == [9216, 512, 512]


def write_documents(root: Path) -> None:
    """100 files of one letter each, in two directories, and files that are not data."""
    for index in range(100):
        path = root / ("a" if index % 2 else "b") / f"{index:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * (900 + index))
    (root / ".hidden").write_text("~" * 5000)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x").write_text("~" * 5000)


def test_no_file_is_in_two_splits(tmp_path: Path) -> None:
    write_documents(tmp_path / "one")
    text = load(str(tmp_path / "one"), 32)
    letters = [set(part.tolist()) for part in (text.train, text.val, text.test)]
    assert not letters[0] & letters[1]
    assert not letters[0] & letters[2]
    assert not letters[1] & letters[2]
    assert set.union(*letters) == set(range(100))
    # Shuffled: the splits do not follow the names.
    assert letters[2] != set(range(95, 100))


def test_where_a_directory_lies_does_not_matter(tmp_path: Path) -> None:
    write_documents(tmp_path / "one")
    write_documents(tmp_path / "elsewhere" / "two")
    assert load(str(tmp_path / "one"), 32).sha256 == load(str(tmp_path / "elsewhere" / "two"), 32).sha256


def test_a_text_without_split_that_holds_a_window(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 640)
    load(str(path), 31)
    with pytest.raises(TrainError, match=r"too short: its val split has 32 bytes, .*needs at least 33"):
        load(str(path), 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainError, match="too short: its train split has 0 bytes"):
        load(str(tmp_path / "empty"), 32)
    with pytest.raises(TrainError, match=r"no data at .*absent.* allowed are 'stdlib'"):
        load(str(tmp_path / "absent"), 32)


def test_windows_are_spaced_and_predict_no_byte_twice() -> None:
    data = np.arange(200, dtype=np.uint8)
    every = spaced_windows(data, 10, 1000)
    assert every.shape == (19, 11)
    assert every[:, 1:].ravel().tolist() == list(range(1, 191))
    some = spaced_windows(data, 10, 4)
    assert some[:, 0].tolist() == [0, 40, 90, 140]
    assert spaced_windows(data[:11], 10, 4).shape == (1, 11)
