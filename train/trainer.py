"""A training run, from its config to its results. Reads from top to bottom."""

from __future__ import annotations

import platform
from collections.abc import Generator
from contextlib import ExitStack

import numpy as np
import torch

from train import checkpoint
from train.config import Config
from train.errors import EXIT_DIVERGED
from train.feed import Feed
from train.files import replacing, write_json, write_yaml
from train.logs import Log, Record, check_loggers
from train.signals import Stop
from train.state import Run, set_tf32
from train.tasks import make_task
from train.world import World, joined


def train(config: Config, stop: Stop) -> int:
    """Run, or resume, the training that `config` describes; return the exit code."""
    records = run(config, stop)
    while True:
        try:
            next(records)
        except StopIteration as end:
            return int(end.value)


def run(config: Config, stop: Stop | None = None) -> Generator[Record, None, int]:
    """Run, or resume, the training that `config` describes: yields the record of each evaluation.

    Returns the exit code. Raises TrainError, before anything is written, for what makes no run.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    set_tf32(config.precision == "tf32")
    given = config.model_fields_set
    with ExitStack() as stack:
        world = stack.enter_context(joined(config.device))
        there = config.out.is_dir()
        if there and world.first:
            stack.enter_context(checkpoint.locked(config.out))
        world.barrier()
        state = checkpoint.load_newest(config.out)
        origin = None
        if state is not None:
            config = checkpoint.continued(config, state)
        elif config.init_from is not None:
            origin = checkpoint.load_origin(config.init_from, config.begin)
            config = config.model_copy(update={"begin": origin["step"]})

        check_loggers(config)
        task = make_task(config)
        this = Run(config, task, world, given)
        if state is not None:
            this.restore(state)
        elif origin is not None:
            this.begin_with(origin)
        if this.ended:
            say(world, f"finished before: {this.results()} out={config.out}")
            return 0
        if not there and world.first:
            stack.enter_context(checkpoint.locked(config.out))
        if world.first:
            describe(this)
        log = stack.enter_context(Log(this.config, this.columns, this.step, this.logged_step, world))
        if state is not None:
            say(world, f"resuming after step {this.step} of {this.config.steps}")
        else:
            log.begin({**this.config.varied(), "n_params": this.n_params})
        return (yield from loop(this, log, Stop() if stop is None else stop))


def say(world: World, line: str) -> None:
    if world.first:
        print(line, flush=True)


def describe(this: Run) -> None:
    """Write what is known before the first step: config.yaml, about.json, lr.npy."""
    config, out = this.config, this.config.out
    values = config.model_dump(mode="json", exclude={"out"}, exclude_none=True)
    write_yaml(out / "config.yaml", values, "python -m train --config THIS_FILE --out DIR trains the same again.")
    about = {
        "n_params": this.n_params,
        "epoch": this.task.epoch,
        **this.task.about(),
        "device": str(this.world.device),
        "device_name": torch.cuda.get_device_name() if this.world.device.type == "cuda" else platform.processor(),
        "processes": this.world.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    write_json(out / "about.json", about)
    with replacing(out / "lr.npy") as file:
        np.save(file, this.lrs)
    this.task.write_files(out)


def loop(this: Run, log: Log, stop: Stop) -> Generator[Record, None, int]:
    """Take the steps that are left; log, evaluate and save when it is time."""
    config, world = this.config, this.world
    if this.step == config.begin and config.eval_first:
        yield this.logged(log, evaluating=True)

    for parts in Feed(this.parts, this.step, int(config.steps), config.workers, world.device):
        this.train_step(parts)
        last = this.step == config.steps
        evaluating = last or due(this.step, config.eval_every)
        best = False

        if evaluating or due(this.step, config.log_every):
            record = this.logged(log, evaluating)
            if this.diverged(record):
                return diverged(this, log, record)
        if evaluating:
            best = this.best.update(record.metrics[str(config.monitor)], this.step)
            last = last or 0 < config.patience <= this.best.since
            this.ended = last
        if last:
            log.end(this.step, this.metrics, completed=True)

        stopping = world.any(bool(stop))
        if last or stopping or due(this.step, config.checkpoint_every) or (best and config.best):
            if not this.is_finite():
                # Before a row tells it: the checkpoint before this one must stay.
                return diverged(this, log, record if this.logged_step == this.step else this.logged(log, False))
            log.sync()
            this.save(best and config.best, last or stopping or due(this.step, config.checkpoint_every))
        if evaluating:
            yield record
        if stopping and not last:
            say(world, f"stopped by {stop.name}: step={this.step} saved={config.out / checkpoint.DIRECTORY}")
            return stop.exit_code
        if last:
            break

    early = "" if this.step == config.steps else f", early: best {config.monitor} at step {this.best.step}"
    say(world, f"done{early}: {this.results()} time={this.time_s():.1f}s")
    return 0


def diverged(this: Run, log: Log, record: Record) -> int:
    log.end(this.step, {}, completed=False)
    say(this.world, f"diverged: loss={record.loss} step={this.step} lr={record.lr}")
    return EXIT_DIVERGED


def due(step: int, every: int | str) -> bool:
    return int(every) > 0 and step % int(every) == 0
