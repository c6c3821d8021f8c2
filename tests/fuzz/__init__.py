"""Seeded fuzzers: whatever is written on a command line or in a file is done, or refused in one or two lines."""
