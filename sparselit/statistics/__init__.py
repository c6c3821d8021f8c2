"""Intervals and p-values of numbers, independent of circuits."""
