"""Batches in an order that only a seed and the step decide, so that a run can begin at any step."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.errors import TrainError
from train.signals import unheard
from train.task import Batch, Examples

PREFETCHED = 4
"""Batches that each worker prepares ahead."""


def mixed(*numbers: int) -> int:
    """Return a seed that depends on all of the numbers."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "little")


def seeded(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(mixed(*numbers))


class Order:
    """Which of `n` examples each step trains on.

    Either drawn independently, or permutation after permutation, cut into batches without regard to their ends.
    """

    def __init__(self, n: int, batch: int, seed: int, replacement: bool) -> None:
        self.n, self.batch, self.seed, self.replacement = n, batch, seed, replacement
        self.permutations: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """Return the numbers of the step's examples, [batch] int64."""
        if self.replacement:
            return torch.randint(self.n, (self.batch,), generator=seeded(self.seed, step))
        first, parts, missing = step * self.batch, [], self.batch
        while missing:
            epoch, place = divmod(first, self.n)
            part = self._permutation(epoch)[place : place + missing]
            parts.append(part)
            first, missing = first + len(part), missing - len(part)
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self.permutations:
            # A batch may reach over the end of an epoch: two are needed at a time, or more if they are small.
            self.permutations = {key: value for key, value in self.permutations.items() if key >= epoch - 1}
            self.permutations[epoch] = torch.randperm(self.n, generator=seeded(self.seed, epoch))
        return self.permutations[epoch]


class Parts(Dataset[Batch]):
    """The parts of every step's batch that one of `size` processes computes, `accumulate` of them in a step.

    Part k of the run belongs to step k // accumulate. Its random numbers are its own, whichever worker prepares it,
    and the same for as many parts in a step, however they are spread over processes.
    """

    def __init__(self, examples: Examples, order: Order, accumulate: int, rank: int = 0, size: int = 1) -> None:
        if order.batch % (size * accumulate):
            raise TrainError(
                f"batch is {order.batch}: {size} processes with accumulate {accumulate} share it, so that it must be a "
                f"multiple of {size * accumulate}"
            )
        self.examples, self.order, self.accumulate = examples, order, accumulate
        self.first_part, self.parts = rank * accumulate, size * accumulate

    def __getitem__(self, number: int) -> Batch:
        step, place = divmod(number, self.accumulate)
        place += self.first_part
        indices = self.order.indices(step)
        length = len(indices) // self.parts
        indices = indices[place * length : (place + 1) * length]
        if not self.examples.random:
            return self.examples.batch(indices)
        # Not torch.manual_seed, which would reset the GPU's random numbers too.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(mixed(self.order.seed, step, place))
        try:
            return self.examples.batch(indices)
        finally:
            torch.set_rng_state(state)


class Feed:
    """The batches of the steps from `first_step` on: an iterator over lists of parts on the device."""

    def __init__(self, parts: Parts, first_step: int, last_step: int, workers: int, device: torch.device) -> None:
        self.accumulate, self.device = parts.accumulate, device
        numbers = range(first_step * parts.accumulate, last_step * parts.accumulate)
        self.pinned = device.type == "cuda"
        self.source: Iterator[Batch]
        if workers:
            loader = DataLoader(
                parts,
                batch_size=None,
                sampler=numbers,
                num_workers=workers,
                prefetch_factor=PREFETCHED,
                pin_memory=self.pinned,
                # Else it would draw its workers' seed from the random numbers of the model.
                generator=torch.Generator(),
            )
            with unheard():
                self.source = iter(loader)
        else:
            self.source = (self._pin(parts[number]) for number in numbers)

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        parts = list(itertools.islice(self.source, self.accumulate))
        if not parts:
            raise StopIteration
        return [(self._move(inputs), self._move(targets)) for inputs, targets in parts]

    def _pin(self, batch: Batch) -> Batch:
        return (batch[0].pin_memory(), batch[1].pin_memory()) if self.pinned else batch

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)
