"""What the daemon makes of its looks at the GPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pynvml
import pytest

from runner.gpus.desk import GpuDesk
from runner.gpuwish import GpuWish
from runner.packing import WHOLE
from tests.fakenvml.driver import FakeGpu, FakeNvml, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def desk(fake_nvml: Callable[..., FakeNvml]) -> Iterator[tuple[GpuDesk, FakeNvml]]:
    """A daemon's view of one GPU, on which this process is an attempt."""
    fake = fake_nvml(FakeGpu(0))
    desk = GpuDesk(print)
    desk.ask(GpuWish())
    desk.begin(os.getpid(), {uuid(0): WHOLE}, None, None)
    yield desk, fake
    fake.heal()
    pynvml.nvmlShutdown()


def test_one_look_that_errs_interrupts_nothing(desk: tuple[GpuDesk, FakeNvml]) -> None:
    one, fake = desk
    fake.fail("*", uuid(0), pynvml.NVML_ERROR_UNKNOWN)
    assert one.look(100.0).lost == []
    fake.heal()
    assert one.look(100.5).lost == []
    fake.fail("*", uuid(0), pynvml.NVML_ERROR_UNKNOWN)
    assert one.look(101.0).lost == []
    assert one.look(101.5).lost == [os.getpid()]
