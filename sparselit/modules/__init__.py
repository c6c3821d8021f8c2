"""LightningModules: what is trained, and with which loss."""

from sparselit.modules.sparse_transformer import SparseTransformer

__all__ = ["SparseTransformer"]
