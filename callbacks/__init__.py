"""Lightning callbacks of sparselit, chosen by class name in YAML; installed as `sparselit.callbacks`."""

from .acdc_sparsity import AcdcSparsity
from .annealed_sparsity import AnnealedSparsity
from .circuit_discovery import CircuitDiscovery
from .dynamic_sparsity import DynamicSparsity
from .gradual_pruning import GradualPruning
from .lottery_ticket import LotteryTicket
from .one_shot_pruning import OneShotPruning
from .proximal_sparsity import ProximalSparsity
from .rigl_sparsity import RiglSparsity
from .self_paced_sparsity import SelfPacedSparsity
from .semi_structured_sparsity import SemiStructuredSparsity
from .snip_sparsity import SnipSparsity
from .sparse_compute import SparseCompute
from .sparsity_monitor import SparsityMonitor
from .static_sparsity import StaticSparsity

__all__ = [
    "AcdcSparsity",
    "AnnealedSparsity",
    "CircuitDiscovery",
    "DynamicSparsity",
    "GradualPruning",
    "LotteryTicket",
    "OneShotPruning",
    "ProximalSparsity",
    "RiglSparsity",
    "SelfPacedSparsity",
    "SemiStructuredSparsity",
    "SnipSparsity",
    "SparseCompute",
    "SparsityMonitor",
    "StaticSparsity",
]
