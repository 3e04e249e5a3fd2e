"""The direction of imports, and what a start may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PURE = (
    "errors",
    "values",
    "text",
    "template",
    "naming",
    "grid",
    "gather",
    "needs",
    "waits",
    "model",
    "options",
    "selection",
    "failfast",
    "scheduler",
    "line",
    "entry",
    "slots",
    "submission",
    "trials",
    "progress",
    "events",
    "notices",
    "devices",
    "eligibility",
    "packing",
    "placing",
    "fairness",
    "learning",
    "pools",
    "gpuwish",
    "arithmetic",
    "memory",
    "busy",
    "search/choice",
    "search/branches",
    "halving",
    "stagger",
    "arrays",
    "screenfit",
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
# From the top down: a layer imports only what stands below it.
LAYERS = (
    {"cli"},
    {
        "run",
        "debug",
        "serve",
        "task",
        "attach",
        "faraway",
        "top",
        "control",
        "status",
        "logs",
        "check",
        "removal",
        "schema",
        "results",
    },
    {
        "commands",
        "daemonview",
        "daemon",
        "handover",
        "overview",
        "closing",
        "watch",
        "preview",
        "scriptview",
        "changes",
        "notices",
        "screenfit",
    },
    {"batches", "returns"},
    {"batchreturns"},
    {"batchqueue", "batchverdicts", "batchbook"},
    {"batchnews"},
    {"packs"},
    {"decide", "callnext", "nextrounds"},
    {
        "client",
        "follow",
        "connections",
        "intake",
        "pipeline",
        "roundlimits",
        "planning",
        "resources",
        "endings",
        "attempts",
        "aftermath",
        "shortage",
        "places",
        "gpuwork",
        "ledger",
        "codewatch",
        "launching",
        "batchdesk",
        "batchtasks",
        "batchscript",
        "submitjob",
    },
    {"rounds", "units", "pruning"},
    {"recovery", "config", "plan", "plans", "directories", "lock", "inbox", "gpus", "snapshot", "batchfile", "claims"},
    {"executorfile"},
    {"executors"},
    {
        "header",
        "headerfile",
        "notify",
        "gridfile",
        "gatherfile",
        "searchfile",
        "inputs",
        "protocol",
        "records",
        "process",
        "strays",
        "provenance",
        "checkout",
        "search",
        "yamlfile",
        "appendfile",
        "lasting",
        "metricsfile",
        "errands",
        "guard",
        "children",
    },
    {"daemonlog", "logtail", "logout", "triage", "keep"},
    {"submission", "events", "progress", "scheduler", "trials", "selection", "failfast", "options", "gpuwish"},
    {"slots"},
    {"eligibility", "pools", "learning", "memory", "busy", "line", "stagger"},
    {"entry"},
    {"arrays", "needs"},
    {"gather", "waits", "halving"},
    {
        "model",
        "grid",
        "naming",
        "template",
        "values",
        "text",
        "errors",
        "devices",
        "packing",
        "placing",
        "fairness",
        "arithmetic",
    },
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


def rank(module: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if module.split(".")[1] in layer)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_reach_no_clock_file_or_process(name: str) -> None:
    used = imports(ROOT / "runner" / f"{name}.py")
    assert not {module.split(".")[0] for module in used} & IMPURE_LIBRARIES
    own = {module.removeprefix("runner.") for module in used if module.startswith("runner.")}
    assert {module.rpartition(".")[0].replace(".", "/") or module for module in own} <= set(PURE)


def test_the_runner_imports_downwards() -> None:
    wrong = []
    for name, path in modules("runner").items():
        if name == "runner" or name.startswith("runner.examine"):
            continue
        for used in imports(path):
            if not used.startswith("runner.") or used.startswith("runner.examine"):
                continue
            target = used if used.count(".") == 1 or used.startswith("runner.executors") else used.rsplit(".", 1)[0]
            if target != "runner" and rank(target) < rank(name):
                wrong.append(f"{name} imports {used}")
    assert not wrong


def test_packages_stay_apart() -> None:
    for name, path in modules("train").items():
        used = {module.split(".")[0] for module in imports(path, with_types=True)}
        assert not used & {"runner", "mpl"}, name
    for name, path in modules("runner").items():
        used = {module.split(".")[0] for module in imports(path, with_types=True)}
        assert not used & {"train", "mpl", "torch"}, name
    for name, path in modules("runner/examine").items():
        own = {module for module in imports(path, with_types=True) if module.startswith("runner.")}
        allowed = ("runner.examine", "runner.yamlfile", "runner.values", "runner.errors", "runner.provenance")
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
