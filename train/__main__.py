"""`python -m train --out DIR [flags]`."""

from __future__ import annotations

from typing import NoReturn

from train.errors import TrainError, told
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
        fail("train", f"{told(error)}; when that is mended, the same command goes on in {config.out}")
    leave(code)


if __name__ == "__main__":
    main()
