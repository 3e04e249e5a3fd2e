"""The commands of docs/mpl.md are commands, and its example parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from mpl.cli import make_parser

ROOT = Path(__file__).resolve().parents[2]


def test_each_command_of_the_page_parses() -> None:
    text = (ROOT / "docs" / "mpl.md").read_text()
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if line.startswith("python -m mpl ")]
    assert len(lines) >= 6
    for line in lines:
        make_parser().parse_args(shlex.split(line, comments=True)[3:])


def test_the_commands_of_the_example_parse() -> None:
    first = next(yaml.safe_load_all((ROOT / "examples" / "mpl.yaml").read_text()))
    commands = [command for gather in first["gather"].values() for command in gather["cmd"].split("&&")]
    assert len(commands) == 3
    for command in commands:
        make_parser().parse_args(shlex.split(command)[3:])
