"""The weight-sparse transformer: one forward pass, the sites in it, and the edges that join them."""

from sparselit.model.sites import Edit, Sites
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

__all__ = ["Edges", "Edit", "Sites", "Transformer"]
