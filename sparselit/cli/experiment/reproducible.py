"""``reproducible: true``: what makes the last digits depend on the processor is pinned, as far as it can be.

The kernels of torch, MKL and oneDNN choose their instructions once, when they are loaded, by these variables of the
environment. The standard library's functions and another version of torch still differ between machines.
"""

from __future__ import annotations

import os
import sys

#: Slow kernels that every processor of an architecture has, and cuBLAS without choices that depend on timing.
KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def pin_kernels() -> None:
    """Pin the kernels, also those of processes that this one starts; without effect once torch is loaded."""
    if "torch" not in sys.modules:
        os.environ.update(KERNELS)


def pin_torch(threads: int | None) -> list[str]:
    """Pin threads and algorithms.

    Args:
        threads: CPU threads; None for one.

    Returns:
        Lines on what could not be pinned.
    """
    import torch

    torch.set_num_threads(threads or 1)
    torch.use_deterministic_algorithms(True)
    capability = torch.backends.cpu.get_cpu_capability()
    if os.environ.get("ATEN_CPU_CAPABILITY") == KERNELS["ATEN_CPU_CAPABILITY"]:
        return []
    return [f"reproducible: torch had been loaded before, its kernels stay those of {capability}"]
