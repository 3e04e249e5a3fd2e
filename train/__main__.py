"""`python -m train --out DIR [flags]`."""

from __future__ import annotations

from train.errors import TrainError
from train.flags import fail, parse
from train.signals import Stop


def main() -> int:
    config = parse()
    stop = Stop().install()
    # torch takes a second to import: wrong flags are told, and signals kept, before it.
    from train.trainer import train

    try:
        return train(config, stop)
    except TrainError as error:
        fail("train", error)


if __name__ == "__main__":
    raise SystemExit(main())
