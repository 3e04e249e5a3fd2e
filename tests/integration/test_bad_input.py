"""Bad input: one clear message with file, line and key, exit code 2, nothing written, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli import main

GRID = "---\nlr: [1, 2]\n"
T = "template: {a: 'true {lr}'}\n"

# What the user wrote, and what the message must say besides the file's name: where, and what is allowed or wrong.
CASES: list[tuple[str, str | bytes, list[str]]] = [
    ("no template", "default: {x: 1}\n" + GRID, ["line 1", "`template` is missing"]),
    ("empty file", "", ["empty", "`template`"]),
    ("only comments", "# nothing\n", ["empty"]),
    ("no grid", T, ["no grid", "---"]),
    ("first document is a list", "- a\n" + GRID, ["line 1", "must be a mapping"]),
    ("misspelt key", "templat: {a: b}\n" + GRID, ["line 1", "templat", "Did you mean 'template'?"]),
    ("misspelt default", T + "defaults: {x: 1}\n" + GRID, ["line 2", "defaults", "Did you mean 'default'?"]),
    ("misspelt alias", T + "aliases: {}\n" + GRID, ["line 2", "aliases", "Did you mean 'alias'?"]),
    (
        "unknown key",
        T + "colour: red\n" + GRID,
        ["line 2", "colour", "Allowed: alias, default, executor, fail_fast, gather, notify"],
    ),
    ("template is a string", "template: python x.py\n" + GRID, ["line 1", "template", "{train: python train.py}"]),
    ("template is empty", "template: {}\n" + GRID, ["line 1", "template"]),
    ("stage is a list", "template:\n  a: [x]\n" + GRID, ["line 2", "template.a", "a string, or a mapping with `cmd`"]),
    ("stage is empty", "template:\n  a: ''\n" + GRID, ["line 2", "template.a", "empty"]),
    ("stage has a slash", "template:\n  a/b: x\n" + GRID, ["line 2", "a/b", "no stage name"]),
    ("stage has a blank", "template:\n  a b: x\n" + GRID, ["line 2", "a b", "letters, digits"]),
    ("stage with a misspelt option", "template:\n  a: {cmdd: x}\n" + GRID, ["line 2", "template.a.cmdd", "cmd"]),
    ("stage without a command", "template:\n  a: {}\n" + GRID, ["line 2", "template.a", "cmd"]),
    (
        "placeholder without value",
        "template:\n  a: x {rate}\n" + GRID,
        ["line 2", "template.a", "{rate}", "the grid at"],
    ),
    ("placeholder misspelt", "template:\n  a: x {lrr}\n" + GRID, ["line 2", "Did you mean 'lr'?"]),
    ("flag without value", "template:\n  a: x [rate]\n" + GRID, ["line 2", "[rate]", "[[rate]]"]),
    ("value in one branch only", T + "---\nLIST: [{lr: 1}, {b: 1}]\n", ["line 1", "template.a", "{lr}"]),
    ("default is a list", T + "default: [1]\n" + GRID, ["line 2", "default", "mapping"]),
    ("default value is a list", T + "default:\n  x: [1, 2]\n" + GRID, ["line 3", "default.x", "is a list"]),
    ("default value is a mapping", T + "default:\n  x: {y: 1}\n" + GRID, ["line 3", "default.x", "is a mapping"]),
    ("default with our prefix", T + "default:\n  _x: 1\n" + GRID, ["line 3", "default._x", "no parameter name"]),
    ("default with a blank", T + "default:\n  'a b': 1\n" + GRID, ["line 3", "a b", "no parameter name"]),
    ("resource word", T + "resource: all\n" + GRID, ["line 2", "resource", "auto", "{cpu: 4}"]),
    ("resource empty", T + "resource: []\n" + GRID, ["line 2", "resource"]),
    ("resource fraction", T + "resource: [1.5]\n" + GRID, ["line 2", "resource.0", "GPU"]),
    ("resource of no CPUs", T + "resource: {cpu: 0}\n" + GRID, ["line 2", "resource.cpu", "greater than 0"]),
    ("resource of text", T + "resource: {cpu: '4'}\n" + GRID, ["line 2", "resource.cpu", "whole number"]),
    ("resource unknown", T + "resource: {gpu: 4}\n" + GRID, ["line 2", "resource.gpu"]),
    ("alias is a value", T + "alias: {s: 1}\n" + GRID, ["line 2", "alias.s", "mapping"]),
    ("alias case is a value", T + "alias: {s: {a: 1}}\n" + GRID, ["line 2", "alias.s.a", "mapping"]),
    ("alias without cases", T + "alias: {s: {}}\n" + GRID, ["line 2", "alias.s"]),
    ("alias cases differ", T + "alias: {s: {a: {x: 1}, b: {y: 1}}}\n" + GRID, ["line 2", "alias.s.b", "x, y differ"]),
    ("alias in a template", "template: {a: '{s} {lr}'}\nalias: {s: {a: {x: 1}}}\n" + GRID, ["s is an alias", "x"]),
    ("alias case unknown", T + "alias: {s: {big: {x: 1}}}\n" + GRID + "s: bigg\n", ["line 5", "Did you mean 'big'?"]),
    ("alias and parameter", T + "alias: {s: {a: {lr: 1}}}\n" + GRID + "s: a\n", ["line 5", "`lr`", "sets too"]),
    (
        "default alias unknown",
        T + "alias: {s: {a: {x: 1}}}\ndefault: {s: b}\n" + GRID,
        ["line 3", "default.s", "no case"],
    ),
    ("grid is a list", T + "---\n- 1\n", ["line 3", "a grid must be a mapping"]),
    ("grid is a word", T + "---\nhello\n", ["line 3", "a grid must be a mapping"]),
    ("no values", T + "---\nlr: []\n", ["line 3", "lr", "empty"]),
    ("value is a mapping", T + "---\nlr: {a: 1}\n", ["line 3", "lr", "is a mapping", "_range"]),
    ("value in a list is a mapping", T + "---\nlr: [1, {a: 1}]\n", ["line 3", "lr.1", "is a mapping"]),
    ("value in a list is a list", T + "---\nlr: [[1, 2]]\n", ["line 3", "lr.0", "is a list"]),
    ("misspelt title", T + GRID + "_titel: x\n", ["line 4", "_titel", "Did you mean '_title'?"]),
    ("misspelt cmd", T + GRID + "_cmds: a\n", ["line 4", "_cmds", "Did you mean '_cmd'?"]),
    ("title is a list", T + GRID + "_title: [x]\n", ["line 4", "_title", "a string"]),
    ("unknown stage", T + GRID + "_cmd: b\n", ["line 4", "_cmd", "no stage 'b'", "Allowed: a"]),
    ("no stages", T + GRID + "_cmd: []\n", ["line 4", "_cmd", "empty"]),
    ("parameter with our prefix", T + GRID + "_seed: 1\n", ["line 4", "_seed", "belong to the runner"]),
    ("zip of unequal lengths", T + "---\n_zip: {lr: [1, 2], b: [1]}\n", ["line 3", "_zip", "lr has 2, b has 1"]),
    ("zip of a value", T + "---\nlr: 1\n_zip: 3\n", ["line 4", "_zip", "equal length"]),
    ("zip and plain", T + GRID + "_zip: {lr: [1], b: [2]}\n", ["line 4", "_zip", "`lr`", "sets too"]),
    ("exclude of a typo", T + GRID + "_exclude: [{lrr: 1}]\n", ["line 4", "`lrr`", "Did you mean 'lr'?"]),
    ("exclude of a value", T + GRID + "_exclude: 3\n", ["line 4", "_exclude", "mapping"]),
    ("union of values", T + GRID + "LIST_x: [1, 2]\n", ["line 4", "LIST_x", "sub-grids"]),
    ("union that is empty", T + GRID + "LIST_x: []\n", ["line 4", "LIST_x"]),
    ("union and plain", T + GRID + "LIST_x: [{lr: 3}]\n", ["line 4", "LIST_x", "`lr`"]),
    ("title in a sub-grid", T + GRID + "LIST_x: [{_title: y}]\n", ["line 4", "_title", "belong to the runner"]),
    ("range misspelt", T + "---\nlr: {_rang: [0, 1]}\n", ["line 3", "lr", "Did you mean '_range'?"]),
    ("range of one number", T + "---\nlr: {_range: [3]}\n", ["line 3", "lr._range", "2 or 3 numbers"]),
    ("range of words", T + "---\nlr: {_range: [a, b]}\n", ["line 3", "lr._range", "numbers"]),
    ("range without a step", T + "---\nlr: {_range: [0, 3, 0]}\n", ["line 3", "step of 0"]),
    ("range of nothing", T + "---\nlr: {_range: [3, 0]}\n", ["line 3", "lr", "empty"]),
    ("logspace from 0", T + "---\nlr: {_logspace: [0, 1, 3]}\n", ["line 3", "above 0"]),
    ("linspace of a fraction", T + "---\nlr: {_linspace: [0, 1, 2.5]}\n", ["line 3", "count"]),
    ("linspace of infinity", T + "---\nlr: {_linspace: [0, .inf, 3]}\n", ["line 3", "finite"]),
    ("duplicate key", T + "---\nlr: 1\nlr: 2\n", ["line 4", "lr", "twice"]),
    ("duplicate stage", "template:\n  a: x\n  a: y\n" + GRID, ["line 3", "a", "twice"]),
    ("a tab", "template:\n\ta: x\n" + GRID, ["line 2", "not YAML"]),
    ("an open bracket", T + "---\nlr: [1, 2\n", ["line ", "not YAML"]),
    ("not UTF-8", T.encode() + b"---\nlr: '\xff'\n", ["line 3", "not UTF-8"]),
    ("NUL in a value", T + '---\nlr: "a\\0b"\n', ["line 3", "lr", "NUL"]),
    ("a tag", T + "---\nlr: !!python/object/apply:os.system ['id']\n", ["line 3", "tag", "not allowed"]),
    ("a local tag", T + "---\nlr: !mine 3\n", ["line 3", "!mine", "not allowed"]),
    ("unknown anchor", T + "---\nlr: *nothing\n", ["line 3", "undefined alias"]),
    ("an anchor in itself", T + "---\nlr: &a [*a]\n", ["line 3", "anchor inside itself"]),
    (
        "a colon in a command",
        "template: {}\n".replace("{}", "\n  a: echo lr: {lr}") + GRID,
        ["line 2", "not YAML", "quotes"],
    ),
    ("no line ---", T + "lr: [1, 2]\n", ["line 2, lr: unknown key", "Parameters of a grid stand below a line `---`."]),
    ("a key that is a list", T + "---\n? [a, b]\n: 1\n", ["line 3", "a key must be a name"]),
    (
        "a block that does not end",
        "template:\n  b: 'true'\n  a: 'for x in 1 2; do echo {lr}'\n" + GRID,
        ["line 3", "template.a", "bash cannot read the command", "end of file"],
    ),
    (
        "a block of several lines",
        "template:\n  a: |\n    for x in 1 2; do\n      echo {lr}\n    done\n" + GRID,
        [
            "line 2",
            "template.a",
            "bash cannot read the command",
            "end of file; its lines become one: end them with `;`",
        ],
    ),
    (
        "a gather's block that does not end",
        f"{T}gather:\n  all:\n    of: g\n    cmd: 'if true'\n---\n_title: g\nlr: 1\n",
        ["line 5", "gather.all.cmd", "bash cannot read the command", "end of file"],
    ),
    (
        "a search's block that does not end",
        f"{T}---\n_title: g\n_search: {{next: 'if true'}}\nlr: 1\n",
        ["line 4", "_search.next", "bash cannot read the command", "end of file"],
    ),
    (
        "a search without time",
        f"{T}---\n_title: g\n_search: {{next: 'true', round_limit: 0}}\nlr: 1\n",
        ["line 4", "_search.round_limit", "0 is no limit; allowed: a duration above 0"],
    ),
    (
        "a gather over a gather",
        f"{T}gather:\n  all: {{of: g, cmd: 'true'}}\n  more: {{of: all, cmd: 'true'}}\n---\n_title: g\nlr: 1\n",
        ["line 4", "gather.more.of", "'all' is a gather; a gather reads the trials of grids"],
    ),
    (
        "a gather over nothing",
        f"{T}gather: {{all: {{of: g, cmd: 'true'}}}}\n---\n_title: g\nlr: 1\n_exclude: [{{lr: 1}}]\n",
        ["line 2", "gather.all: no trial of g is left"],
    ),
    (
        "a backslash where YAML joins the lines",
        "template:\n  a: >\n    python x.py \\\n    --lr {lr}\n" + GRID,
        ["line 2", "template.a", "a backslash before a blank", "leave the backslash out"],
    ),
    (
        "a gather in a default",
        T + "default: {x: '{_gather.mean}/x'}\n" + GRID,
        ["line 2", "default.x", "in grids only"],
    ),
    (
        "a gather in a case of an alias",
        T + "alias: {s: {a: {x: '{_gather.mean}/x'}}}\n" + GRID,
        ["line 2", "alias.s.a.x", "in grids only"],
    ),
    ("a timeout of nothing", T + "stage: {timeout: 0}\n" + GRID, ["stage.timeout", "above 0, or null"]),
    ("a stall of nothing", T + "stage: {stall: 0s}\n" + GRID, ["stage.stall", "above 0, or null"]),
    ("a placeholder of ours", "template:\n  a: x {_outptu}\n" + GRID, ["line 2", "{_outptu} is none", "'_output'?"]),
    ("retries by half", T + "stage:\n  retry: 1.5\n" + GRID, ["line 3", "stage.retry", "a whole number, or a mapping"]),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_bad_file_is_one_message_and_writes_nothing(
    text: str | bytes,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("run: error: params.yaml")
    assert told.err.count("\n") == 1
    for part in said:
        assert part in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_an_anchor_bomb_is_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n + 1}: &x{n + 1} [{', '.join([f'*x{n}'] * 9)}]" for n in range(9)]
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "anchors that repeat each other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-y", "missing.yaml"], "missing.yaml: no such file"),
        (["-y", "."], ".: is a directory"),
        (["-y", "/proc/self/mem"], "/proc/self/mem: cannot be read"),
        (["-o", "params.yaml"], "-o params.yaml: is a file"),
        (["-t", "nothing"], "-t nothing: no such title"),
        (["-c", "b"], "-c b: no such stage"),
        (["-r", "cpu:0"], "-r cpu:0: no resource"),
        (["-r", "cpu"], "-r cpu: no resource"),
        (["-r", "auto", "0"], "-r auto: no resource"),
        (["rm"], "run rm: name trials"),
        (["rm", "x", "-o", "missing"], "-o missing: no such directory"),
        (["check", "-y", "missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_a_bad_option_is_one_message(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "params.yaml").write_text(T + GRID)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    "arguments", [["--sample", "0"], ["--json"], ["--sample", "x"], ["--nothing"], ["check", "--json"]]
)
def test_a_bad_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
