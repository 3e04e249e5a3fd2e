"""`python -m train.evaluate DIR --split test`: what a finished run's model is worth on a split of its data."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.errors import TrainError, told
from train.files import write_json
from train.flags import Parser, fail


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="train.evaluate", description="Evaluate a finished run.", allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the --out of the run")
    parser.add_argument("--split", default="test", help="such as test, val, train[90%%:] (default: test)")
    parser.add_argument("--best", action="store_true", help="the best checkpoint instead of the last one")
    parser.add_argument("--threads", type=whole, default=1, help="CPU threads; 0: as many as torch likes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flags = parser.parse_all(argv)
    try:
        result = evaluate(flags.directory, flags.split, flags.best, flags.device, flags.threads)
    except TrainError as error:
        fail(parser.prog, error)
    except OSError as error:
        fail(parser.prog, told(error))
    print(" ".join(f"{name}={shown(value)}" for name, value in result.items()), flush=True)
    return 0


def whole(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no number of threads: allowed are 0 and more")
    return int(text)


def file_name(split: str) -> str:
    """Return a split's name for a file, another one for each: `train_90%-` for `train[90%:]`."""
    return re.sub(r"[^\w.+%-]+", "", split.replace("[", "_").replace(":", "-"))


def shown(value: object) -> str:
    from train.logs import number

    return number(value, 4) if isinstance(value, float) else str(value)


def evaluate(
    directory: Path, split: str, best: bool = False, device: str = "auto", threads: int = 1
) -> dict[str, str | float | int]:
    """Measure a split, write it to eval_<split>.json and to the run's TensorBoard events, and return it."""
    # torch takes a second to import: wrong flags are told before it.
    import torch

    from train import checkpoint
    from train.averages import Average
    from train.evaluation import Evaluation
    from train.events import append_scalars
    from train.logs import tag
    from train.state import arithmetic_of, load_weights, resolved, set_tf32
    from train.tasks import make_task
    from train.world import World, find_device

    if threads:
        torch.set_num_threads(threads)
    state = load(directory, best)
    config = checkpoint.recorded_config(directory, state)
    config = config.model_copy(update={"eval_splits": {split: split}, "eval_examples": 0})
    set_tf32(config.precision == "tf32")
    world = World(0, 1, find_device(device, None))
    task = make_task(config)
    resolved(config, task)
    model = task.build().to(world.device)
    averages = [Average(name, model) for name in config.averages]
    load_weights(model, averages, state)
    measured = Evaluation(config, task, world)(model, averages, arithmetic_of(config, world.device))

    name = file_name(split)
    found = {column.removeprefix(f"{split}_"): value for column, value in measured.items()}
    result = {"split": split, **found, "step": state["step"]}
    write_json(directory / f"eval_{name}.json", result)
    scalars = {tag(f"eval_{name}_{metric}"): value for metric, value in found.items()}
    append_scalars(directory, f"eval_{name}", scalars, state["step"])
    return result


def load(directory: Path, best: bool) -> dict[str, Any]:
    from train import checkpoint

    path = directory / checkpoint.DIRECTORY / checkpoint.BEST
    state = checkpoint.load(path) if best and path.exists() else None if best else checkpoint.load_newest(directory)
    if state is None:
        wanted = "best checkpoint" if best else "checkpoint"
        raise TrainError(f"no {wanted} in {directory}: train it first, python -m train --out {directory}")
    if not (state["ended"] or best):
        steps = state["config"]["steps"]
        raise TrainError(f"the run in {directory} is at step {state['step']} of {steps}: finish it first")
    return state


if __name__ == "__main__":
    raise SystemExit(main())
