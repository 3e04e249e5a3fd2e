"""`run report`: one HTML file with the table, the curves, the failures and the code, that opens without a network."""

from __future__ import annotations

import html
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.code import provenance
from runner.errors import InputError, SystemFaultError
from runner.results import chosen, page, text

if TYPE_CHECKING:
    import argparse

    import pandas as pd

CURVES_MAX = 200
POINTS_MAX = 400
_TAIL_LINES, _TAIL_BYTES = 12, 65536
_COLUMNS_LAST = ("state", "commit", "duration_s", "gpu_hours", "peak_vram_mib", "peak_rss_mib", "host", "cause")
_FAILED = {"failed", "timeout", "damaged", "interrupted"}


def run(options: argparse.Namespace) -> int:
    """Writes the page and prints where it is.

    Raises:
        InputError: no such trial or metric, or Plotly is missing.
    """
    try:
        import plotly  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("plotly is not installed: pip install 'params-runner[report]'.") from None
    from runner.examine.wide import without_constants

    output = chosen.output(options.output)
    full = chosen.table(options, is_concise=False)
    metric = _metric(full, options.metric)
    target = Path(options.save) if options.save else output / "report.html"
    concise = without_constants(full)
    parts = [
        _head(full, output),
        _settings(concise, metric),
        _curves(full, concise, output, metric),
        _table(concise, full),
        _failures(full, output),
        _code(full, output),
    ]
    try:
        target.write_text(
            page.document(f"Results: {output}", "\n".join(filter(None, parts))), encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise SystemFaultError(f"{target}: {error.strerror}; choose another file with --save.") from error
    print(target)
    return 0


def _metric(frame: pd.DataFrame, name: str | None) -> str | None:
    metrics: list[str] = frame.attrs["metrics"]
    if name is None:
        return metrics[0] if metrics else None
    if name not in metrics:
        raise InputError(f"--metric {name}: is no metric. Allowed: {', '.join(metrics) or 'nothing'}.")
    return name


def _head(frame: pd.DataFrame, output: Path) -> str:
    counts = Counter(_fact(frame, "state"))
    states = ", ".join(f"{count:,} {state}" for state, count in counts.most_common())
    hours = _fact(frame, "gpu_hours").sum()
    spent = f" {hours:.1f} GPU hours." if hours else ""
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    what = html.escape(str(output.resolve().name))
    return f"<h1>Results: {what}</h1><p>{len(frame):,} trials: {html.escape(states)}.{spent} Made {made}.</p>"


def _fact(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column of the full table."""
    from runner.examine.wide import fact

    return frame[fact(frame, name)]


def _settings(frame: pd.DataFrame, metric: str | None) -> str:
    """The means over the seeds, where there are seeds."""
    from runner.examine.stats import best

    if metric is None or "seed" not in frame.attrs["parameters"] or len(frame.attrs["parameters"]) < 2:
        return ""
    kind: Any = chosen.interval_kind()
    found = best(frame, metric, kind=kind)
    note = "The interval is Student's, of 95 %." if kind else ""
    return page.section(f"{metric} over seeds", f"<p>{note}</p>" + page.table(*text.cells(found), name="settings"))


def _table(frame: pd.DataFrame, full: pd.DataFrame) -> str:
    steps = [name for name in frame.columns if name.endswith("_step")]
    facts = [name for name in frame.attrs["facts"] if name.removeprefix("run.") in _COLUMNS_LAST]
    columns = [*frame.attrs["parameters"], *frame.attrs["metrics"], *steps, *facts]
    rows = text.cells(chosen.with_nan(frame[columns], full))
    return page.section("Trials", page.filter_box() + page.table(*rows, name="trials"))


def _curves(full: pd.DataFrame, concise: pd.DataFrame, output: Path, metric: str | None) -> str:
    import pandas as pd
    import plotly.graph_objects as go

    from runner.examine.drawing import COLOURS
    from runner.examine.settings import numbers
    from runner.examine.tidy import curves
    from runner.examine.wide import is_higher_better

    if metric is None:
        return ""
    name = metric.removesuffix("_best")
    # The curve has the metric's name, also where a parameter has taken the one of the file.
    frame = curves(output, columns=[name.removeprefix("metric.")], concise=False)
    frame = frame[frame["trial"].isin(full.index)] if name in frame else frame.iloc[:0]
    if frame.empty:
        return ""
    # Of a trial that wrote a word last, nothing says how good it is.
    ranks = pd.Series(numbers(full[metric]), index=full.index)
    order = ranks.sort_values(ascending=not is_higher_better(name), kind="stable").index
    known = set(frame["trial"].unique())
    ranked = [trial for trial in order if trial in known]
    drawn = set(ranked[:CURVES_MAX])
    settings = [parameter for parameter in concise.attrs["parameters"] if parameter != "seed"]
    colours: dict[Any, str] = {}
    figure = go.Figure()
    for trial, part in frame[frame["trial"].isin(drawn)].groupby("trial", observed=True):
        values: Any = full.loc[trial, settings]
        key = str(values.tolist())
        colour = colours.setdefault(key, COLOURS[len(colours) % len(COLOURS)])
        part = part.iloc[:: -(-len(part) // POINTS_MAX)]
        line = {"color": colour, "width": 1.3}
        mode = "lines" if len(part) > 1 else "markers"
        figure.add_scatter(x=part["step"].to_list(), y=part[name].to_list(), mode=mode, line=line, name=str(trial))
    figure.update_layout(
        template="plotly_white",
        height=460,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        xaxis_title="step",
        yaxis_title=name,
        showlegend=len(figure.data) <= 30,
        hovermode="closest",
        updatemenus=[_scales()],
    )
    note = f"<p>The {CURVES_MAX} best of {len(ranked):,}.</p>" if len(ranked) > CURVES_MAX else ""
    drawing = figure.to_html(full_html=False, include_plotlyjs=True, div_id="curves", config={"displaylogo": False})
    return page.section(f"Curves of {name}", f"{note}{drawing}")


def _scales() -> dict[str, Any]:
    buttons = [{"label": kind, "method": "relayout", "args": [{"yaxis.type": kind}]} for kind in ("linear", "log")]
    place = {"x": 0, "xanchor": "left", "y": 1.14, "yanchor": "top"}
    return {"type": "buttons", "direction": "right", "buttons": buttons, **place}


def _failures(frame: pd.DataFrame, output: Path) -> str:
    found = frame[_fact(frame, "state").isin(_FAILED)]
    if found.empty:
        return ""
    from runner.examine.readers import shared_trials

    items = []
    shared = shared_trials(output)
    told = {name: _fact(found, name) for name in ("state", "stage", "cause", "exit_code", "line", "faults", "log")}
    for name in found.index[:CURVES_MAX]:
        row = {title: column[name] for title, column in told.items()}
        known = {title: text.cell(row[title]) for title in ("stage", "cause", "exit_code")}
        about = ", ".join(f"{title}: {value}" for title, value in known.items() if value != text.MISSING)
        said = [str(row[title]) for title in ("line", "faults") if isinstance(row[title], str)]
        tail = _tail(shared.get(str(name), output / str(name)), row["log"])
        summary = html.escape(f"{name}: {row['state']} ({about})" if about else f"{name}: {row['state']}")
        items.append(
            f"<details><summary>{summary}</summary><pre>{html.escape(chr(10).join([*said, *tail]))}</pre></details>"
        )
    return page.section(f"Not finished: {len(found):,}", "\n".join(items))


def _tail(trial: Path, log: Any) -> list[str]:
    """The last lines of the log, as a terminal would show them."""
    from runner.text import printable

    if not isinstance(log, str):
        return []
    try:
        with (trial / log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            content = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in content.rstrip("\n").split("\n")]
    return [printable(line) for line in lines[-_TAIL_LINES:]]


def _code(frame: pd.DataFrame, output: Path) -> str:
    """What is on record of the code and the machines."""
    items = []
    for path in sorted((output / ".runner" / "code").glob("*.json")):
        code = provenance.load(output, path.stem)
        count = int((_fact(frame, "code") == path.stem).sum())
        if code is None or not count:
            continue
        changes = provenance.changes_file(output, code)
        difference = changes.read_text(errors="replace") if changes is not None and changes.is_file() else ""
        gpus = ", ".join(f"{number} × {name}" for name, number in Counter(code.gpus).items()) or "no GPU"
        about = f"Python {code.python}, {code.platform}, {gpus}" + (f", driver {code.driver}" if code.driver else "")
        body = "\n".join([about, f"commit {code.commit} ({code.branch})", "", *code.packages, "", difference])
        summary = html.escape(f"{code.shown or 'no commit'}: {count:,} trials")
        items.append(f"<details><summary>{summary}</summary><pre>{html.escape(body)}</pre></details>")
    return page.section("Code", "\n".join(items)) if items else ""
