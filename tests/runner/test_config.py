"""params.yaml: what is right is read, and what is wrong is told with file, line, key and a hint."""

import json
from pathlib import Path

import pytest

from runner import config
from runner.config import Config
from runner.errors import InputError, SystemFaultError
from runner.grid import Choices, Grid, Sweep
from runner.params.header import ResourceKeys
from runner.process import bash

HEAD = "template:\n  train: run {lr}\n  test: eval {_output}\n"
GRID = "---\nlr: [0.1, 0.01]\n"


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """
template:
  train: >
    python -m train --lr {lr} [compile]
    --out {_output}
  test: {cmd: "python -m eval {_output} {split} {_name} {_time}"}
default: {lr: 1e-2, split: test, compile: false, seed: 0, note: null}
resource: {cpu: 3}
---
_title: first
lr: [1e-3, 0.01]
seed: 1
---
_title: second
_cmd: test
compile: [true, false]
---
""",
    )
    assert list(loaded.templates) == ["train", "test"]
    assert loaded.templates["train"].names == {"lr", "compile", "_output"}
    assert loaded.settings.default == {"lr": 0.01, "split": "test", "compile": False, "seed": 0, "note": None}
    assert loaded.resource == ResourceKeys(cpu=3)
    assert loaded.sweeps == [
        Sweep(Grid((Choices("lr", [0.001, 0.01]), Choices("seed", [1]))), title="first"),
        Sweep(Grid((Choices("compile", [True, False]),)), title="second", stages=("test",)),
    ]
    assert loaded.warnings == []
    assert loaded.path == tmp_path / "params.yaml"


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("", "auto"),
        ("resource: auto\n", "auto"),
        ("resource: [0, 1]\n", ["0", "1"]),
        ("resource: ['0,1', '2,3']\n", ["0,1", "2,3"]),
        ("resource: ['0, 1']\n", ["0,1"]),
        ("resource: [0, 0, GPU-8a6f]\n", ["0", "0", "GPU-8a6f"]),
        ("resource: {cpu: 1}\n", ResourceKeys(cpu=1)),
        (
            "resource: {min_free_vram: 20GiB, name: A100, max_util: 10%}\n",
            ResourceKeys(min_free_vram="20GiB", name="A100", max_util=10),  # type: ignore[arg-type]
        ),
    ],
)
def test_every_form_of_resource_is_read(tmp_path: Path, text: str, resource: object) -> None:
    assert load(tmp_path, HEAD + text + GRID).resource == resource


@pytest.mark.parametrize(
    ("cmd", "stages"),
    [("[test, train]", ("train", "test")), ("[test, test]", ("test",)), ("train", ("train",))],
)
def test_stages_of_a_grid_stand_in_the_templates_order(tmp_path: Path, cmd: str, stages: tuple[str, ...]) -> None:
    assert load(tmp_path, f"{HEAD}---\n_cmd: {cmd}\nlr: 1\n").sweeps[0].stages == stages


def test_a_value_that_only_stages_which_do_not_run_need_may_be_missing(tmp_path: Path) -> None:
    assert load(tmp_path, f"{HEAD}---\n_cmd: test\nseed: [1, 2]\n").sweeps[0].count() == 2


def test_a_grid_of_one_trial_has_scalars(tmp_path: Path) -> None:
    assert load(tmp_path, f"{HEAD}---\nlr: 1e-3\n").sweeps == [Sweep(Grid((Choices("lr", [0.001]),)))]


def test_parameters_that_no_command_uses_are_orphans_in_the_files_order(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD + "default: {seed: 0, lr: 1, beta: 2}\n---\nzeta: 1\nlr: 1\n---\nalpha: 1\n")
    assert loaded.orphans() == ["zeta", "alpha", "seed", "beta"]


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        ("run --lr $lr", "train: $lr is a variable of the shell's; the parameter is {lr}."),
        ("run ${lr} x", "train: ${lr} is a variable of the shell's; the parameter is {lr}."),
        ("nohup run {lr} > {_output}/x &", "train: ends with `&`, so that the stage is over at once"),
        ("lr={lr}; run $lr", None),
        ("run {lr} & wait", None),
        ("run {lr} &&\n eval", None),
        ("run $lrs {lr}", None),
    ],
)
def test_what_a_shell_takes_otherwise_is_warned_of(tmp_path: Path, command: str, warning: str | None) -> None:
    said = load(tmp_path, f"template: {json.dumps({'train': command})}\n---\nlr: 1\n").warnings
    assert [text.partition(", template.")[2][: len(warning or "")] for text in said] == ([warning] if warning else [])


def test_a_flag_uses_its_parameter(tmp_path: Path) -> None:
    assert load(tmp_path, "template: {train: 'run [lr] [[seed]]'}\ndefault: {seed: 0}\n" + GRID).orphans() == ["seed"]


def test_warnings_of_all_documents_are_kept(tmp_path: Path) -> None:
    warnings = load(tmp_path, HEAD + "default: {flag: on}\n---\nlr: 012\n").warnings
    assert [text.split(": ")[0] for text in warnings] == [
        f"{tmp_path}/params.yaml, line 4, default.flag",
        f"{tmp_path}/params.yaml, line 6, lr",
    ]


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        ("{size: smal}", ["size"]),
        ("{lr: 1}", ["lr"]),  # the grid has 1.0
        ("{lr: 1.0, seed: 5}", ["seed"]),
        ("{seed: {_range: [5, 9]}, size: [tiny, small]}", ["seed"]),
        ("{seed: [4, 5], size: [tiny, small], lr: [2.0, 1.0]}", []),
        ("{width: 8}", []),
    ],
)
def test_an_excluded_value_that_the_grid_does_not_have_is_told(pattern: str, where: list[str], tmp_path: Path) -> None:
    grid = "size: [small, large]\nseed: {_range: [0, 5]}\nlr: [1.0, 2.0]\n_zip: {width: [4, 8]}\n"
    warnings = load(tmp_path, f"{HEAD}---\n{grid}_exclude: {pattern}\n").warnings
    assert [text.split(": ")[0] for text in warnings] == [
        f"{tmp_path}/params.yaml, line 9, _exclude.0.{key}" for key in where
    ]
    assert all(text.endswith(" is no value of the grid; nothing is left out") for text in warnings)


ONE_SCALAR = "allowed: one string, number, boolean or null; in quotes it is a string."
IN_GRIDS = "Several values stand in a grid."
RESOURCES = (
    "allowed: auto, a list of GPUs such as [0, 1] or ['0,1', '2,3'], {cpu: 4}, "
    "or conditions such as {name: A100, min_free_vram: 20GiB}."
)
ONE_GPU = 'must be a GPU (0, or GPU-…) or several for one trial ("0,1"); for CPU slots: {cpu: 4}.'
STAGE_KEYS = (
    "cpus, cwd, env, executor, gpus, grace, keep, on_oom, per_gpu, prune, retry, stagger, stall, timeout, vram_by"
)
STAGES = "allowed: stages and their commands, such as {train: python train.py}."
STAGE = "allowed: a string, or a mapping with `cmd`."
LETTERS = "allowed: up to 64 letters, digits, - and _."


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        # the whole file
        ("", "", "the first document needs `template`, the next ones are the grids."),
        ("# nothing\n", "", "the first document needs `template`"),
        ("---\n---\nlr: 1\n", "", "the first document needs `template`"),
        ("- a\n" + GRID, ", line 1", "must be a mapping with `template`."),
        ("word\n" + GRID, ", line 1", "must be a mapping with `template`."),
        (HEAD, "", "no grid; add one after a line `---`, such as `lr: [0.1, 0.01]`."),
        (HEAD + "---\n", "", "no grid; add one"),
        ("default: {lr: 1}\n" + GRID, ", line 1", "the key `template` is missing."),
        ("# x\n\n" + HEAD + "lr: 1\nlr: 2\n" + GRID, ", line 7, lr", "remove one of them."),
        # unknown keys
        (
            HEAD + "defaults: {a: 1}\n" + GRID,
            ", line 4, defaults",
            "Did you mean 'default'? "
            "Allowed: alias, default, executor, fail_fast, gather, notify, order, resource, snapshot, stage, template.",
        ),
        (
            HEAD + "lr: [1]\n",
            ", line 4, lr",
            "unknown key. Allowed: alias, default, executor, fail_fast, gather, notify, order, resource, snapshot, "
            "stage, template.",
        ),
        ("templates: {a: x}\n" + GRID, ", line 1, templates", "Did you mean 'template'?"),
        (
            "template:\n  a:\n    command: x\n" + GRID,
            ", line 3, template.a.command",
            f"Did you mean 'cmd'? Allowed: cmd, {STAGE_KEYS}.",
        ),
        (
            "template:\n  a: {cmd: x,\n   gpu: 1}\n" + GRID,
            ", line 3, template.a.gpu",
            f"Did you mean 'gpus'? Allowed: cmd, {STAGE_KEYS}.",
        ),
        (
            HEAD + "resource: {cpus: 4}\n" + GRID,
            ", line 4, resource.cpus",
            "Did you mean 'cpu'? Allowed: cpu, max_util, min_free_vram, name.",
        ),
        # template
        ("template:\n" + GRID, ", line 1, template", f"None is no template; {STAGES}"),
        ("template: [a]\n" + GRID, ", line 1, template", f"['a'] is no template; {STAGES}"),
        ("template: run {lr}\n" + GRID, ", line 1, template", f"'run {{lr}}' is no template; {STAGES}"),
        ("template: {}\n" + GRID, ", line 1, template", "is empty; at least one entry is needed."),
        ("template:\n  a: 5\n" + GRID, ", line 2, template.a", f"5 is no command; {STAGE}"),
        ("template:\n  a:\n" + GRID, ", line 2, template.a", f"None is no command; {STAGE}"),
        ("template:\n  a: [x, y]\n" + GRID, ", line 2, template.a", STAGE),
        ("template:\n  a: {}\n" + GRID, ", line 2, template.a", STAGE),
        ("template:\n  a: {cmd: 5}\n" + GRID, ", line 2, template.a.cmd", "should be a string."),
        ("template:\n  a: ' '\n" + GRID, ", line 2, template.a", "the command is empty or holds a NUL character."),
        ('template:\n  a: "x\\0"\n' + GRID, ", line 2, template.a", "NUL character"),
        ("template:\n  a b: x\n" + GRID, ", line 2, template.a b", f"'a b' is no stage name; {LETTERS}"),
        ("template:\n  ../a: x\n" + GRID, ", line 2, template.../a", LETTERS),
        # default
        (HEAD + "default:\n" + GRID, ", line 4, default", "should be a mapping."),
        (HEAD + "default: [1]\n" + GRID, ", line 4, default", "should be a mapping."),
        (
            HEAD + "default:\n  lr: [1, 2]\n" + GRID,
            ", line 5, default.lr",
            f"[1, 2] is a list; {ONE_SCALAR} {IN_GRIDS}",
        ),
        (HEAD + "default:\n  lr: {a: 1}\n" + GRID, ", line 5, default.lr", f"is a mapping; {ONE_SCALAR}"),
        (
            HEAD + "default: {_name: 1}\n" + GRID,
            ", line 4, default._name",
            "but no _ at the beginning, which marks the runner's own keys.",
        ),
        (
            HEAD + "default: {l r: 1}\n" + GRID,
            ", line 4, default.l r",
            "no parameter name; allowed: letters, digits, -, _ and dots inside",
        ),
        (HEAD + 'default: {lr: "\\0"}\n' + GRID, ", line 4, default.lr", "holds a NUL character"),
        # resource
        (HEAD + "resource: cpu\n" + GRID, ", line 4, resource", f"'cpu' is no resource; {RESOURCES}"),
        (HEAD + "resource: 4\n" + GRID, ", line 4, resource", f"4 is no resource; {RESOURCES}"),
        (HEAD + "resource: []\n" + GRID, ", line 4, resource", RESOURCES),
        (HEAD + "resource: {}\n" + GRID, ", line 4, resource", RESOURCES),
        (HEAD + "resource:\n" + GRID, ", line 4, resource", RESOURCES),
        (HEAD + "resource: ['0,']\n" + GRID, ", line 4, resource.0", f"'0,' {ONE_GPU}"),
        (HEAD + "resource: [cpu, cpu]\n" + GRID, ", line 4, resource.0", f"'cpu' {ONE_GPU}"),
        (HEAD + "resource: [0, -1]\n" + GRID, ", line 4, resource.1", f"-1 {ONE_GPU}"),
        (HEAD + "resource: [0, 'cuda:1']\n" + GRID, ", line 4, resource.1", f"'cuda:1' {ONE_GPU}"),
        (HEAD + "resource: [0, true]\n" + GRID, ", line 4, resource.1", f"True {ONE_GPU}"),
        (HEAD + "resource: [1.5]\n" + GRID, ", line 4, resource.0", f"1.5 {ONE_GPU}"),
        (HEAD + "resource: ['']\n" + GRID, ", line 4, resource.0", ONE_GPU),
        (HEAD + "resource: [[0, 1]]\n" + GRID, ", line 4, resource.0", f"[0, 1] {ONE_GPU}"),
        (
            HEAD + "resource: {cpu: 0}\n" + GRID,
            ", line 4, resource.cpu",
            "0 is not allowed: input should be greater than 0.",
        ),
        (HEAD + "resource: {cpu: '4'}\n" + GRID, ", line 4, resource.cpu", "should be a whole number."),
        (HEAD + "resource: {cpu: true}\n" + GRID, ", line 4, resource.cpu", "should be a whole number."),
        # grids
        (HEAD + "---\n- lr: 1\n", ", line 5", "a grid must be a mapping of parameters to their values."),
        (HEAD + GRID + "---\n\nword\n", ", line 8", "a grid must be a mapping"),
        (HEAD + "---\nlr: []\n", ", line 5, lr", "the list of values is empty"),
        (HEAD + "---\nlr:\n  - 1\n  - [2]\n", ", line 7, lr.1", f"[2] is a list; {ONE_SCALAR}"),
        (HEAD + "---\nlr: [[64, 64]]\n", ", line 5, lr.0", f"[64, 64] is a list; {ONE_SCALAR}"),
        (HEAD + "---\nlr: {a: 1}\n", ", line 5, lr", "is a mapping; allowed: a value, a list of values, or one of"),
        (HEAD + '---\nlr: "\\0"\n', ", line 5, lr", "holds a NUL character"),
        (HEAD + "---\nlr: 1\nl r: 1\n", ", line 6, l r", "allowed: letters, digits, -, _ and dots inside."),
        (
            HEAD + "---\n_titel: x\nlr: 1\n",
            ", line 5, _titel",
            "Did you mean '_title'? Allowed here: _after, _cmd, _exclude, _priority, _search, _title, _zip.",
        ),
        (
            HEAD + "---\n_output: x\nlr: 1\n",
            ", line 5, _output",
            "belong to the runner. Allowed here: _after, _cmd, _exclude, _priority, _search, _title, _zip.",
        ),
        (HEAD + "---\n_title: 5\nlr: 1\n", ", line 5, _title", "5 is no title; allowed: a string."),
        (
            HEAD + "---\nlr: 1\nx: 2\n_exclude: {momentum: 1}\n",
            ", line 7, _exclude.0.momentum",
            "the grid has no parameter `momentum`. It has: lr, x.",
        ),
        (HEAD + "---\n_title: ' '\nlr: 1\n", ", line 5, _title", "allowed: a string."),
        (HEAD + "---\nlr: 1\n_cmd: []\n", ", line 6, _cmd", "leave `_cmd` out to run all stages."),
        (HEAD + "---\nlr: 1\n_cmd: tran\n", ", line 6, _cmd", "Did you mean 'train'? Allowed: train, test."),
        (HEAD + "---\nlr: 1\n_cmd: [[train]]\n", ", line 6, _cmd", "Allowed: train, test."),
        (HEAD + "---\nlr: 1\n_cmd:\n", ", line 6, _cmd", "no stage None. Allowed: train, test."),
        # placeholders without a value
        (
            HEAD + "---\nlrr: 1\n",
            ", line 2, template.train",
            "in the grid at line 5; add `lr` to `default` or to the grid",
        ),
        (HEAD + "---\nlrr: 1\n", ", line 2, template.train", "or write {{lr}} for the text. Did you mean 'lrr'?"),
        (HEAD + GRID + "---\n_title: two\nseed: 1\n", ", line 2, template.train", "no value for {lr} in two;"),
        ("template:\n  a: run {_nam}\n---\nx: 1\n", ", line 2, template.a", "Did you mean '_name'?"),
        ("template:\n  a: run\n  b: run [x]\n---\ny: 1\n", ", line 3, template.b", "add `x` to `default`"),
    ],
)
def test_bad_input_is_told_with_file_line_key_and_hint(tmp_path: Path, text: str, place: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/params.yaml{place}: ")
    assert hint in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_an_empty_template_is_told_in_words_of_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, "template: {}\n" + GRID)
    assert "dictionary" not in str(caught.value)


def test_a_flag_without_a_value_is_told_as_it_stands(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no value for \[x\].* \[\[x\]\]"):
        load(tmp_path, "template: {a: 'tr [x]'}\n---\ny: 1\n")


def test_where_there_is_no_bash_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bash.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemFaultError, match="bash was not found on the PATH"):
        load(tmp_path, "template: {a: 'echo {lr}'}\n---\nlr: 1\n")
