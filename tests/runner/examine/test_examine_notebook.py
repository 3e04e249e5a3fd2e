"""The example notebooks run as they stand."""

import ast
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
# The notebook's client and kernel are not ours.
pytestmark = pytest.mark.filterwarnings("default")


def read_notebook(name: str) -> Any:
    read: Any = nbformat.read
    return read(EXAMPLES / f"{name}.ipynb", as_version=4)


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """Runs a notebook beside the trials of the examples; returns its code cells."""
    shutil.copytree(EXAMPLES / "analysis_output", tmp_path / "analysis_output")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def execute(name: str) -> list[Any]:
        notebook = read_notebook(name)
        place = {"metadata": {"path": tmp_path}}
        NotebookClient(notebook, timeout=60, kernel_name="python3", resources=place).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return execute


def result(cell: Any) -> Any:
    (data,) = [output["data"] for output in cell.outputs if "data" in output]
    return data


def lines(cell: Any) -> list[list[str]]:
    """The words of each line that a cell shows as its result."""
    return [line.split() for line in result(cell)["text/plain"].splitlines()]


def printed(cell: Any) -> list[str]:
    text = "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")
    return text.splitlines()


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.ipynb")))
def test_a_notebook_holds_no_outputs(name: str) -> None:
    notebook = read_notebook(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_analysis(executed: Callable[[str], list[Any]]) -> None:
    imports, parser, exam, by_seed, first, finals, picture = executed("analysis")
    assert imports.outputs == parser.outputs == []
    table = lines(exam)
    assert table[0] == ["lr", "seed", "accuracy"]
    assert len(table) == 7
    means = lines(by_seed)
    assert means[0] == ["mean", "std", "count"]
    assert [line[0] for line in means[2:]] == ["0.01", "0.10"]
    assert [line[-1] for line in means[2:]] == ["3", "3"]
    assert ast.literal_eval(result(first)["text/plain"])["lr_0.1-seed_1"] < 12
    assert lines(finals)[0] == ["lr", "seed", "accuracy", "loss"]
    assert len(result(picture)["image/png"]) > 10_000


def test_mlrunners_habits(executed: Callable[[str], list[Any]]) -> None:
    imports, _, exam, means, big = executed("mlrunner")
    assert imports.source.endswith("from runner.examine import Examiner, latest_log")
    table = [line.split("\t") for line in printed(exam)]
    assert table[0] == ["lr", "seed", "acc"]
    assert table[1:] == sorted(table[1:])
    assert [row[2] for row in table[1:]] == ["89.03", "89.02", "89.22", "92.91", "93.25", "93.25"]
    assert lines(means)[2:] == [["0.01", "89.09", "0.11", "3"], ["0.10", "93.14", "0.20", "3"]]
    assert lines(big)[1][0] == "0.01"
    assert lines(big)[2][-1].endswith("...") or lines(big)[2][-1].endswith("]")


def test_seeds(executed: Callable[[str], list[Any]]) -> None:
    table, loss, accuracy, pairs, exact = executed("seeds")
    assert len(lines(table)) >= 7
    assert [line[:4] for line in lines(loss)[2:4]] == [["0.01", "3", "0", "0"], ["0.10", "3", "0", "0"]]
    assert [line[0] for line in lines(accuracy)[2:4]] == ["0.10", "0.01"]
    assert lines(pairs)[1][1:5] == ["0.01", "0.1", "3", "0"]
    assert lines(exact)[1][-1] == "0.25"


def test_curves(executed: Callable[[str], list[Any]]) -> None:
    head, means, drawn, sweep, pareto, log = executed("curves")
    assert lines(head)[0] == ["trial", "lr", "seed", "step", "metric.lr", "loss", "accuracy"]
    assert lines(means)[0] == ["lr", "0.01", "0.10"]
    assert all(len(result(cell)["image/png"]) > 5_000 for cell in (drawn, sweep, pareto))
    assert lines(log)[-1][1:] == ["12", "0.2261", "92.91"]


def test_report(executed: Callable[[str], list[Any]], tmp_path: Path) -> None:
    report, table, compare = executed("report")
    assert printed(report) == ["report.html"]
    assert (tmp_path / "report.html").read_text().count("<tr>") >= 9
    assert printed(table)[0].split()[:3] == ["lr", "trials", "loss"]
    assert printed(compare)[2].split() == ["lr", "0.1", "0.01"]
