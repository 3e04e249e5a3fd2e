"""Optimizers, their groups of parameters, and averages of the weights."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.config import Config
from train.eager import eager
from train.errors import TrainError, nearest

Group = dict[str, Any]


class Optimizers:
    """The one optimizer of a run, or Muon with AdamW for what is no matrix between two layers.

    Every group's learning rate is the schedule's times its own scale.
    """

    def __init__(self, model: nn.Module, config: Config, last_layer: nn.Module | None) -> None:
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        check_scales(named, config.lr_scales)
        matrices = hidden_matrices(model, last_layer) if config.optimizer == "muon" else set()
        hidden = {name: value for name, value in named.items() if name in matrices}
        rest = {name: value for name, value in named.items() if name not in matrices}
        if config.optimizer == "muon" and not hidden:
            raise TrainError("optimizer is muon: the model has no matrix between two layers")
        others = "adamw" if hidden else config.optimizer
        wanted = ([("muon", hidden)] if hidden else []) + [(others, rest)]
        makes = [functools.partial(make, name, groups(of, config), config) for name, of in wanted]
        self.all = [make_one() if config.compile else eager(make_one) for make_one in makes]
        self.groups = self._groups()

    def set_lr(self, lr: float) -> None:
        for group, scale in self.groups:
            group["lr"] = lr * scale

    def step(self, scaler: torch.amp.GradScaler | None, parameters: list[nn.Parameter], clip: float) -> None:
        """Take a step with the gradients of the parameters, of norm `clip` at most (0: any), and forget them."""
        if scaler and clip:
            for optimizer in self.all:
                scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        for optimizer in self.all:
            if scaler:
                scaler.step(optimizer)
            else:
                optimizer.step()
            optimizer.zero_grad()
        if scaler:
            scaler.update()

    def state(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.all]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Take over what is remembered of each parameter; the options stay those of this run."""
        try:
            for optimizer, state in zip(self.all, states, strict=True):
                own = optimizer.state_dict()["param_groups"]
                pairs = zip(own, state["param_groups"], strict=True)
                groups = [{**group, "params": saved["params"]} for group, saved in pairs]
                optimizer.load_state_dict({**state, "param_groups": groups})
        except ValueError as error:
            raise TrainError(f"the checkpoint is of another optimizer: {error}") from error
        # load_state_dict replaces the groups.
        self.groups = self._groups()

    def _groups(self) -> list[tuple[Group, float]]:
        return [(group, group["scale"]) for optimizer in self.all for group in optimizer.param_groups]


def groups(named: Mapping[str, Tensor], config: Config) -> list[Group]:
    """Put parameters of one scale and one weight decay together; biases and norms are not decayed."""
    found: dict[tuple[float, bool], Group] = {}
    for name, parameter in named.items():
        scale, decayed = scale_of(name, config.lr_scales), parameter.ndim >= 2
        decay = config.weight_decay if decayed else 0.0
        group = found.setdefault((scale, decayed), {"params": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
    return list(found.values())


def scale_of(name: str, scales: dict[str, float]) -> float:
    """Return the factor of the longest beginning of a parameter's name."""
    prefixes = [prefix for prefix in scales if name == prefix or name.startswith((f"{prefix}.", f"{prefix}_"))]
    return scales[max(prefixes, key=len)] if prefixes else 1.0


def check_scales(names: Iterable[str], scales: dict[str, float]) -> None:
    names = list(names)
    for prefix in scales:
        if not any(scale_of(name, {prefix: 0.0}) == 0.0 for name in names):
            tops = sorted({name.partition(".")[0] for name in names})
            raise TrainError(
                f"lr_scales: no parameter's name begins with {prefix!r}{nearest(prefix, tops)}; "
                f"they begin with {', '.join(tops)}"
            )


def hidden_matrices(model: nn.Module, last_layer: nn.Module | None) -> set[str]:
    """Return the names of the parameters that Muon is for: matrices between two layers."""
    linear = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {f"{path}.weight" for path, module in linear.items() if module is not last_layer}


def make(name: str, of: list[Group], config: Config) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    match name:
        case "sgd":
            return torch.optim.SGD(of, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
        case "adam":
            return torch.optim.Adam(of, lr=config.lr, betas=betas, amsgrad=config.amsgrad, fused=True)
        case "adamw":
            return torch.optim.AdamW(of, lr=config.lr, betas=betas, amsgrad=config.amsgrad, fused=True)
        case "muon":
            # With AdamW's size of a step, so that one learning rate does for both.
            scaled: dict[str, Any] = {
                "momentum": config.momentum,
                "nesterov": config.nesterov,
                "adjust_lr_fn": "match_rms_adamw",
            }
            return torch.optim.Muon(of, lr=config.lr, **scaled)
    try:
        from timm.optim.lion import Lion
    except ImportError as error:
        raise TrainError("optimizer lion needs the package timm: pip install timm") from error
    lion: torch.optim.Optimizer = Lion(of, lr=config.lr, betas=betas)
    return lion
