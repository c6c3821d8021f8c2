"""Where something was computed, as far as its last digits depend on it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import device as Device


@dataclass(frozen=True, kw_only=True)
class MadeOn:
    """What the last digits of a sum depend on.

    Attributes:
        processor: as the operating system names it.
        capability: instruction set that torch's kernels use, e.g. ``AVX2``.
        device: ``cpu``, or the name of the GPU.
        torch: its version.
    """

    processor: str
    capability: str
    device: str
    torch: str

    @classmethod
    def here(cls, device: Device | str = "cpu") -> MadeOn:
        """This process, computing on a device."""
        device = Device(device)
        return cls(
            processor=_processor(),
            capability=torch.backends.cpu.get_cpu_capability(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            torch=torch.__version__,
        )


def _processor() -> str:
    """The processor's name: Linux has it in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]
