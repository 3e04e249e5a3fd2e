"""`python -m train --out DIR [flags]`."""

from __future__ import annotations

from typing import NoReturn

from train.errors import TrainError
from train.flags import fail, parse
from train.signals import Stop


def main() -> NoReturn:
    config = parse()
    stop = Stop().install()
    # torch takes a second to import: wrong flags are told, and signals kept, before it.
    from train.trainer import train
    from train.world import leave

    try:
        code = train(config, stop)
    except TrainError as error:
        fail("train", error)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        fail("train", f"{what}{error.strerror or error}; when that is mended, the same command goes on in {config.out}")
    leave(code)


if __name__ == "__main__":
    main()
