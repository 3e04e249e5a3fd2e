"""The JSON schema of params.yaml: an editor that follows it says what `run` says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from runner import config
from runner.errors import InputError
from runner.subcommands.schema import schema
from runner.yamlfile import parse_documents, read_text

ROOT = Path(__file__).parents[3]
CHECKER = Draft202012Validator(schema())

EVERYTHING = """\
template:
  prepare: python prepare.py --out {_output} --config {_config}
  train:
    cmd: python train.py {_output} --name {_name} [lr] [layers] [note] [adam.beta]
default: {lr: 1e-2, note: null, fast: false, text: "0,1", size: tiny, adam.beta: 0.9}
alias:
  size: {tiny: {layers: 1, width: 48}, small: {layers: 2, width: 96}}
  1: {0: {flag: true}, 1: {flag: false}}
resource: {cpu: 2}
---
_title: everything
_cmd: [prepare, train]
_zip: [{lr: [1e-2, 3e-3], warmup: [100, 300]}, {momentum: 0.9}]
_exclude: [{size: small, seed: 2}, {seed: [0, 1], norm: {_range: [0, 2]}}]
size: [tiny, small]
seed: {_range: [0, 10, 3]}
norm: {_range: [0, 3]}
decay: {_linspace: [0, 1, 5]}
noise: {_logspace: [1e-4, 1e-1, 4]}
LIST: [{a: 1}, {b: [x, null, true, 1.5]}]
LIST_optimizer:
  - {optimizer: sgd, nesterov: [false, true]}
  - optimizer: adamw
    _zip: {beta1: [0.8, 0.9], beta2: [0.95, 0.99]}
    LIST_inner: [{amsgrad: true}, {}]
---
_cmd: train
_zip: {lr: [1, 2], x.y: [3, 4]}
---
{}
"""


def documents(text: str, directory: Path) -> list[Any]:
    """The documents of a file as `run` reads them."""
    path = directory / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return [document.value for document in parse_documents(str(path), read_text(path)) if document.value is not None]


def shown_files() -> list[str]:
    """The whole files that the documentation shows."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    return [block for block in blocks if "template:" in block and "\n---\n" in block]


def test_the_documentation_shows_whole_files() -> None:
    assert shown_files()


def test_it_is_a_json_schema() -> None:
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


def test_every_reference_in_it_leads_somewhere() -> None:
    known = schema()["$defs"]
    references = re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema()))
    assert references
    assert set(references) <= set(known)


@pytest.mark.parametrize(
    "text", [(ROOT / "params.yaml").read_text(), EVERYTHING, *shown_files()], ids=lambda text: text.split("\n")[0][:20]
)
def test_it_accepts_what_run_reads(text: str, tmp_path: Path) -> None:
    found = documents(text, tmp_path)
    assert len(found) > 1
    config.load(tmp_path / "params.yaml")
    for document in found:
        CHECKER.validate(document)


HEADERS = [
    "resource: auto",
    pytest.param("resource: [0, 1]"),
    'resource: ["0,1", "2,3"]',
    pytest.param("resource: [0, 0, GPU-8f6e]"),
    "resource: {cpu: 4}",
    "default: {}",
    "default: {x: null, y.z: 1.5, n: .inf}",
    "alias: {s: {a: {x: 1, y: null}}}",
]
GRIDS = [
    "lr: 1",
    "lr: [1, a, null, 1.5, true]",
    pytest.param("_exclude: {lr: 1}\nlr: [1, 2]"),
    "_exclude: []\nlr: 1",
    "_title: a b c\nlr: 1",
    "lr: {_range: [0, 3]}",
    "lr: {_range: [3, 0, -1]}",
    "LIST_a: [{}]",
    "0: 1",
    "x.y.z: 1",
]


@pytest.mark.parametrize("header", HEADERS)
def test_it_accepts_every_form_of_a_setting(header: str, tmp_path: Path) -> None:
    for document in documents(f"template: {{a: 'true'}}\n{header}\n---\nlr: 1\n", tmp_path):
        CHECKER.validate(document)
    config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("grid", GRIDS)
def test_it_accepts_every_form_of_a_grid(grid: str, tmp_path: Path) -> None:
    for document in documents(f"template: {{a: 'true'}}\n---\n{grid}\n", tmp_path):
        CHECKER.validate(document)
    config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "header",
    [
        "templat: {a: b}",
        "template: {a: b}\ndefaults: {x: 1}",
        "template: {a: b}\naliases: {s: {a: {x: 1}}}",
        "template: {a: {cmdd: b}}",
        "template: {a: {cmd: b, cdm: c}}",
        "template: {a: {}}",
        "template: {a: [b]}",
        "template: {}",
        "template: b",
        "template: {a: b}\nresource: all",
        "template: {a: b}\nresource: {cpu: 0}",
        "template: {a: b}\nresource: {cpus: 1}",
        "template: {a: b}\nresource: []",
        "template: {a: b}\ndefault: {x: [1, 2]}",
        "template: {a: b}\ndefault: {x: {y: 1}}",
        "template: {a: b}\nalias: {s: {}}",
        "template: {a: b}\nalias: {s: {a: {}}}",
        pytest.param("template: {a: b}\nalias: {s: {a: {x: [1]}}}"),
        "template: {a: b}\nalias: {s: {a: 1}}",
    ],
)
def test_it_refuses_a_wrong_setting(header: str, tmp_path: Path) -> None:
    assert not CHECKER.is_valid(documents(f"{header}\n---\nlr: 1\n", tmp_path)[0])
    with pytest.raises(InputError):
        config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "grid",
    [
        "_titel: x",
        "_cmds: a",
        "_title: [x]",
        "_cmd: []",
        "_zip: 3",
        "_zip: {lr: []}",
        "_zip: {}",
        "_zip: []",
        "_exclude: 3",
        "_exclude: [{}]",
        "lr: []",
        "lr: {a: 1}",
        "lr: {}",
        "lr: [[1, 2]]",
        "lr: [{a: 1}]",
        "lr: {_rang: [0, 1]}",
        "lr: {_range: [0]}",
        "lr: {_range: [0, 1, 1, 1]}",
        "lr: {_range: [a, b]}",
        "lr: {_range: 3}",
        pytest.param("lr: {_range: [0, 3], _linspace: [0, 1, 3]}"),
        pytest.param("lr: {_range: [0, 3], step: 1}"),
        pytest.param("lr: {_linspace: [0, 1]}"),
        pytest.param("lr: {_logspace: [1, 2, 2.5]}"),
        pytest.param("lr: {_logspace: [1, 2, 0]}"),
        "a b: 1",
        "LIST_x: 3",
        "LIST_x: []",
        "LIST_x: [1]",
        "LIST_x: [{_title: y}]",
        "LIST_x: [{_cmd: a}]",
        "LIST_x: [{lr: []}]",
        "- 1",
        "hello",
    ],
)
def test_it_refuses_a_wrong_grid(grid: str, tmp_path: Path) -> None:
    assert not CHECKER.is_valid(documents(f"template: {{a: b}}\n---\n{grid}\n", tmp_path)[1])
    with pytest.raises(InputError):
        config.load(tmp_path / "params.yaml")
