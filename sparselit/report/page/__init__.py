"""The circuit page: one HTML file without any request, to look at a circuit, its evidence and its prompts."""

from sparselit.report.page.page import circuit_page, compare_page, history_page

__all__ = ["circuit_page", "compare_page", "history_page"]
