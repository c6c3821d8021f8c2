"""One decision accounted for: what carried it, what would have flipped it, and where trust ends."""

from sparselit.circuits.use.audit.audit import Auditor
from sparselit.circuits.use.audit.record import Audit, Decision, Thresholds, read_audit, schema

__all__ = ["Audit", "Auditor", "Decision", "Thresholds", "read_audit", "schema"]
