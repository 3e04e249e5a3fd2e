"""What TensorBoard shows of a grid that `run` has trained and evaluated, as a user sees it in Chromium."""

from __future__ import annotations

import csv
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PARAMS = """\
template:
  train: >
    python -m train --data {data} --schedule {schedule} --lr {lr} --steps {steps} [warmup] --seed {seed}
    --log_every 10 --eval_every 30 --eval_examples 64 --device cpu --out {_output}
  evaluate: python -m train.evaluate {_output} --split test --device cpu
default: {data: stdlib, lr: 1e-2, steps: 60, warmup: 10}
resource: {cpu: 2}
---
schedule: [cosine, wsd]
seed: [0, 1]
"""
FINAL_VAL, FINAL_TEST = "loss/final_val", "loss/eval_test"
CURVES = {"loss/train": "loss", "loss/val": "val_loss", "lr": "lr"}
"""The charts, and the columns of metrics.csv that they show."""
USE = ("use/cpu_percent", "use/memory_mib", "use/steps_per_s")
HOST = "127.0.0.1"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Trial:
    """What a trial's own files say."""

    schedule: str
    seed: int
    columns: dict[str, list[float]]
    test_loss: float

    @classmethod
    def read(cls, directory: Path) -> Trial:
        config = yaml.safe_load((directory / "config.yaml").read_text())
        with (directory / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [float(row[name]) for row in rows if row[name]] for name in CURVES.values()}
        test = json.loads((directory / "eval_test.json").read_text())
        return cls(config["schedule"], config["seed"], columns, test["loss"])


def settle(read: Callable[[], object], wanted: object) -> None:
    """Poll until `read` returns what is wanted; where it never does, fail with the difference to its last answer."""
    end = time.monotonic() + TIMEOUT_S
    while (found := read()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    assert found == wanted


def number(text: str) -> float | str:
    """Read what a cell shows; one that is not filled yet stays a text."""
    try:
        return float(text)
    except ValueError:
        return text


def shown(value: float) -> Any:
    """Equal a number on the page: those have five significant digits."""
    return pytest.approx(value, rel=5.1e-5)


@pytest.fixture(scope="module")
def project(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `run` has completed the grid; it needs `browser` so that no skipped test trains."""
    path = tmp_path_factory.mktemp("project")
    (path / "params.yaml").write_text(PARAMS)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", "from runner.cli import main; raise SystemExit(main())"]
    ended = subprocess.run(
        command, cwd=path, env=environment, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return path


@pytest.fixture(scope="module")
def trials(project: Path) -> dict[str, Trial]:
    """The trials by the names of their directories."""
    found = {path.parent.name: Trial.read(path.parent) for path in (project / "output").glob("*/param")}
    pairs = {(trial.schedule, trial.seed) for trial in found.values()}
    assert pairs == {("cosine", 0), ("cosine", 1), ("wsd", 0), ("wsd", 1)}
    assert len(found) == 4
    return found


@contextmanager
def tensorboard(project: Path, port: int) -> Iterator[Callable[[str], Any]]:
    """Serve the project's output; yields a function that returns the JSON at a path, or why there is none."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "output", "--host", HOST, "--port", str(port)]
    log = project / "tensorboard.log"
    with log.open("wb") as stream:
        # TensorBoard starts a server of its own for the data: a group of their own ends them together.
        server = subprocess.Popen(command, cwd=project, stdout=stream, stderr=stream, start_new_session=True)

    def get(path: str) -> Any:
        assert server.poll() is None, log.read_text()
        try:
            with closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
                connection.request("GET", path)
                return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{error!r}; TensorBoard said: {log.read_text()}"

    try:
        yield get
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def address(project: Path, trials: dict[str, Trial]) -> Iterator[str]:
    """A TensorBoard that has read everything."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    tags = sorted([*CURVES, FINAL_VAL, FINAL_TEST, *USE])

    with tensorboard(project, port) as get:

        def read() -> Any:
            found = get("/data/plugin/scalars/tags")
            return {run: sorted(of_run) for run, of_run in found.items()} if isinstance(found, dict) else found

        settle(read, dict.fromkeys(trials, tags))
        yield f"http://{HOST}:{port}/"


def open_all(closed: Locator) -> None:
    for left in reversed(range(closed.count())):
        closed.first.click()
        # A second click would close the one that is just opening.
        expect(closed).to_have_count(left)


def values_below(card: Locator) -> dict[str, tuple[float | str, float | str]]:
    """Read the table below a chart of the Time Series tab: run → value and step at the cursor."""
    read = "row => [...row.querySelectorAll('tb-data-table-content-cell')].map(cell => cell.innerText.trim())"
    rows = card.locator("tb-data-table-content-row").evaluate_all(f"rows => rows.map({read})")
    # A cell for the run's colour, without a text, comes in front of its name; the smoothed value behind it.
    return {run: (number(value), number(step)) for _, run, _, value, step, *_ in rows}


def test_time_series_list_the_trials_and_their_last_values(
    address: str, page: Page, shoot: Callable[[str], None], trials: dict[str, Trial]
) -> None:
    page.goto(f"{address}#timeseries")
    runs = page.locator("runs-data-table tb-data-table-content-row .table-column-run")
    expect(runs).to_have_count(4)
    assert sorted(name.strip() for name in runs.all_inner_texts()) == sorted(trials)
    groups = page.locator("button.group-toolbar")
    expect(groups).to_have_count(len({tag.partition("/")[0] for tag in (*CURVES, FINAL_VAL, FINAL_TEST, *USE)}))
    expect(page.locator("scalar-card canvas").first).to_be_visible()
    shoot("time_series_at_first")

    open_all(page.locator('button.group-toolbar:has(mat-icon[svgicon="expand_more_24px"])'))
    for tag, column in CURVES.items():
        card = page.locator("scalar-card").filter(has=page.locator(f'[title="{tag}"]'))
        expect(card.locator("canvas")).to_be_visible()
        last = {name: (shown(trial.columns[column][-1]), 60) for name, trial in trials.items()}
        settle(partial(values_below, card), last)
    shoot("time_series")


def points(lines: Locator) -> dict[str, int]:
    """Count the points of the longest line in each colour: there is one as measured, and a smoothed one."""
    found: list[tuple[str, str]] = lines.evaluate_all(
        "lines => lines.map(line => [getComputedStyle(line).stroke, line.getAttribute('d') || ''])"
    )
    counts: dict[str, int] = {}
    for color, path in found:
        if path:
            counts[color] = max(counts.get(color, 0), path.count("M") + path.count("L"))
    return counts


def test_scalars_draw_a_curve_for_each_trial(
    address: str, page: Page, shoot: Callable[[str], None], trials: dict[str, Trial]
) -> None:
    page.goto(f"{address}#scalars")
    rows = page.locator("tf-scalar-dashboard tf-runs-selector .name-row")
    expect(rows).to_have_count(4)
    colors = {
        row.locator(".item-label-container").inner_text(): row.locator(".isolator").evaluate(
            "icon => getComputedStyle(icon).color"
        )
        for row in rows.all()
    }
    assert colors.keys() == trials.keys()
    assert len(set(colors.values())) == 4
    expect(page.locator("tf-scalar-card").first).to_be_visible()
    shoot("scalars_at_first")

    # What counts as an outlier may be a whole curve where there are so few.
    page.get_by_text("Ignore outliers in chart scaling").click()
    open_all(page.locator("tf-scalar-dashboard button.heading:not([open-button])"))
    for tag, column in CURVES.items():
        card = page.locator("tf-scalar-card").filter(has=page.get_by_text(f"tag: {tag}", exact=True))
        expect(card).to_have_count(1)
        lines = card.locator("vz-line-chart2 svg path.line")

        settle(partial(points, lines), {colors[name]: len(trial.columns[column]) for name, trial in trials.items()})
    shoot("scalars")


def hparams(page: Page) -> dict[str, dict[str, str]]:
    """Read the table of the HParams tab, row by row; the grid shows its cells through slots, in an order of its own."""
    read = """grid => {
      const texts = row => [...row.children].map(
        cell => cell.querySelector("slot").assignedNodes().map(node => node.innerText.trim()).join(""));
      const rows = part => [...grid.shadowRoot.querySelectorAll(part)].filter(row => !row.hidden).map(texts);
      return [rows("#header tr")[0] || [], rows("#items tr")];
    }"""
    names, rows = page.locator("tf-hparams-table-view vaadin-grid").evaluate(read)
    # A row has one more cell, for the charts that it unfolds.
    table = [dict(zip(names, row, strict=False)) for row in rows]
    return {row["Trial ID"]: row for row in table if "Trial ID" in row}


def test_hparams_table_has_the_parameters_and_results_of_each_trial(
    address: str, page: Page, shoot: Callable[[str], None], trials: dict[str, Trial]
) -> None:
    page.goto(f"{address}#hparams")
    expect(page.locator("tf-hparams-table-view vaadin-grid")).to_be_visible()

    def results() -> dict[str, tuple[float | str | None, ...]]:
        columns = ("seed", FINAL_VAL, FINAL_TEST)
        return {
            name: (row.get("schedule"), *(number(row.get(column, "no such column")) for column in columns))
            for name, row in hparams(page).items()
        }

    settle(
        results,
        {
            name: (trial.schedule, trial.seed, shown(trial.columns["val_loss"][-1]), shown(trial.test_loss))
            for name, trial in trials.items()
        },
    )
    shoot("hparams")


# --- programs that write no events themselves ---

PROGRAM = """\
import sys
lr, seed, out, rows = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with open(f"{out}/metrics.csv", "w") as file:
    file.write("step,lr,loss\\n" + "".join(f"{10 * row},{lr},{lr + seed + 1 / row}\\n" for row in range(1, rows + 1)))
"""
PLAIN = """\
template: {train: 'python program.py {lr} {seed} {_output} ROWS'}
resource: {cpu: 2}
---
lr: [0.5, 1e-3]
seed: [0, 1]
"""
ROWS = 12


def type_run(path: Path, *words: str) -> None:
    command = [sys.executable, "-c", "from runner.cli import main; raise SystemExit(main())", *words]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(command, cwd=path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def write_params(path: Path, rows: int) -> None:
    (path / "params.yaml").write_text(PLAIN.replace("ROWS", str(rows)))


@pytest.fixture(scope="module")
def plain_address(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A TensorBoard on trials whose curves come from metrics.csv; while it is open, all of them are run again."""
    path = tmp_path_factory.mktemp("plain")
    (path / "program.py").write_text(PROGRAM)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    write_params(path, 30)
    type_run(path)
    type_run(path, "tensorboard-sync")
    with tensorboard(path, port) as get:
        names = [f"Lr_{lr}-Seed_{seed}" for lr in (0.001, 0.5) for seed in (0, 1)]
        settle(lambda: sorted(get("/data/plugin/scalars/tags")), names)
        write_params(path, ROWS)
        type_run(path, "-f")
        type_run(path, "tensorboard-sync")
        scalars = f"/data/plugin/scalars/scalars?tag=loss&run={names[0]}"
        settle(lambda: len(get(scalars)), ROWS)
        yield f"http://{HOST}:{port}/"


def test_curves_from_metrics_csv_do_not_double(plain_address: str, page: Page, shoot: Callable[[str], None]) -> None:
    page.goto(f"{plain_address}#scalars")
    expect(page.locator("tf-scalar-dashboard tf-runs-selector .name-row")).to_have_count(4)
    expect(page.locator("tf-scalar-card").first).to_be_visible()
    page.get_by_text("Ignore outliers in chart scaling").click()
    open_all(page.locator("tf-scalar-dashboard button.heading:not([open-button])"))
    card = page.locator("tf-scalar-card").filter(has=page.get_by_text("tag: loss", exact=True))
    lines = card.locator("vz-line-chart2 svg path.line")
    settle(lambda: sorted(points(lines).values()), [ROWS] * 4)
    shoot("scalars_from_metrics_csv")


def test_parameters_and_results_of_any_program(plain_address: str, page: Page, shoot: Callable[[str], None]) -> None:
    page.goto(f"{plain_address}#hparams")
    expect(page.locator("tf-hparams-table-view vaadin-grid")).to_be_visible()

    def results() -> dict[str, tuple[float | str, ...]]:
        columns = ("lr", "seed", "loss")
        return {
            name: tuple(number(row.get(column, "no such column")) for column in columns)
            for name, row in hparams(page).items()
        }

    wanted = {
        f"Lr_{lr}-Seed_{seed}": (pytest.approx(lr, abs=5e-5), seed, shown(lr + seed + 1 / ROWS))
        for lr in (0.001, 0.5)
        for seed in (0, 1)
    }
    settle(results, wanted)
    shoot("hparams_from_metrics_csv")
