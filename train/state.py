"""The state of a run, and the step that changes it."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train import checkpoint
from train.averages import Average
from train.config import Config
from train.errors import TrainError
from train.evaluation import Best, Evaluation, with_monitor
from train.feed import Order, Parts, mixed
from train.logs import Log, Record, number
from train.optimizers import Optimizers
from train.schedules import Array
from train.task import Batch, Task
from train.world import World

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(nn.Module):
    """Model and loss in one, so that both are compiled, and processes agree on the gradient of the loss."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task_loss = model, task.loss

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.task_loss(self.model(inputs), targets)


class Run:
    """All that changes from step to step, and so all that a checkpoint holds."""

    def __init__(self, config: Config, task: Task, world: World, given: Collection[str] = ()) -> None:
        """Begin a run; `given` are the options that the user has set."""
        self.given = sorted({*given} - {"out", "task"})
        config = resolved(config, task)
        self.task, self.world = task, world
        device = world.device
        order = Order(len(task.training), config.batch, int(config.order_seed or 0), task.replacement)
        self.parts = Parts(task.training, order, config.accumulate, world.rank, world.size)

        torch.manual_seed(config.seed)
        self.model = task.build().to(device)
        if world.rank:
            # The same weights everywhere, other dropout.
            torch.manual_seed(mixed(config.seed, world.rank))
        self.parameters = [value for value in self.model.parameters() if value.requires_grad]
        self.n_params = sum(parameter.numel() for parameter in self.model.parameters())
        self.optimizers = Optimizers(self.model, config, task.last_layer(self.model))
        self.scaler = torch.amp.GradScaler(device.type) if config.precision == "fp16" else None
        self.averages = [Average(name, self.model) for name in config.averages]
        self.evaluation = Evaluation(config, task, world)
        self.columns = self.evaluation.columns
        self.config = with_monitor(config, self.columns)

        self.objective: nn.Module = Objective(self.model, task)
        self.measured: nn.Module = self.model
        if config.compile:
            self.objective.compile()
            # It shares the weights; the state keeps the names of the model's own.
            self.measured = cast(nn.Module, torch.compile(self.model))
        if world.size > 1:
            self.objective = DistributedDataParallel(self.objective)
        self.arithmetic = arithmetic_of(config, device)

        if config.begin >= int(config.steps):
            raise TrainError(f"steps is {config.steps}: init_from is the state of step {config.begin}; no step is left")
        self.lrs: Array = config.lrs(config.begin)

        self.step = 0
        self.ended = False
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.loss_steps = 0
        self.logged_step = 0
        self.metrics: dict[str, float] = {}
        self.best = Best(self.config.monitor_mode)
        self.begun_s = time.perf_counter()

    def train_step(self, parts: list[Batch]) -> None:
        """Take the next step with the parts of its batch; nothing here waits for a GPU."""
        self.optimizers.set_lr(float(self.lrs[self.step]))
        for part in parts[:-1]:
            with self.unsynchronised():
                self.add_gradient(part, len(parts))
        self.add_gradient(parts[-1], len(parts))
        self.optimizers.step(self.scaler, self.parameters, self.config.clip)
        for average in self.averages:
            average.update()
        self.loss_steps += 1
        self.step += 1

    def add_gradient(self, part: Batch, parts: int) -> None:
        with self.arithmetic:
            loss = self.objective(*part)
        if parts > 1:
            loss = loss / parts
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        # Summed on the device: reading it at each step would wait for a GPU at each step.
        self.loss_sum += loss.detach()

    def unsynchronised(self) -> AbstractContextManager[Any]:
        """Keep processes from exchanging gradients that are not complete."""
        parallel = self.objective
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()

    def logged(self, log: Log, evaluating: bool) -> Record:
        """Write and return the record of this step, and begin a new mean."""
        loss = float(self.world.sum(self.loss_sum)) / (self.loss_steps * self.world.size) if self.loss_steps else None
        self.loss_sum.zero_()
        self.loss_steps = 0
        self.logged_step = self.step
        found: dict[str, float] = {}
        if evaluating:
            found = self.metrics = self.evaluation(self.measured, self.averages, self.arithmetic)
            self.show_samples(log)
        lr = float(self.lrs[max(self.step - 1, 0)])
        record = Record(self.step, lr, loss, found, self.time_s())
        log.record(record)
        return record

    def show_samples(self, log: Log) -> None:
        if self.config.samples and self.world.first:
            self.model.eval()
            with torch.random.fork_rng(devices=[]):
                log.samples(self.task.samples(self.model, self.config.samples), self.step)
            self.model.train()

    def diverged(self, record: Record) -> bool:
        loss = 0.0 if record.loss is None else record.loss
        found = (loss, *(value for name, value in record.metrics.items() if name.endswith("_loss")))
        return not all(math.isfinite(value) for value in found) or loss > (self.config.max_loss or math.inf)

    def is_finite(self) -> bool:
        """Return whether all weights are, which the next loss would tell."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

    def time_s(self) -> float:
        """Return the seconds of training so far."""
        return time.perf_counter() - self.begun_s

    def results(self) -> str:
        return " ".join([*(f"{name}={number(value, 4)}" for name, value in self.metrics.items()), f"steps={self.step}"])

    def save(self, best: bool, newest: bool) -> None:
        state = self.state()
        if self.world.first:
            if best:
                checkpoint.save_best(self.config.out, state)
            if newest:
                checkpoint.save(self.config.out, state, self.config.keep)

    def state(self) -> dict[str, Any]:
        device = self.world.device
        cuda_rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return {
            "config": self.config.model_dump(mode="json", exclude={"out"}),
            "given": self.given,
            "epoch": self.task.epoch,
            "lrs": torch.from_numpy(self.lrs),
            "step": self.step,
            "ended": self.ended,
            "model": self.model.state_dict(),
            "optimizers": self.optimizers.state(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "averages": [average.state() for average in self.averages],
            "rngs": self.world.gather((torch.get_rng_state(), cuda_rng)),
            "loss_sum": self.world.sum(self.loss_sum.clone()),
            "loss_steps": self.loss_steps,
            "logged_step": self.logged_step,
            "metrics": self.metrics,
            "best": self.best.state(),
            "time_s": self.time_s(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was saved; raise where the file behind the schedule has changed since."""
        lrs = state["lrs"].numpy()
        begin = self.config.begin
        # Another CPU may round the last bit of a cosine differently: that is the same schedule.
        if not np.allclose(lrs[begin:], self.lrs[begin:], rtol=1e-9, atol=0):
            raise TrainError(
                f"the schedule {self.config.schedule} has changed since the run in {self.config.out} began"
            )
        self.lrs = lrs
        self.given = state["given"]
        load_weights(self.model, self.averages, state)
        self.optimizers.restore(state["optimizers"])
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.world.rank < len(state["rngs"]):
            cpu_rng, cuda_rng = state["rngs"][self.world.rank]
            torch.set_rng_state(cpu_rng)
            if cuda_rng is not None and self.world.device.type == "cuda":
                torch.cuda.set_rng_state(cuda_rng, self.world.device)
        self.loss_sum.copy_(state["loss_sum"] if self.world.first else torch.zeros(()))
        self.best.restore(state["best"])
        for name in ("step", "ended", "loss_steps", "logged_step", "metrics"):
            setattr(self, name, state[name])
        self.begun_s = time.perf_counter() - state["time_s"]

    def begin_with(self, origin: dict[str, Any]) -> None:
        """Take over the state of another run at its step, for steps of one's own."""
        for name in ("optimizer", "amsgrad", "lr_scales"):
            there, here = origin["config"][name], getattr(self.config, name)
            if there != here:
                raise TrainError(f"the checkpoint is of another optimizer: {name} ({there} there, {here} here)")
        begin = int(origin["step"])
        lrs = self.lrs
        lrs[:begin] = origin["lrs"].numpy()[:begin]
        fresh = {
            "given": self.given,
            "lrs": torch.from_numpy(lrs),
            "ended": False,
            "loss_sum": torch.zeros(()),
            "loss_steps": 0,
        }
        self.restore({**origin, **fresh, "logged_step": 0, "metrics": {}, "best": self.best.state(), "time_s": 0.0})


def resolved(config: Config, task: Task) -> Config:
    """Return the config with what follows from the data."""
    if config.data_sha256 not in (None, task.sha256):
        raise TrainError(f"the data has changed: its digest is {task.sha256}, data_sha256 says {config.data_sha256}")
    config = config.in_steps(task.epoch)
    order_seed = config.seed if config.order_seed is None else config.order_seed
    return config.model_copy(update={"data_sha256": task.sha256, "order_seed": order_seed})


def arithmetic_of(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return what the forward pass runs in."""
    dtype = DTYPES.get(config.precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def set_tf32(allowed: bool) -> None:
    """Let a GPU round what it multiplies to TF32, or not: by default torch lets convolutions, and not matrices."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def load_weights(model: nn.Module, averages: Sequence[Average], state: dict[str, Any]) -> None:
    """Take the weights of a checkpoint, and the averages that it has."""
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TrainError(f"the checkpoint of step {state['step']} is of another model: {reason:.300}") from error
    saved = {entry["name"]: entry for entry in state["averages"]}
    for average in averages:
        if average.name in saved:
            average.restore(saved[average.name])
        else:
            average.begin()
