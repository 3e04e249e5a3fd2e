"""Wrong keys and options in the first document: each error is told with line, key, value and what is allowed."""

from pathlib import Path

import pytest

from runner import config
from runner.errors import InputError

GRID = "---\nlr: [0.1, 0.01]\n"
DURATION = "is no duration; allowed: a number of seconds, or a text such as 30s, 20m, 1.5h, 2d."
STAGE = (
    "cmd, cpus, cwd, env, executor, gpus, grace, keep, on_oom, per_gpu, prune, retry, stagger, stall, timeout, vram_by."
)


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    config.load(path)


@pytest.mark.parametrize(
    ("lines", "place", "hint"),
    [
        ("timeout: soon", "timeout", f"'soon' {DURATION}"),
        ("timeout: -1", "timeout", f"-1 {DURATION}"),
        ("timeout: [1]", "timeout", f"[1] {DURATION}"),
        ("grace: true", "grace", f"True {DURATION}"),
        ("stall: 5 weeks", "stall", f"'5 weeks' {DURATION}"),
        ("stagger: {}", "stagger", f"{{}} {DURATION}"),
        ("retry: -1", "retry", "-1 is not allowed: input should be greater than or equal to 0."),
        ("retry: {times: 1.5}", "retry.times", "1.5 is not allowed: input should be a whole number."),
        ("retry: {delay: x}", "retry.delay", f"'x' {DURATION}"),
        ("retry: {on: [stal]}", "retry.on.0", "'stal' is no cause. Did you mean 'stall'? Allowed: oom, host-oom, "),
        ("retry: {when: 1}", "retry.when", "unknown key. Allowed: delay, on, times."),
        ("gpus: -1", "gpus", "-1 is not allowed: input should be greater than or equal to 0."),
        ("gpus: none", "gpus", "'none' is not allowed: input should be a whole number."),
        ("per_gpu: 0", "per_gpu", "0 is not allowed: allowed are a whole number above 0 and auto."),
        ("per_gpu: many", "per_gpu", "'many' is not allowed: allowed are a whole number above 0 and auto."),
        ("cpus: 0", "cpus", "0 is not allowed: input should be greater than 0."),
        ("vram_by: size", "vram_by", "'size' is not allowed: input should be a list, in [ ]."),
        ("vram_by: [sise]", "vram_by.0", "no parameter is called 'sise'."),
        ("on_oom: {batch: 'import os'}", "on_oom.batch", "'import os' is no plain arithmetic; allowed: numbers, "),
        ("on_oom: {batch: '{batch}/2'}", "on_oom.batch", "no default for `batch`; add it to `default`."),
        ("env: [A]", "env", "['A'] is not allowed: input should be a mapping."),
        ("env: {A: [1]}", "env.A", "[1] is a list;"),
        ("env: {A-B: 1}", "env.A-B", "'A-B' is no name of a variable."),
        ("env: {1A: 1}", "env.1A", "'1A' is no name of a variable."),
        ("cwd: 5", "cwd", "5 is not allowed: input should be a string."),
        ("keep: {a: -1}", "keep.a", "-1 is not allowed: input should be greater than or equal to 0."),
        ("timeot: 5", "timeot", f"unknown key. Did you mean 'timeout'? Allowed: {STAGE}"),
    ],
)
@pytest.mark.parametrize("is_general", [False, True])
def test_a_wrong_option_is_told_where_it_stands(
    tmp_path: Path, lines: str, place: str, hint: str, is_general: bool
) -> None:
    if is_general:
        text, key, line = f"template: {{train: run}}\nstage:\n  {lines}\n", "stage", 3
        hint = hint.replace(f"Allowed: {STAGE}", f"Allowed: {STAGE.removeprefix('cmd, ')}")
    else:
        text, key, line = f"template:\n  train:\n    cmd: run\n    {lines}\n", "template.train", 4
    with pytest.raises(InputError) as caught:
        load(tmp_path, text + GRID)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/params.yaml, line {line}, {key}.{place}: ")
    assert hint in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "place", "hint"),
    [
        ("order: width", "order", "'width' is not allowed: input should be 'depth' or 'breadth'."),
        ("fail_fast: 0", "fail_fast", "0 is not allowed: input should be greater than 0."),
        ("fail_fast: true", "fail_fast", "True is not allowed: input should be a whole number."),
        ("notify: {}", "notify", "needs either a `cmd` or a `url`."),
        ("notify: {on: [paused]}", "notify", "needs either a `cmd` or a `url`."),
        ("notify: {cmd: x, on: []}", "notify.on", "is empty; at least one entry is needed."),
        ("notify: {cmd: x, on: [done]}", "notify.on.0", "'done' is not allowed: input should be 'sweep-ended'"),
        ("notify: {command: x}", "notify.command", "unknown key. Did you mean 'cmd'? Allowed: cmd, on, url."),
        (
            "notify: echo",
            "notify",
            "'echo' is no notification; allowed: {cmd: COMMAND} or {url: ADDRESS}, and in it `on:",
        ),
        ("notify: {cmd: x, on: paused}", "notify.on", "'paused' is not allowed: input should be a list, in [ ]."),
        ("stage: run", "stage", "'run' is not allowed: input should be a mapping"),
        ("stage: {cmd: run}", "stage.cmd", f"unknown key. Did you mean 'cwd'? Allowed: {STAGE.removeprefix('cmd, ')}"),
    ],
)
def test_a_wrong_key_of_the_file_is_told_where_it_stands(tmp_path: Path, line: str, place: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, f"template: {{train: run}}\n{line}\n{GRID}")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/params.yaml, line 2, {place}: ")
    assert hint in message
    assert "\n" not in message
