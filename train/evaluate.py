"""`python -m train.evaluate DIR --split test`: the loss of a finished run on a split of its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.config import Config, Parser, fail, integer
from train.data import SPLITS, load, spaced_windows
from train.errors import TrainError
from train.files import write_json

MOST_BYTES = 500_000
"""A longer split is evaluated on this much of it, evenly spaced."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="train.evaluate", description="Evaluate a finished run.", allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the --out of the run")
    parser.add_argument("--split", choices=SPLITS, default="test", help="part of the text (default: test)")
    parser.add_argument("--threads", type=integer, default=1, help="CPU threads; 0: as many as torch likes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flags = parser.parse_all(argv)
    try:
        result = evaluate(flags.directory, flags.split, flags.device, flags.threads)
    except TrainError as error:
        fail(parser.prog, error)
    print(f"split={result['split']} loss={result['loss']:.4f} step={result['step']}", flush=True)
    return 0


def evaluate(directory: Path, split: str, device_name: str = "auto", threads: int = 1) -> dict[str, Any]:
    """Measure the loss, write it to eval_<split>.json and to the run's TensorBoard events, and return it."""
    # torch takes a second to import: wrong flags are told before it.
    from train import checkpoint
    from train.logs import append_scalar
    from train.model import build, mean_loss
    from train.trainer import on_device, set_up_torch

    device = set_up_torch(device_name, threads)
    state = checkpoint.load(directory)
    if state is None:
        raise TrainError(f"no {checkpoint.NAME} in {directory}: train it first, python -m train --out {directory}")
    config = Config(out=directory, **state["config"])
    if state["step"] < config.steps:
        raise TrainError(f"the run in {directory} is at step {state['step']} of {config.steps}: finish it first")
    text = load(config.data, config.context)
    if text.sha256 != state["data_sha256"]:
        raise TrainError(f"the data {config.data} has changed since the run in {directory} was trained on it")

    model = build(config)
    model.load_state_dict(state["model"])
    windows = spaced_windows(text.split(split), config.context, max(MOST_BYTES // config.context, 1))
    loss = mean_loss(model.to(device), on_device(windows, device))
    result = {
        "split": split,
        "loss": loss,
        "step": state["step"],
    }
    write_json(directory / f"eval_{split}.json", result)
    append_scalar(directory, f"loss/eval_{split}", loss, state["step"])
    return result


if __name__ == "__main__":
    raise SystemExit(main())
