"""When a logout kills the user's processes, by the files of systemd."""

from pathlib import Path

import pytest

from runner import logout

YES = "[Login]\nKillUserProcesses=yes\n"
NO = "[Login]\nKillUserProcesses=no\n"


def system(root: Path, files: dict[str, str]) -> Path:
    (root / "run/systemd/system").mkdir(parents=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"etc/systemd/logind.conf": YES},
        {"etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=no\n KillUserProcesses = On \nKillOnlyUsers=\n"},
        {"usr/lib/systemd/logind.conf": YES},
        {"etc/systemd/logind.conf": NO, "usr/lib/systemd/logind.conf.d/10-a.conf": YES},
        {"etc/systemd/logind.conf.d/10-a.conf": NO, "run/systemd/logind.conf.d/20-b.conf": YES},
        # The same name: the one in /etc counts alone.
        {"etc/systemd/logind.conf.d/10-a.conf": YES, "usr/lib/systemd/logind.conf.d/10-a.conf": NO},
        {"etc/systemd/logind.conf": YES + "KillOnlyUsers=eve ada\n"},
        {"etc/systemd/logind.conf": YES + "KillExcludeUsers=root eve\n"},
        {"etc/systemd/logind.conf": "[Other]\nA=1\n[Login]\nKillUserProcesses=no\nKillUserProcesses=1\n"},
        {"etc/systemd/logind.conf": YES, "etc/systemd/logind.conf.d/x.conf": "no section\n"},
    ],
)
def test_the_way_out_is_named_where_a_logout_kills(tmp_path: Path, files: dict[str, str]) -> None:
    line = logout.warning(system(tmp_path, files), "ada")
    assert line is not None
    assert "loginctl enable-linger" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"etc/systemd/logind.conf": "#KillUserProcesses=yes\n[Login]\n#KillUserProcesses=yes\n"},
        {"etc/systemd/logind.conf": NO, "usr/lib/systemd/logind.conf": YES},
        {"etc/systemd/logind.conf": YES, "etc/systemd/logind.conf.d/z.conf": NO},
        {"etc/systemd/logind.conf.d/10-a.conf": NO, "usr/lib/systemd/logind.conf.d/10-a.conf": YES},
        {"etc/systemd/logind.conf": YES, "etc/systemd/logind.conf.d/z.conf": "[Login]\nKillUserProcesses=\n"},
        {"etc/systemd/logind.conf": YES + "KillOnlyUsers=eve\n"},
        {"etc/systemd/logind.conf": YES + "KillExcludeUsers=ada\n"},
        {"etc/systemd/logind.conf": YES + "KillOnlyUsers=ada\nKillExcludeUsers=ada\n"},
        {"etc/systemd/logind.conf": YES, "var/lib/systemd/linger/ada": ""},
        {"etc/systemd/logind.conf": "KillUserProcesses=yes\n"},
        {"etc/systemd/logind.conf.d/notes.txt": YES},
    ],
)
def test_elsewhere_there_is_nothing_to_say(tmp_path: Path, files: dict[str, str]) -> None:
    assert logout.warning(system(tmp_path, files), "ada") is None


def test_root_is_spared_by_default(tmp_path: Path) -> None:
    root = system(tmp_path, {"etc/systemd/logind.conf": YES})
    assert logout.warning(root, "root") is None
    (root / "etc/systemd/logind.conf").write_text(YES + "KillExcludeUsers=eve\n")
    assert logout.warning(root, "root") is not None


def test_the_files_of_systemd_mean_nothing_under_another_init(tmp_path: Path) -> None:
    root = system(tmp_path, {"etc/systemd/logind.conf": YES})
    (root / "run/systemd/system").rmdir()
    assert logout.warning(root, "ada") is None


def test_this_machine_can_be_asked() -> None:
    line = logout.warning()
    assert line is None or "loginctl enable-linger" in line
