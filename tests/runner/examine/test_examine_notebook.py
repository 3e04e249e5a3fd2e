"""The example notebook runs as it stands."""

import ast
import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"


def read_notebook() -> Any:
    read: Any = nbformat.read
    return read(EXAMPLES / "analysis.ipynb", as_version=4)


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    shutil.copytree(EXAMPLES / "analysis_output", tmp_path / "analysis_output")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read_notebook()
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def result(cell: Any) -> Any:
    (output,) = cell.outputs
    return output["data"]


def test_the_notebook_holds_no_outputs() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.filterwarnings("default")  # the notebook's client and kernel are not ours
def test_the_notebook_runs(cells: list[Any]) -> None:
    imports, parser, exam, by_seed, first, finals, picture = cells
    assert imports.outputs == parser.outputs == []
    table = result(exam)["text/plain"].splitlines()
    assert table[0].split() == ["lr", "seed", "accuracy"]
    assert len(table) == 7
    means = result(by_seed)["text/plain"].splitlines()
    assert means[0].split() == ["mean", "std", "count"]
    assert [line.split()[0] for line in means[2:]] == ["0.01", "0.10"]
    assert [line.split()[-1] for line in means[2:]] == ["3", "3"]
    assert ast.literal_eval(result(first)["text/plain"])["lr_0.1-seed_1"] < 12
    assert result(finals)["text/plain"].splitlines()[0].split() == ["lr", "seed", "accuracy", "loss"]
    assert len(result(picture)["image/png"]) > 10_000
