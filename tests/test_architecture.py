"""The direction of imports, and what a start may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ROOT = Path(__file__).resolve().parents[1]
PURE = (
    "errors",
    "values",
    "text",
    "template",
    "naming",
    "grid",
    "gather",
    "model",
    "options",
    "selection",
    "scheduler",
    "trials",
    "events",
    "arithmetic",
    "memory",
    "halving",
    "batch/arrays",
    "gpus/devices",
    "gpus/eligibility",
    "gpus/fairness",
    "gpus/learning",
    "gpus/packing",
    "gpus/placing",
    "gpus/wish",
    "queueing/busy",
    "queueing/entry",
    "queueing/failfast",
    "queueing/line",
    "queueing/needs",
    "queueing/pools",
    "queueing/slots",
    "queueing/stagger",
    "queueing/waits",
    "screen/progress",
    "screen/widths",
    "search/branches",
    "search/choice",
    "service/notices",
    "service/submission",
)
# What reads a clock, a file or a process.
IMPURE_LIBRARIES = {
    "time",
    "datetime",
    "pathlib",
    "subprocess",
    "signal",
    "socket",
    "shutil",
    "psutil",
    "yaml",
}
# From the top down: a package, or a module that stands by itself, imports only what stands below it, also for types.
LAYERS = (
    {"serve"},
    {"commands", "run"},
    {"daemonview", "nextrounds", "subcommands", "task"},
    {"daemon", "faraway"},
    {"batch", "cli", "decide", "handover"},
    {"planning", "results", "screen", "search"},
    {"client", "examine", "rounds", "service"},
    {"code", "directories", "inbox", "lock", "plan", "plans", "units"},
    {"trials"},
    {"config", "resources"},
    {"params", "recovery", "scheduler"},
    {"changes", "executors", "inputs", "memory", "queueing", "selection"},
    {"callnext", "events", "gather", "gpus", "guard", "keep", "notify", "options", "records"},
    {"arithmetic", "grid", "halving", "logtail", "model", "naming", "process", "protocol", "template"},
    {"triage", "yamlfile"},
    {"appendfile", "children", "errors", "logout", "metricsfile", "strays", "text", "values"},
)


def modules(package: str) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / package).rglob("*.py")
    }


def imports(path: Path, with_types: bool = False) -> set[str]:
    """The modules that a file imports; those under `if TYPE_CHECKING` only when asked for."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not with_types:
            skipped.update(ast.walk(node))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def module_of(imported: str, known: Collection[str]) -> str:
    """The module that an import reads: `runner.model.Trial` reads runner.model, `runner.code.snapshot` itself."""
    return imported if imported in known else imported.rpartition(".")[0]


def read_by(name: str, known: Mapping[str, Path], with_types: bool = False) -> set[str]:
    """The modules of the same package that a module imports."""
    package = name.split(".")[0] + "."
    used = imports(known[name], with_types)
    return {module_of(module, known) for module in used if module.startswith(package)} - {name}


def rank(module: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if module.split(".")[1] in layer)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_reach_no_clock_file_or_process(name: str) -> None:
    known = modules("runner")
    module = "runner." + name.replace("/", ".")
    assert not {used.split(".")[0] for used in imports(known[module])} & IMPURE_LIBRARIES
    assert {used.removeprefix("runner.").replace(".", "/") for used in read_by(module, known)} <= set(PURE)


def test_the_runner_imports_downwards() -> None:
    known = modules("runner")
    wrong = [
        f"{name} imports {used}"
        for name in sorted(set(known) - {"runner"})
        for used in sorted(read_by(name, known, with_types=True) - {"runner"})
        if used.split(".")[1] != name.split(".")[1] and rank(used) <= rank(name)
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["runner", "train", "mpl"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    known = modules(package)
    TopologicalSorter({name: read_by(name, known) for name in known}).prepare()


def test_packages_stay_apart() -> None:
    for name, path in modules("train").items():
        used = {module.split(".")[0] for module in imports(path, with_types=True)}
        assert not used & {"runner", "mpl"}, name
    for name, path in modules("runner").items():
        used = {module.split(".")[0] for module in imports(path, with_types=True)}
        assert not used & {"train", "mpl", "torch"}, name
    for name, path in modules("runner/examine").items():
        own = {module for module in imports(path, with_types=True) if module.startswith("runner.")}
        allowed = ("runner.examine", "runner.yamlfile", "runner.values", "runner.errors", "runner.code.provenance")
        assert all(module.startswith(allowed) for module in own), name


def test_the_loss_law_needs_the_schedules_alone() -> None:
    for name, path in modules("mpl").items():
        own = {module for module in imports(path, with_types=True) if module.split(".")[0] in ("train", "runner")}
        allowed = ("train.schedules", "train.errors")
        assert all(module.startswith(allowed) for module in own), name
    used = {module.split(".")[0] for path in modules("mpl").values() for module in imports(path)}
    assert not used & {"torch", "pandas", "runner"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in result.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import runner", {"torch", "pandas", "numpy", "matplotlib", "pydantic", "yaml", "rich"}),
        (
            "import runner.cli; runner.cli.RUN.parser('').format_help()",
            {"torch", "pandas", "numpy", "pydantic", "yaml", "rich"},
        ),
        ("import runner.run", {"torch", "pandas", "matplotlib", "tensorboard"}),
        ("import runner.examine", {"torch", "tensorboard"}),
        ("import train, train.schedules", {"torch", "tensorboard", "pandas"}),
        ("import mpl.cli", {"torch", "pandas", "matplotlib", "runner"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str, heavy: set[str]) -> None:
    assert not loaded_after(statement) & heavy
