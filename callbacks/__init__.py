"""Lightning callbacks of sparselit, chosen by class name in YAML; installed as `sparselit.callbacks`."""

from .annealed_sparsity import AnnealedSparsity
from .circuit_discovery import CircuitDiscovery
from .dynamic_sparsity import DynamicSparsity
from .self_paced_sparsity import SelfPacedSparsity
from .sparsity_monitor import SparsityMonitor
from .static_sparsity import StaticSparsity

__all__ = [
    "AnnealedSparsity",
    "CircuitDiscovery",
    "DynamicSparsity",
    "SelfPacedSparsity",
    "SparsityMonitor",
    "StaticSparsity",
]
