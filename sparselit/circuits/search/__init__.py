"""Circuit searches. Each is one file with one subclass of :class:`Search`, chosen by ``class_path``."""

from sparselit.circuits.search.attribution import Attribution
from sparselit.circuits.search.auto import Auto
from sparselit.circuits.search.base import Found, Progress, Search, attempt, without
from sparselit.circuits.search.group_testing import GroupTesting
from sparselit.circuits.search.hard_concrete import HardConcrete
from sparselit.circuits.search.node_masks import NodeMasks
from sparselit.circuits.search.one_by_one import OneByOne
from sparselit.circuits.search.quick_xplain import QuickXplain
from sparselit.circuits.search.soft_masks import SoftMasks
from sparselit.circuits.search.sweep import Sweep

__all__ = [
    "Attribution",
    "Auto",
    "Found",
    "GroupTesting",
    "HardConcrete",
    "NodeMasks",
    "OneByOne",
    "Progress",
    "QuickXplain",
    "Search",
    "SoftMasks",
    "Sweep",
    "attempt",
    "without",
]
