"""Several processes, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train import trainer
from train.config import Config, LmConfig
from train.errors import TrainError
from train.signals import Stop

TIMEOUT_S = 110


def test_two_processes_equal_one_with_the_same_batch(
    tiny: Callable[..., LmConfig],
    flags_of: Callable[[Config], list[str]],
    table: Callable[[Config], list[list[str]]],
    ended_state: Callable[[Config], dict[str, Any]],
) -> None:
    options: dict[str, Any] = {"batch": 8, "averages": ["ema_0.9"], "eval_examples": 0, "best": True}
    alone, together = tiny("alone", accumulate=4, **options), tiny("together", accumulate=2, **options)
    assert trainer.train(alone, Stop()) == 0
    command = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "--standalone"]
    words = [*command, "-m", "train", *flags_of(together)]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("done: ") == 1

    for one, other in zip(table(alone)[1:], table(together)[1:], strict=True):
        assert one[0] == other[0]
        numbers = [[float(value) for value in row[1:] if value] for row in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-4)
    first, second = ended_state(alone), ended_state(together)
    for name, value in first["model"].items():
        assert torch.allclose(value, second["model"][name], atol=1e-4), name
    assert len(second["rngs"]) == 2


def test_no_torchrun_is_told(tiny: Callable[..., LmConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(TrainError, match=r"WORLD_SIZE=2 and no LOCAL_RANK: .* torchrun, or unset WORLD_SIZE"):
        trainer.train(tiny(), Stop())
    monkeypatch.setenv("WORLD_SIZE", "")
    assert trainer.train(tiny(), Stop()) == 0


@pytest.mark.parametrize(("size", "said"), [("2", "done\n"), ("1", "done\ntorn down\n")])
def test_one_of_several_processes_ends_without_tearing_down_the_interpreter(size: str, said: str) -> None:
    code = "import atexit; from train.world import leave; atexit.register(print, 'torn down'); print('done'); leave(3)"
    environment = os.environ | {"WORLD_SIZE": size}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, said)
