"""The commands of docs/search.md and of the example are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from runner import config
from runner.search import greedy, optuna
from runner.yamlfile import load

ROOT = Path(__file__).resolve().parents[3]


def test_each_command_of_the_page_parses() -> None:
    text = (ROOT / "docs" / "search.md").read_text()
    lines = [line.partition(" <")[0] for line in text.splitlines() if line.startswith("python -m runner.search.")]
    assert len(lines) == 2
    for line in lines:
        module, *argv = shlex.split(line)[2:]
        (greedy.settings if module.endswith("greedy") else optuna.options)(argv)


def test_each_option_of_the_page_is_one() -> None:
    page = (ROOT / "docs" / "search.md").read_text()
    known = {option for parser in (greedy.parser(), optuna.parser()) for option in parser._option_string_actions}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - {"--schedule", "--out"}
    assert named <= known
    assert known - {"-h", "--help", "--out"} <= named


def test_the_example_s_search_parses() -> None:
    text = (ROOT / "examples" / "greedy_lr.yaml").read_text()
    command = re.search(r"next: python -m runner\.search\.greedy (.*)\}", text)
    assert command is not None
    found = greedy.settings(shlex.split(command[1]))
    assert found.edges == (200, 400, 600, 800, 1000)
    # The last decision of a search that was begun anew is another one: its answer must not lie beside an old one.
    assert str(found.out) == "$RUNNER_OUTPUT/.."
    assert "/search.greedy/schedule.json" in text


def test_the_example_is_a_file_that_run_takes() -> None:
    found = config.load(ROOT / "examples" / "greedy_lr.yaml")
    assert [sweep.title for sweep in found.sweeps] == ["greedy", "from_scratch", "constant", "usual"]


def test_the_rule_of_the_page_is_one() -> None:
    page = (ROOT / "docs" / "search.md").read_text()
    spec = load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[-1])
    assert spec["template"]["train"]["prune"] == {"metric": "val_loss", "rungs": [100, 300, 1000], "keep": "1/3"}
