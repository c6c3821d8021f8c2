"""Tasks and their examples: prompts, splits, tokens, batches. Only ``task`` loads Lightning."""

from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples

__all__ = ["Behaviour", "Examples"]
