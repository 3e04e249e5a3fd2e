"""The models, and the quality that the tasks reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from train import trainer
from train.config import Config, ImageConfig, LmConfig, TabularConfig
from train.errors import TrainError
from train.evaluate import evaluate
from train.gpt import GPT, rotate, rotations
from train.image import ImageTask
from train.losses import each_loss
from train.signals import Stop
from train.tabular import TabularTask
from train.vision import build_own

Table = Callable[[Config], list[list[str]]]


@pytest.mark.parametrize("rope", [False, True])
def test_a_gpt_sees_no_token_that_it_predicts(rope: bool) -> None:
    torch.manual_seed(0)
    model = GPT(vocabulary=50, layers=2, width=16, heads=2, context=12, rope=rope)
    tokens = torch.randint(50, (1, 12))
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 50
    with torch.no_grad():
        first, second = model(tokens), model(changed)
    assert torch.equal(first[0, :9], second[0, :9])
    assert not torch.equal(first[0, 9], second[0, 9])


def test_rotary_positions_know_distances_only() -> None:
    rotation = rotations(length=20, width=8)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    q, k = rotate(q.expand(-1, -1, 20, -1), rotation), rotate(k.expand(-1, -1, 20, -1), rotation)
    products = (q @ k.mT)[0, 0]
    for distance in (0, 3, 7):
        assert torch.allclose(products.diagonal(distance), products[0, distance], atol=1e-5)


def test_rope_and_dropout_train(tiny: Callable[..., LmConfig], table: Table) -> None:
    config = tiny(positions="rope", dropout=0.1, samples=2)
    assert trainer.train(config, Stop()) == 0
    assert float(table(config)[-1][3]) < 3.0


@pytest.mark.parametrize(("name", "published"), [("resnet20", 0.27e6), ("wrn16_4", 2.7e6)])
def test_own_models_have_the_published_sizes(name: str, published: float) -> None:
    model = build_own(name, channels=3, classes=10, size=32)
    assert sum(value.numel() for value in model.parameters()) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("name", ["lenet", "resnet8", "wrn10_2", "vit_tiny"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_own_models_take_images_of_any_size(name: str, channels: int, size: int) -> None:
    model = build_own(name, channels, classes=7, size=size)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_unknown_models_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="unknown model 'resnet': allowed are lenet, "):
        build_own("resnet", 1, 10, 8)
    with pytest.raises(TrainError, match="model is resnet9: the depth must be 2 more than a multiple of 6"):
        build_own("resnet9", 1, 10, 8)
    with pytest.raises(TrainError, match="timm has no model 'resnet19', did you mean resnet"):
        ImageTask(ImageConfig(out=tmp_path, model="timm:resnet19"))


@pytest.mark.parametrize("head_init", ["default", "zero", "random"])
def test_the_head_begins_as_it_is_told(tmp_path: Path, head_init: str) -> None:
    task = ImageTask(ImageConfig.model_validate({"out": tmp_path, "head_init": head_init}))
    model = task.build()
    head: Any = task.last_layer(model)
    outputs = model(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    assert bool((outputs == 0).all()) == (head_init == "zero")
    assert bool((head.bias == 0).all()) == (head_init != "default")


def test_squared_loss_is_the_distance_from_the_class() -> None:
    outputs, classes = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([2])
    assert each_loss("squared", outputs, classes).tolist() == [1.0 + 1.0]
    assert each_loss("squared", torch.tensor([[3.0]]), torch.tensor([1.0])).tolist() == [4.0]


def test_digits_are_learned(tmp_path: Path) -> None:
    config = ImageConfig(out=tmp_path, steps="12 epochs", device="cpu", loggers=[])
    assert trainer.train(config, Stop()) == 0
    assert float(evaluate(tmp_path, "test")["accuracy"]) >= 0.98


def test_a_linear_model_equals_logistic_regression(tmp_path: Path) -> None:
    """L2 of 1 / (C n) on each mean; two outputs need twice as much for the difference that one output has."""
    config = TabularConfig(
        out=tmp_path,
        train_split="train",
        eval_splits={"test": "test"},
        optimizer="sgd",
        lr=0.1,
        weight_decay=2 / 456,
        steps=2000,
        eval_every=0,
        batch=456,
        clip=0.0,
        device="cpu",
        loggers=[],
    )
    assert trainer.train(config, Stop()) == 0
    found = evaluate(tmp_path, "test")

    task, table = TabularTask(config), load_breast_cancer()
    train, test = task.splits["train"], task.splits["test"]
    x = (table.data - table.data[train].mean(axis=0)) / table.data[train].std(axis=0)
    reference = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-8).fit(x[train], table.target[train])
    probabilities = reference.predict_proba(x[test])[np.arange(len(test)), table.target[test]]
    assert found["accuracy"] >= reference.score(x[test], table.target[test])
    assert found["loss"] == pytest.approx(-np.log(probabilities).mean(), abs=1e-3)


def test_an_mlp_fits_numbers(tmp_path: Path, table: Table) -> None:
    config = TabularConfig(out=tmp_path, data="diabetes", hidden=[16], lr=0.03, steps=300, device="cpu", loggers=[])
    assert trainer.train(config, Stop()) == 0
    last = float(table(config)[-1][3])
    targets = TabularTask(config).y
    assert last < 0.65 * float(targets.var()), "far better than the mean"


def test_a_timm_model_trains_for_a_few_steps(tmp_path: Path, table: Table) -> None:
    config = ImageConfig(
        out=tmp_path,
        model="timm:mobilenetv3_small_050",
        image_size=32,
        randaugment=5,
        channels_last=True,
        samples=2,
        steps=3,
        warmup=0,
        batch=8,
        log_every=1,
        eval_examples=8,
        device="cpu",
    )
    assert trainer.train(config, Stop()) == 0
    assert [row[0] for row in table(config)[1:]] == ["1", "2", "3"]


def test_pretrained_weights_that_cannot_be_had_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **options: Any) -> None:
        assert (name, options["pretrained"]) == ("resnet18", True)
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("timm.create_model", unreachable)
    config = ImageConfig(out=tmp_path / "run", data_dir=tmp_path, model="timm:resnet18", pretrained="default")
    with pytest.raises(
        TrainError, match=r"cannot get the weights default of timm:resnet18 into .*: no route to the hub"
    ):
        trainer.train(config, Stop())
    assert not config.out.exists()


def test_clip_classifies_without_training(tmp_path: Path) -> None:
    import open_clip

    (tmp_path / "tiny-clip.json").write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}, '
        '"text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}}'
    )
    open_clip.add_model_config(tmp_path)
    options: dict[str, Any] = {"model": "clip:tiny-clip", "head_init": "zero_shot", "eval_first": True}
    config = ImageConfig(
        out=tmp_path / "run", data_dir=tmp_path, steps=2, warmup=0, batch=4, eval_examples=8, device="cpu", **options
    )
    assert trainer.train(config, Stop()) == 0
    rows = (config.out / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("0,")
    state = torch.load(config.out / "checkpoints" / "2.pt", weights_only=True)
    assert state["model"]["body.head.weight"].shape == (10, 16)
