"""Tasks and their examples: prompts, splits, tokens, batches. Only ``task`` loads Lightning."""

from sparselit.data.behaviour import Behaviour, Behaviours
from sparselit.data.examples import Examples, Sequences
from sparselit.data.splits import Example
from sparselit.data.tokenizer import LongestMatch, Tokenizer

__all__ = ["Behaviour", "Behaviours", "Example", "Examples", "LongestMatch", "Sequences", "Tokenizer"]
