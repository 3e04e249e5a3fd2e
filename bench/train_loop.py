"""The cost of the training loop over a bare one: `python -m bench.train_loop [rounds]`.

Both train the same model on the same data with the same groups of AdamW, in one process, in turns of 50 steps. The
order within a pair changes from pair to pair, so that whatever else the machine does meets both. Ours includes the
log at each 50th step (metrics.csv, TensorBoard, a line); the bare loop reads its loss there. Counted is the CPU time
of the process, which another program's turn does not add to. Printed: the median time of a step of each, and the
median of the pairs' ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.config import Config, ImageConfig, LmConfig
from train.feed import Feed
from train.lm import LmTask
from train.logs import Log
from train.state import Run
from train.tasks import make_task
from train.world import joined

TURN = 50
STEPS = 100_000


def ours(run: Run, log: Log) -> Callable[[], None]:
    """Return 50 steps and a log of the program's own loop."""
    feed = Feed(run.parts, 0, STEPS, 0, run.world.device)

    def turn() -> None:
        for _ in range(TURN):
            run.train_step(next(feed))
        with contextlib.redirect_stdout(io.StringIO()):
            run.logged(log, evaluating=False)

    return turn


def bare(run: Run, config: Config) -> Callable[[], None]:
    """Return 50 steps of a loop written by hand for this model and data."""
    task: Any = run.task
    torch.manual_seed(0)
    model: nn.Module = task.build()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
    if isinstance(task, LmTask):
        tokens, window = task.tokens["train"], torch.arange(task.config.context + 1)

        def batch() -> tuple[torch.Tensor, torch.Tensor]:
            starts = torch.randint(len(tokens) - len(window) + 1, (config.batch, 1))
            windows = tokens[starts + window].long()
            return windows[:, :-1], windows[:, 1:]
    else:
        pictures = task.evaluation(config.train_split, 0)
        images, labels = pictures.batch(torch.arange(len(pictures)))

        def batch() -> tuple[torch.Tensor, torch.Tensor]:
            chosen = torch.randint(len(labels), (config.batch,))
            return images[chosen], labels[chosen]

    def turn() -> None:
        for _ in range(TURN):
            for group in optimizer.param_groups:
                group["lr"] = config.lr
            inputs, targets = batch()
            outputs = model(inputs)
            if outputs.ndim == 3:
                outputs, targets = outputs.flatten(0, 1), targets.flatten()
            loss = functional.cross_entropy(outputs, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        loss.item()

    return turn


def timed(turn: Callable[[], None]) -> float:
    """Return the milliseconds of CPU time of a step."""
    begin = time.process_time()
    turn()
    return (time.process_time() - begin) / TURN * 1000


def compare(name: str, config: Config, rounds: int) -> None:
    with joined("cpu") as world:
        run = Run(config, make_task(config), world)
        with Log(run.config, run.columns, 0, 0, world) as log:
            loops = [ours(run, log), bare(run, config)]
            for loop in loops:
                loop()
            pairs = []
            for number in range(rounds):
                order = (0, 1) if number % 2 else (1, 0)
                times = {index: timed(loops[index]) for index in order}
                pairs.append((times[0], times[1]))
    first, median, third = statistics.quantiles([own / other for own, other in pairs], n=4)
    own_ms, bare_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{name}: ours {own_ms:.3f} ms, bare {bare_ms:.3f} ms a step; "
        f"ratio {median:.3f} (quartiles {first:.3f} to {third:.3f}, {rounds} pairs)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=60, help="pairs of turns that are compared")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        compare("lm, the main job's model", LmConfig(out=out, steps=STEPS, device="cpu"), rounds)
        wider = LmConfig(out=out, steps=STEPS, device="cpu", layers=2, width=128, context=64)
        compare("lm, 2 layers of width 128", wider, rounds // 2)
        image = ImageConfig(out=out, steps=STEPS, warmup=0, device="cpu", crop="none", batch=32)
        compare("image, resnet8 on digits", image, rounds // 2)


if __name__ == "__main__":
    main()
