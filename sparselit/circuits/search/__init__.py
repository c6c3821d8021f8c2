"""Circuit searches. Each is one file with one subclass of :class:`Search`, chosen by ``class_path``."""

from sparselit.circuits.search.base import Found, Report, Search
from sparselit.circuits.search.group_testing import GroupTesting

__all__ = ["Found", "GroupTesting", "Report", "Search"]
