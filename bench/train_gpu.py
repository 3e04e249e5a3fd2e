"""Speed of a GPT of 124 million parameters on one GPU: `python -m bench.train_gpu [--batch 64] [--steps 60]`.

Prints the milliseconds of a step, tokens per second, model FLOPs utilisation against the card's published dense bf16
peak, and the share of the peak that a large matrix product reaches on this very card. The FLOPs of a token are
6 N + 12 layers x width x context, with N all parameters but the positions (PaLM, arXiv:2204.02311, appendix B).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

import torch

from train.config import LmConfig
from train.feed import Feed
from train.state import Run
from train.tasks import make_task
from train.world import joined

PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0}
"""Dense bf16, as NVIDIA's data sheets of the SXM cards give them."""
WARM_UP_STEPS = 15
VOCABULARY = 50_304


def measured_peak(size: int = 8192, rounds: int = 30) -> float:
    """Return the TFLOP/s of a square bf16 product."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * rounds / (time.perf_counter() - begin) / 1e12


def step_times(run: Run, steps: int) -> list[float]:
    """Return the seconds of each step behind the warm-up, ten at a time."""
    feed = Feed(run.parts, 0, WARM_UP_STEPS + steps, 0, run.world.device)
    for _ in range(WARM_UP_STEPS):
        run.train_step(next(feed))
    times = []
    for _ in range(steps // 10):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(10):
            run.train_step(next(feed))
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / 10)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        config = LmConfig(
            out=Path(directory),
            steps=WARM_UP_STEPS + flags.steps,
            warmup=10,
            lr=6e-4,
            layers=12,
            width=768,
            heads=12,
            context=1024,
            batch=flags.batch,
            accumulate=flags.accumulate,
            precision="bf16",
            compile=True,
            eval_examples=8,
            device="cuda",
        )
        task = make_task(config)
        # Bytes as they are, in GPT-2's vocabulary rounded up: the work of a step does not depend on the tokens.
        task.tokenizer.vocabulary = VOCABULARY  # type: ignore[attr-defined]
        with joined("cuda") as world, contextlib.redirect_stdout(io.StringIO()):
            run = Run(config, task, world)
            step_s = statistics.median(step_times(run, flags.steps))
    tokens_per_s = flags.batch * config.context / step_s
    flops = 6 * (run.n_params - config.context * config.width) + 12 * config.layers * config.width * config.context
    reached = tokens_per_s * flops / 1e12
    name = torch.cuda.get_device_name()
    peak = next((value for card, value in PEAK_TFLOPS.items() if card in name), None)
    largest = measured_peak()
    print(f"{name}, torch {torch.__version__}, {run.n_params / 1e6:.1f} M parameters, batch {flags.batch} x 1024")
    print(f"{step_s * 1000:.1f} ms a step, {tokens_per_s:,.0f} tokens/s, {reached:.0f} TFLOP/s")
    print(f"model FLOPs utilisation {reached / peak:.1%} of {peak:.0f}" if peak else "no published peak is known")
    print(f"{reached / largest:.1%} of the measured peak of a matrix product, {largest:.0f} TFLOP/s")


if __name__ == "__main__":
    main()
