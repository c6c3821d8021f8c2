"""Models and circuits in the formats of other projects, in and out."""

from sparselit.interop.openai import checkpoint_to_openai, load_openai, openai_to_checkpoint, save_openai
from sparselit.interop.shipped import load_model
from sparselit.interop.sparse_file import from_bytes, to_bytes

__all__ = [
    "checkpoint_to_openai",
    "from_bytes",
    "load_model",
    "load_openai",
    "openai_to_checkpoint",
    "save_openai",
    "to_bytes",
]
