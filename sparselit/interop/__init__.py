"""Models and circuits in the formats of other projects, in and out."""

from sparselit.interop.openai import checkpoint_to_openai, load_openai, openai_to_checkpoint, save_openai

__all__ = ["checkpoint_to_openai", "load_openai", "openai_to_checkpoint", "save_openai"]
