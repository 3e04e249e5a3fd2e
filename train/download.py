"""Downloads that happen once, however many runs want the same thing at the same time."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path

from filelock import FileLock

from train.errors import TrainError
from train.files import replacing

BLOCK = 2**20
TIMEOUT_S = 60


@contextmanager
def downloading(directory: Path, what: str) -> Iterator[None]:
    """Hold the lock of a directory of downloads; an error in between is told as one of the network.

    Who waits here finds the thing when its turn comes.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / ".lock"):
            yield
    except TrainError:
        raise
    # Every library has its own exceptions for a network that is not there.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainError(f"cannot get {what} into {directory}: {reason:.300}") from error


def fetch(url: str, directory: Path) -> Path:
    """Return the file of a URL, downloaded into a directory if it is not there yet."""
    path = directory / url.rpartition("/")[2]
    with downloading(directory, url):
        if not path.exists():
            with _opened(url) as response, replacing(path) as file:
                while block := response.read(BLOCK):
                    file.write(block)
    return path


def _opened(url: str) -> HTTPResponse:
    try:
        response: HTTPResponse = urllib.request.urlopen(url, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()  # it is a response, too
        raise
    return response
