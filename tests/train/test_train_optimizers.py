"""Optimizers, their groups, and averages of the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from train import trainer
from train.averages import Average, weight_of
from train.config import Config, LmConfig, TabularConfig
from train.errors import TrainError
from train.evaluate import evaluate
from train.gpt import GPT
from train.optimizers import Optimizers
from train.signals import Stop

Make = Callable[..., LmConfig]
Table = Callable[[Config], list[list[str]]]


def gpt() -> GPT:
    return GPT(vocabulary=256, layers=1, width=16, heads=2, context=8)


def config(**options: Any) -> LmConfig:
    return LmConfig.model_validate({"out": "o", **options})


def names_by_group(model: nn.Module, options: LmConfig) -> list[tuple[type, float, float, set[str]]]:
    names = {id(value): name for name, value in model.named_parameters()}
    return [
        (type(optimizer), group["weight_decay"], group["scale"], {names[id(value)] for value in group["params"]})
        for optimizer in Optimizers(model, options, None).all
        for group in optimizer.param_groups
    ]


def test_biases_and_norms_are_not_decayed() -> None:
    decayed, rest = names_by_group(gpt(), config(weight_decay=0.2))
    assert (decayed[1], rest[1]) == (0.2, 0.0)
    assert rest[3] == {"norm.weight", "blocks.0.attention_norm.weight", "blocks.0.mlp_norm.weight"}
    assert "tokens.weight" in decayed[3]


def test_the_longest_name_decides_the_scale() -> None:
    options = config(lr_scales={"blocks": 0.5, "blocks.0.up": 0.0})
    model = gpt()
    optimizers = Optimizers(model, options, None)
    optimizers.set_lr(0.1)
    lrs = {
        name: group["lr"]
        for optimizer in optimizers.all
        for group in optimizer.param_groups
        for name, value in model.named_parameters()
        if any(value is other for other in group["params"])
    }
    assert lrs["blocks.0.up.weight"] == 0.0
    assert lrs["blocks.0.down.weight"] == lrs["blocks.0.mlp_norm.weight"] == 0.05
    assert lrs["tokens.weight"] == 0.1
    with pytest.raises(
        TrainError, match=r"no parameter's name begins with 'block', did you mean blocks.; they begin with"
    ):
        Optimizers(model, config(lr_scales={"block": 2.0}), None)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_a_step_without_the_compiler_is_torchs_own(name: str) -> None:
    weights = []
    for compile_it in (False, True):  # nothing is compiled here: with the option, torch's steps are as they come
        torch.manual_seed(0)
        model = gpt()
        optimizers = Optimizers(model, config(optimizer=name, compile=compile_it), None)
        for _ in range(3):
            model(torch.arange(8)[None]).square().mean().backward()
            optimizers.step(None, list(model.parameters()), 1.0)
        optimizers.restore(optimizers.state())
        assert all(value.grad is None for value in model.parameters())
        weights.append([value.detach() for value in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_muon_takes_the_hidden_matrices() -> None:
    groups = names_by_group(gpt(), config(optimizer="muon"))
    hidden = {name for kind, _, _, names in groups if kind is torch.optim.Muon for name in names}
    assert hidden == {f"blocks.0.{name}.weight" for name in ("attention.qkv", "attention.out", "up", "down")}
    assert {name for kind, _, _, names in groups if kind is torch.optim.AdamW for name in names} >= {"tokens.weight"}
    linear = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(TrainError, match="optimizer is muon: the model has no matrix between two layers"):
        Optimizers(linear, TabularConfig(out=Path("o"), optimizer="muon"), linear[0])


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon", "lion"])
def test_every_optimizer_learns(tiny: Make, table: Table, optimizer: str) -> None:
    lr = {"sgd": 0.3, "lion": 1e-3}.get(optimizer, 1e-2)
    run = tiny(optimizer=optimizer, lr=lr, steps=80, eval_every=0, nesterov=optimizer in ("sgd", "muon"))
    assert trainer.train(run, Stop()) == 0
    losses = [float(row[2]) for row in table(run)[1:]]
    assert losses[-1] < losses[0] - 1


def test_an_average_weighs_the_old_one_by_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = Average("ema_0.75", model)
    values = [1.0, 2.0, 6.0]
    for value in values:
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
    expected = 0.75 * (0.75 * 1.0 + 0.25 * 2.0) + 0.25 * 6.0
    assert float(average.tensors[0]) == expected
    with average.swapped_in():
        assert model.weight.item() == expected
    assert model.weight.item() == 6.0


@pytest.mark.parametrize("power", [0, 2.5])
def test_polynomial_decay_averaging_is_its_formula(power: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20)
    weight = weight_of(f"poly_{power}")
    average = 0.0
    for t, value in enumerate(values, 1):
        average += weight(t) * (value - average)
    # The weights of Shamir and Zhang, written out: each value's own, times what later ones leave of it.
    shares = np.array([(power + 1) / (t + power) for t in range(1, 21)])
    left = np.append(np.cumprod((1 - shares)[::-1])[::-1][1:], 1.0)
    assert average == pytest.approx(float(values @ (shares * left)))
    if power == 0:
        assert average == pytest.approx(values.mean())


def test_averages_may_be_evaluated_alone(tiny: Make, table: Table) -> None:
    run = tiny(averages=["poly_1"], averages_only=True, patience=100)
    assert trainer.train(run, Stop()) == 0
    assert table(run)[0] == ["step", "lr", "loss", "val_poly_1_loss"]


def test_tf32_is_for_matrices_and_convolutions_or_for_neither(tiny: Make) -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.get_float32_matmul_precision() == "high", torch.backends.cudnn.allow_tf32

    reduced, full = tiny("reduced", precision="tf32"), tiny("full")
    for config, expected in ((reduced, (True, True)), (full, (False, False))):
        assert trainer.train(config, Stop()) == 0
        assert allowed() == expected
    evaluate(reduced.out, "test")
    assert allowed() == (True, True)
    evaluate(full.out, "test")
    assert allowed() == (False, False)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(tiny: Make, table: Table, precision: str) -> None:
    exact, reduced = tiny("exact", clip=1.0), tiny(precision, clip=1.0, precision=precision)
    for run in (exact, reduced):
        assert trainer.train(run, Stop()) == 0
    first, second = (float(table(run)[-1][3]) for run in (exact, reduced))
    assert first != second
    assert first == pytest.approx(second, abs=0.1)
