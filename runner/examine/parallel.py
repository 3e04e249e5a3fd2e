"""Running one function over many directories in forked processes."""

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_CHUNK_MAX = 32
_task: Callable[[Path], Any] | None = None


def can_fork() -> bool:
    """Return whether this system starts processes that inherit the functions of a notebook."""
    return "fork" in multiprocessing.get_all_start_methods()


def _inherit(task: Callable[[Path], Any]) -> None:
    global _task
    _task = task


def _call(path: Path) -> Any:
    assert _task is not None
    return _task(path)


def map_forked(task: Callable[[Path], T], paths: Sequence[Path], workers: int) -> Iterator[T]:
    """Yield `task(path)` for each path, in order, computed by `workers` forked processes.

    The task reaches the processes by inheritance, so it may be a closure; its results are pickled.
    """
    if not paths:
        return
    workers = min(workers, len(paths))
    chunk = max(1, min(_CHUNK_MAX, len(paths) // (4 * workers)))
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_inherit, initargs=(task,))
    done = 0
    try:
        with warnings.catch_warnings():
            # A notebook's kernel has threads; the children touch none of what those hold.
            warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
            results = executor.map(_call, paths, chunksize=chunk)
        for result in results:
            yield result
            done += 1
    except BrokenProcessPool as error:
        candidates = ", ".join(path.name for path in paths[done : done + 3])
        raise RuntimeError(
            f"a worker process died (killed, or out of memory) after {done} of {len(paths)} directories; "
            f"the next ones were {candidates}; workers=-1 reads them in this process"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
