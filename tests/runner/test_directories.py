"""Which directory belongs to which trial."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import records
from runner.directories import Directories
from runner.errors import InputError
from runner.grid import trial_id
from runner.records import DamagedRecordError
from runner.trials import Draft
from runner.values import Params, Value


def draft(name: str, params: Params, introduced: Params | None = None) -> Draft:
    return Draft(trial_id(params, introduced or {}), name, params, ("train",), "grid 1", 0)


def write(output: Path, name: str, params: Params) -> None:
    """A directory as an earlier run left it."""
    (output / name).mkdir(parents=True)
    own = {"_name": name, "_output": f"{output}/{name}", "_time": "20260101.000000"}
    records.write_param(f"{output}/{name}", params, own, {"train": "run"})


def write_as_mlrunner(output: Path, name: str, params: Params) -> None:
    (output / name).mkdir(parents=True)
    own = {"_name": name, "_time": "20200101.000000", "_output": f"output/{name}", "_scripts": {"train": "CUDA… x"}}
    with (output / name / "param").open("w", encoding="utf-8") as file:
        yaml.dump({**params, **own}, file, width=1000000)


def test_a_new_trial_gets_the_name_it_wants(tmp_path: Path) -> None:
    directories = Directories(tmp_path / "output", {})
    assert directories.name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"
    assert not (tmp_path / "output").exists()


def test_a_trial_is_found_again_in_its_directory(tmp_path: Path) -> None:
    write(tmp_path, "Lr_1", {"lr": 1})
    assert Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"


def test_a_name_once_given_stays(tmp_path: Path) -> None:
    write(tmp_path, "Lr_1", {"lr": 1, "seed": 0})
    assert Directories(tmp_path, {}).name_of(draft("Lr_1-Seed_0", {"lr": 1, "seed": 0})) == "Lr_1"


def test_a_name_with_a_hash_stays_when_the_other_owner_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "Lr_1-0123abcd", {"lr": 1})
    assert Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1})) == "Lr_1-0123abcd"


@pytest.mark.parametrize("other", [1.0, "1", True])
def test_a_later_trial_of_the_same_name_gets_a_hash(tmp_path: Path, other: Value) -> None:
    write(tmp_path, "Lr_1", {"lr": 1})
    directories = Directories(tmp_path, {})
    late = draft("Lr_1", {"lr": other})
    assert directories.name_of(late) == f"Lr_1-{late.trial_id[:8]}"
    assert directories.name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"


def test_a_changed_default_makes_another_directory(tmp_path: Path) -> None:
    introduced: Params = {"dropout": 0.0}
    write(tmp_path, "Lr_1", {"lr": 1, "dropout": 0.0})
    late = draft("Lr_1", {"lr": 1, "dropout": 0.1}, introduced)
    assert Directories(tmp_path, introduced).name_of(late) == f"Lr_1-{late.trial_id[:8]}"


def test_a_new_parameter_at_its_default_finds_the_old_directory(tmp_path: Path) -> None:
    introduced: Params = {"dropout": 0.0}
    write(tmp_path, "Lr_1", {"lr": 1})
    params: Params = {"lr": 1, "dropout": 0.0}
    assert Directories(tmp_path, introduced).name_of(draft("Lr_1", params, introduced)) == "Lr_1"


def test_two_new_trials_of_one_name_get_two_directories(tmp_path: Path) -> None:
    directories = Directories(tmp_path, {})
    drafts = [draft("Lr_1", {"lr": 1}), draft("Lr_1", {"lr": "1"})]
    first, second = [directories.name_of(item) for item in drafts]
    assert (first, second) == ("Lr_1", f"Lr_1-{drafts[1].trial_id[:8]}")
    assert [directories.name_of(item) for item in drafts] == [first, second]


def test_a_hash_that_is_taken_too_gives_way_to_the_whole_id(tmp_path: Path) -> None:
    late = draft("Lr_1", {"lr": 1})
    write(tmp_path, "Lr_1", {"lr": 2})
    write(tmp_path, f"Lr_1-{late.trial_id[:8]}", {"lr": 3})
    assert Directories(tmp_path, {}).name_of(late) == late.trial_id


def test_a_file_in_the_way_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "Lr_1").write_text("mine")
    with pytest.raises(InputError, match=r"Lr_1: a file is in the way of a trial's directory; move it away\."):
        Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1}))


def test_a_file_in_the_way_of_a_name_with_a_hash_is_an_error(tmp_path: Path) -> None:
    late = draft("Lr_1", {"lr": 1})
    write(tmp_path, "Lr_1", {"lr": 2})
    (tmp_path / f"Lr_1-{late.trial_id[:8]}").write_text("mine")
    with pytest.raises(InputError, match="a file is in the way"):
        Directories(tmp_path, {}).name_of(late)


def test_files_beside_the_directories_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("x: [")
    (tmp_path / ".runner").mkdir()
    (tmp_path / "curves.png").touch()
    assert Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"


def test_an_empty_directory_is_taken_by_the_trial_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "Lr_1").mkdir()
    assert Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"


@pytest.mark.parametrize("content", ["", "{}\n", "lr: 1\n"])
def test_a_param_that_was_cut_is_never_taken_for_another_trials(tmp_path: Path, content: str) -> None:
    (tmp_path / "Lr_1").mkdir()
    (tmp_path / "Lr_1" / "param").write_text(content)
    with pytest.raises(DamagedRecordError, match="Lr_1/param"):
        Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1}))


def test_a_directory_without_param_belongs_to_one_trial_only(tmp_path: Path) -> None:
    (tmp_path / "Lr_1").mkdir()
    directories = Directories(tmp_path, {})
    assert directories.name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"
    late = draft("Lr_1", {"lr": 1.0})
    assert directories.name_of(late) == f"Lr_1-{late.trial_id[:8]}"


def test_a_directory_of_mlrunner_is_recognised(tmp_path: Path) -> None:
    params: Params = {"lr": "1e-3", "seed": 1, "flag": True, "note": "a: b", "wd": 1e-05}
    write_as_mlrunner(tmp_path, "Lr_1e-3", params)
    ours = draft("Lr_0.001", {**params, "lr": 0.001})
    assert Directories(tmp_path, {}).name_of(ours) == "Lr_1e-3"


def test_a_directory_that_the_user_deleted_is_new_again(tmp_path: Path) -> None:
    write(tmp_path, "Lr_1", {"lr": 1})
    first = Directories(tmp_path, {})
    assert first.name_of(draft("Lr_1-Seed_0", {"lr": 1})) == "Lr_1"
    (tmp_path / "Lr_1" / "param").unlink()
    (tmp_path / "Lr_1").rmdir()
    assert Directories(tmp_path, {}).name_of(draft("Lr_1-Seed_0", {"lr": 1})) == "Lr_1-Seed_0"


def test_a_linked_directory_is_a_directory(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "x", {"lr": 1})
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "Lr_1").symlink_to(tmp_path / "elsewhere" / "x")
    assert Directories(tmp_path / "output", {}).name_of(draft("Lr_1", {"lr": 1})) == "Lr_1"


def test_a_damaged_param_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "Lr_1").mkdir()
    (tmp_path / "Lr_1" / "param").write_text("lr: [1\n")
    with pytest.raises(DamagedRecordError, match="Lr_1/param"):
        Directories(tmp_path, {}).name_of(draft("Lr_1", {"lr": 1}))


NAMES = st.sampled_from(["A", "B", "C"])
PARAMS = st.fixed_dictionaries({"x": st.sampled_from([0, 1, 1.0, True, "1", None])})


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.dictionaries(NAMES, PARAMS, max_size=3),
    empty=st.sets(NAMES),
    wanted=st.lists(st.tuples(NAMES, PARAMS), max_size=6),
)
def test_two_trials_never_share_a_directory(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, Params],
    empty: set[str],
    wanted: list[tuple[str, Params]],
) -> None:
    output = tmp_path_factory.mktemp("output")
    owners: dict[str, str] = {}
    for name, params in before.items():
        write(output, name, params)
        owners[name] = trial_id(params, {})
    for name in empty - set(before):
        (output / name).mkdir()
    directories = Directories(output, {})
    for name, params in wanted:
        item = draft(name, params)
        assert owners.setdefault(directories.name_of(item), item.trial_id) == item.trial_id
        assert directories.name_of(item) == directories.name_of(item)
