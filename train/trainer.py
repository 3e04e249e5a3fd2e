"""A training run, from its flags to its results. Reads from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train import checkpoint
from train.config import Config
from train.data import Bytes, Text, load, spaced_windows
from train.errors import EXIT_DIVERGED, TrainError
from train.files import replacing, write_json
from train.logs import Log, Row
from train.model import GPT, build, mean_loss
from train.schedules import Array
from train.signals import Stop

LRS = "lr.npy"


def train(config: Config, stop: Stop) -> int:
    """Run, or resume, the training that `config` describes; return the exit code."""
    device = set_up_torch(config.device, config.threads)
    text = load(config.data, config.context)
    run = Run(config, text, config.lrs(), device)

    state = checkpoint.load(config.out)
    if state is not None:
        checkpoint.require_same(config.out, state, config, text.sha256)
        require_same_lrs(config, run.lrs)
        run.restore(state)
    if run.step == config.steps:
        print(f"finished before: val_loss={run.val_loss:.4f} steps={run.step} out={config.out}", flush=True)
        return 0
    describe(run)
    log = Log(config.out, config.steps, run.step, run.logged_step)
    try:
        if run.step:
            print(f"resuming after step {run.step} of {config.steps}", flush=True)
        else:
            log.hyperparameters({**config.varied(), "n_params": run.n_params})
        return run_loop(run, log, stop)
    finally:
        log.close()


def set_up_torch(device: str, threads: int) -> torch.device:
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainError(f"device is {device}: {reason}") from error


def require_same_lrs(config: Config, lrs: Array) -> None:
    """Raise where the file behind `schedule` has changed since the run began."""
    path = config.out / LRS
    # Another CPU may round the last bit of a cosine differently: that is the same schedule.
    if path.exists() and not np.allclose(np.load(path, allow_pickle=False), lrs, rtol=1e-9, atol=0):
        raise TrainError(f"{path} differs from the schedule {config.schedule}: it has changed since the run began")


def describe(run: Run) -> None:
    """Write what is known before the first step: config.json and lr.npy."""
    config = run.config
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        with replacing(config.out / LRS) as file:
            np.save(file, run.lrs)
    except OSError as error:
        raise TrainError(f"cannot write to {config.out}: {error.strerror or error}") from error
    inferred = {
        "n_params": run.n_params,
        "data_bytes": run.text.n_bytes,
        "train_bytes": len(run.text.train),
        "val_bytes": len(run.text.val),
        "test_bytes": len(run.text.test),
        "data_sha256": run.text.sha256,
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_json(config.out / "config.json", {**asdict(config), "out": str(config.out), **inferred})


def run_loop(run: Run, log: Log, stop: Stop) -> int:
    """Take the steps that are left; log, evaluate and save when it is time."""
    config = run.config
    first_step, first_s = run.step, run.time_s
    started_s = time.perf_counter() - run.time_s
    while run.step < config.steps:
        run.train_step()
        last = run.step == config.steps
        evaluating = last or due(run.step, config.eval_every)

        if evaluating or due(run.step, config.log_every):
            row = run.measure(evaluating, started_s)
            log.row(row, steps_per_s=(run.step - first_step) / (row.time_s - first_s))
            if not math.isfinite(row.loss) or (row.val_loss is not None and not math.isfinite(row.val_loss)):
                log.end(run.step, None)
                print(f"diverged: loss={row.loss} step={row.step} lr={row.lr}", flush=True)
                return EXIT_DIVERGED

        if last:
            log.end(run.step, run.val_loss)
        if last or stop or due(run.step, config.checkpoint_every):
            run.time_s = time.perf_counter() - started_s
            log.sync()
            checkpoint.save(config.out, run.state())
        if stop and not last:
            print(f"stopped by {stop.name}: step={run.step} saved={config.out / checkpoint.NAME}", flush=True)
            return stop.exit_code

    print(f"done: val_loss={run.val_loss:.4f} steps={run.step} time={run.time_s:.1f}s", flush=True)
    return 0


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class Run:
    """All that changes from step to step, and so all that a checkpoint holds."""

    def __init__(self, config: Config, text: Text, lrs: Array, device: torch.device) -> None:
        self.config, self.text, self.lrs, self.device = config, text, lrs, device
        self.train_bytes = on_device(text.train, device)
        self.val_windows = on_device(
            spaced_windows(text.val, config.context, config.eval_batches * config.batch), device
        )
        self.model = build(config).to(device)
        self.n_params = sum(parameter.numel() for parameter in self.model.parameters())
        if config.compile:
            self.model.compile()
        self.optimizer = make_optimizer(self.model, config)
        self.batches = torch.Generator().manual_seed(config.seed)
        self.window = torch.arange(config.context + 1, device=device)

        self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.loss_steps = 0
        self.logged_step = 0
        self.val_loss = math.nan
        self.time_s = 0.0

    def sample(self) -> Tensor:
        """Return random windows [batch, context + 1] of the training split."""
        last_start = len(self.train_bytes) - self.config.context
        starts = torch.randint(last_start, (self.config.batch, 1), generator=self.batches)
        return self.train_bytes[starts.to(self.device) + self.window].long()

    def train_step(self) -> None:
        lr = float(self.lrs[self.step])
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.model(self.sample())
        loss.backward()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        # Summed on the device: reading it at each step would wait for a GPU at each step.
        self.loss_sum += loss.detach()
        self.loss_steps += 1
        self.step += 1

    def measure(self, evaluating: bool, started_s: float) -> Row:
        """Return the row of this step and begin a new mean."""
        loss = float(self.loss_sum) / self.loss_steps
        self.loss_sum.zero_()
        self.loss_steps = 0
        self.logged_step = self.step
        if evaluating:
            self.val_loss = mean_loss(self.model, self.val_windows)
        time_s = time.perf_counter() - started_s
        return Row(self.step, float(self.lrs[self.step - 1]), loss, self.val_loss if evaluating else None, time_s)

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.compared(),
            "data_sha256": self.text.sha256,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches_rng": self.batches.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "logged_step": self.logged_step,
            "val_loss": self.val_loss,
            "time_s": self.time_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.set_state(state["batches_rng"])
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.loss_sum.copy_(state["loss_sum"])
        for name in ("step", "loss_steps", "logged_step", "val_loss", "time_s"):
            setattr(self, name, state[name])


def make_optimizer(model: GPT, config: Config) -> torch.optim.Optimizer:
    """AdamW; norms are not decayed."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def on_device(data: Bytes, device: torch.device) -> Tensor:
    # A copy: the bytes of a file are read-only, and torch has no such tensors.
    return torch.from_numpy(data.copy()).to(device)
