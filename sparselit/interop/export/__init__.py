"""Circuits as files that other tools read: one module a format, and the table of them."""

from sparselit.interop.export.formats import FORMATS, export

__all__ = ["FORMATS", "export"]
