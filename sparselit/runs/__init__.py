"""What a run leaves on disk: its folder, its checkpoints, its result."""

from sparselit.runs.result import Result

__all__ = ["Result"]
