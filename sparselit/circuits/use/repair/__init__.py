"""Errors traced and repaired: edits as data, ways to make one, and what an edit does elsewhere."""

from sparselit.circuits.use.repair.edit import Delta, Edit, Provenance, applied, between, composed, read_edit

__all__ = ["Delta", "Edit", "Provenance", "applied", "between", "composed", "read_edit"]
