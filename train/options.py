"""`python -m train.options`: the page of all options, in Markdown, from the config's own types and documentation."""

from __future__ import annotations

from train.config import CONFIGS, Config
from train.flags import describe, kind_of, shown

HEAD = """\
# Options of python -m train

`python -m train.options` writes this page. Every option is a flag (`--weight-decay 0.1` or `--weight_decay 0.1`) and a
key of the YAML file of `--config`; flags come last. Lists and mappings are written in YAML: `--averages '[ema_0.99]'`.
Durations are steps (`500`), or `'2 epochs'` or `'1e6 samples'`.
"""


def rows(kind: type[Config], names: list[str]) -> list[str]:
    lines = ["| option | kind | default | |", "|---|---|---|---|"]
    for name in names:
        info = kind.model_fields[name]
        cells = (f"`{name}`", kind_of(info.annotation), f"`{shown(info.default)}`", describe(name, info))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page() -> str:
    """Return the whole page."""
    lines = [HEAD, "## All tasks", "", *rows(Config, list(Config.model_fields)), ""]
    for task, kind in CONFIGS.items():
        own = [name for name in kind.model_fields if name not in Config.model_fields]
        lines += [f"## --task {task}", "", (kind.__doc__ or "").splitlines()[0], "", *rows(kind, own), ""]
        other = [
            f"`{name}` {shown(info.default)}"
            for name, info in kind.model_fields.items()
            if name in Config.model_fields and name != "task" and info.default != Config.model_fields[name].default
        ]
        lines += [f"Its own defaults: {', '.join(other)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
