"""The tasks that come with the library, one file each."""

from .modular_addition import ModularAddition
from .parity import Parity
from .quotes import Quotes

__all__ = ["ModularAddition", "Parity", "Quotes"]
