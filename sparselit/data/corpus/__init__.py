"""Texts to learn a language from: which files, which of them are held out, their tokens, and where those are kept."""
