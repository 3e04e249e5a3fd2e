"""The options of stages in the first document, as they are read."""

from pathlib import Path

from runner import config
from runner.config import Config
from runner.options import GRACE_S, Retry, StageOptions
from runner.params.header import NotifySpec

GRID = "---\nlr: [0.1, 0.01]\n"


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_every_option_of_a_stage_is_read(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """
template:
  train:
    cmd: run {lr}
    timeout: 1h 30m
    retry: {times: 2, delay: 30s, on: [oom, timeout]}
    grace: 5
    stall: 20m
    stagger: 10
    env: {OMP_NUM_THREADS: 4, DEBUG: true, NAME: a b}
    cwd: sub dir
    gpus: 2
    per_gpu: auto
    vram_by: [lr]
    cpus: 3
    on_oom: {lr: "{lr} / 2"}
    keep: {"*.pt": 2}
  test: eval
order: breadth
fail_fast: 3
notify: {cmd: "echo done", on: [paused]}
default: {lr: 0.5}
"""
        + GRID,
    )
    assert loaded.options["train"] == StageOptions(
        timeout_s=5400.0,
        retry=Retry(2, 30.0, ("oom", "timeout")),
        grace_s=5.0,
        stall_s=1200.0,
        stagger_s=10.0,
        env={"OMP_NUM_THREADS": "4", "DEBUG": "True", "NAME": "a b"},
        cwd="sub dir",
        gpus=2,
        per_gpu=None,
        vram_by=("lr",),
        cpus=3,
        on_oom={"lr": "{lr} / 2"},
        keep={"*.pt": 2},
    )
    assert loaded.options["test"] == StageOptions(grace_s=GRACE_S)
    assert (loaded.order, loaded.fail_fast) == ("breadth", 3)
    assert loaded.notify == NotifySpec(cmd="echo done", on=["paused"])


def test_options_of_all_stages_hold_where_a_stage_says_nothing_else(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "stage: {timeout: 10m, retry: 1, env: {A: 1, B: 2}}\n"
        "template:\n  train: {cmd: run, timeout: 2h, env: {B: 3}}\n  test: eval\n" + GRID,
    )
    train, test = loaded.options["train"], loaded.options["test"]
    assert (train.timeout_s, train.retry.times, train.env) == (7200.0, 1, {"A": "1", "B": "3"})
    assert (test.timeout_s, test.retry.times, test.env) == (600.0, 1, {"A": "1", "B": "2"})


def test_a_stage_may_take_a_limit_of_all_stages_back(tmp_path: Path) -> None:
    loaded = load(tmp_path, "stage: {timeout: 10m}\ntemplate:\n  train: {cmd: run, timeout: null}\n" + GRID)
    assert loaded.options["train"].timeout_s is None


def test_without_options_a_stage_has_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, "template: {train: run}\n" + GRID)
    assert loaded.options == {"train": StageOptions()}
    assert (loaded.order, loaded.fail_fast, loaded.notify) == ("depth", None, None)
