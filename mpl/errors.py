"""The error that a user can mend."""

from __future__ import annotations

from train.errors import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from train.errors import EXIT_USAGE as EXIT_USAGE
from train.errors import TrainError as TrainError
from train.errors import nearest as nearest


class MplError(ValueError):
    """What is wrong, where, and what is allowed; ends the program with code 2."""
