"""The direction of imports, and what a start may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PURE = (
    *("errors", "values", "template", "naming", "grid", "model", "scheduler", "trials", "progress", "events"),
    *("devices", "eligibility", "packing"),
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
    {"run", "check", "removal", "schema"},
    {"planning", "daemon", "closing", "watch", "resources", "preview", "changes"},
    {"recovery", "executors", "config", "plan", "gpus", "directories"},
    {"gridfile", "lock", "lasting", "records", "process", "yamlfile", "appendfile"},
    {"events", "progress", "scheduler", "trials", "eligibility"},
    {"model", "grid", "naming", "template", "values", "errors", "devices", "packing"},
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
    own = {module.split(".")[1] for module in used if module.startswith("runner.")}
    assert own <= set(PURE)


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
        allowed = ("runner.examine", "runner.yamlfile", "runner.values", "runner.errors")
        assert all(module.startswith(allowed) for module in own), name


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
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str, heavy: set[str]) -> None:
    assert not loaded_after(statement) & heavy
