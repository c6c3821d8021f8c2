"""Intervals and p-values of plain numbers; nothing here knows of circuits."""
