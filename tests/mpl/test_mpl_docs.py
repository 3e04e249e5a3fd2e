"""The commands of docs/mpl.md are commands, and its example parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from mpl.cli import make_parser
from runner.config import load

ROOT = Path(__file__).resolve().parents[2]


def test_each_command_of_the_page_parses() -> None:
    text = (ROOT / "docs" / "mpl.md").read_text()
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if line.startswith("python -m mpl ")]
    assert len(lines) >= 6
    for line in lines:
        make_parser().parse_args(shlex.split(line, comments=True)[3:])


def test_the_example_is_a_file_that_run_takes_and_its_commands_parse() -> None:
    example = ROOT / "examples" / "mpl.yaml"
    assert [sweep.title for sweep in load(example).sweeps] == ["fitted", "unseen", "best"]
    head = next(yaml.safe_load_all(example.read_text()))
    lines = [line for item in head["gather"].values() for line in item["cmd"].split("&&")]
    assert [shlex.split(line)[:4] for line in lines] == [
        ["python", "-m", "mpl", command] for command in ("fit", "optimize", "report")
    ]
    for line in lines:
        make_parser().parse_args(shlex.split(line)[3:])
