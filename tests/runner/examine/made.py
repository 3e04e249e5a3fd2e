"""Files of trials, and times at which they may be cached."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

ROWS = "step,lr,loss,accuracy\n1,0.1,5,0.2\n2,0.1,3,0.7\n3,0.1,4,0.6\n"


def age(output: Path, seconds: float = 60) -> None:
    """Make everything look as if it had been written a while ago: what is too new isn't cached."""
    then = time.time() - seconds
    for path in [*output.rglob("*"), output]:
        os.utime(path, (then, then))


def attempts(**fields: Any) -> str:
    head = {"stage": "train", "attempt": 1}
    start = {"event": "start", **head, "started": "2026-11-21T12:00:00+00:00", "slot": "gpu 0,1", "log": "log.train.1"}
    end = {"event": "end", **head, "state": "finished", "exit_code": 0, "seconds": 1800.0, **fields}
    process = {"event": "process", **head, "pid": 1}
    return "".join(json.dumps(line) + "\n" for line in ({**start, "host": "big"}, process, end))
