"""The bases of the callbacks, and what they need of Lightning."""

from sparselit.training.method import Density, Gradients, Moments
from sparselit.training.sparsifier import Sparsifier

__all__ = ["Density", "Gradients", "Moments", "Sparsifier"]
