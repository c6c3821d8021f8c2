"""What every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """The command line flushes them to zero for its whole process; hypothesis needs them."""
    yield
    torch.set_flush_denormal(False)
