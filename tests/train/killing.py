"""Trains a run in child processes that are killed after some steps: `python killing.py CONFIG.json [STEP:SIGNAL …]`.

Each child resumes what the one before it left, and gets its signal, a real one, right after its step; the last child
ends the run. The parent has loaded everything once. It prints the exit codes.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from train import trainer
from train.flags import config_class, make, read_yaml
from train.signals import Stop
from train.state import Run
from train.tasks import make_task


def child(values: dict[str, Any], step: int, number: int) -> int:
    """Train until the signal has an effect; return the exit code."""
    own = Run.train_step

    def train_step(run: Run, parts: Any) -> None:
        own(run, parts)
        if run.step == step:
            os.kill(os.getpid(), number)

    Run.train_step = train_step  # type: ignore[method-assign, assignment]
    config = make(config_class(values["task"]), values)
    return trainer.train(config, Stop().install())


def main() -> None:
    values = read_yaml(Path(sys.argv[1]))
    # What the task imports is loaded once.
    make_task(make(config_class(values["task"]), values))
    for word in [*sys.argv[2:], "0:0"]:
        step, number = map(int, word.split(":"))
        pid = os.fork()
        if not pid:
            sys.stdout = sys.stderr
            os._exit(child(values, step, number))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(signal.Signals(-status).name if status < 0 else status, flush=True)


if __name__ == "__main__":
    main()
