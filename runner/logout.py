"""Whether the system ends a user's processes at logout, which would end the daemon and all that it runs."""

from __future__ import annotations

import os
import pwd
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

# From the strongest to the weakest, as logind.conf(5) has it: of files with one name only the first counts.
_PLACES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
_SECTION = "Login"
_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})


def warning(root: Path = Path("/"), user: str | None = None) -> str | None:
    """One line on what to do where systemd kills what this user leaves at logout; None where it does not.

    `root` is where the system's files are looked for, `user` the one to ask about.
    """
    if not (root / "run/systemd/system").is_dir():  # sd_booted(3): another init
        return None
    name = _this_user() if user is None else user
    if (root / "var/lib/systemd/linger" / name).exists():
        return None
    settings = _settings(root)
    if settings.get("killuserprocesses", "no").lower() not in _TRUE:
        return None
    # The users to spare count above the users to kill; root is spared unless the list says otherwise.
    only, spared = settings.get("killonlyusers", "").split(), settings.get("killexcludeusers", "root").split()
    if name in spared or (only and name not in only):
        return None
    return (
        "This system kills your processes when you log out (KillUserProcesses=yes in logind.conf), the daemon and its "
        "trials too; `loginctl enable-linger` prevents that."
    )


def _this_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container with a uid that has no name
        return str(os.getuid())


def _settings(root: Path) -> dict[str, str]:
    """The settings of logind: of the main file, then of the drop-ins by their names; the last one counts."""
    main = next((path for place in _PLACES if (path := root / place / "logind.conf").exists()), None)
    dropins: dict[str, Path] = {}
    for place in reversed(_PLACES):
        dropins.update({path.name: path for path in (root / place / "logind.conf.d").glob("*.conf")})
    files = [*([main] if main else []), *(dropins[name] for name in sorted(dropins))]
    settings: dict[str, str] = {}
    for path in files:
        settings.update(_section(path))
    return {key: value for key, value in settings.items() if value}  # an empty value stands for the default


def _section(path: Path) -> dict[str, str]:
    parser = ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"), empty_lines_in_values=False
    )
    try:
        parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ConfigError):  # a file that we may not read, or that systemd itself would not
        return {}
    return dict(parser[_SECTION]) if _SECTION in parser else {}
