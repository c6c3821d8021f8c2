"""``python -m sparselit``: the same as the command ``sparselit``."""

from sparselit.cli import main

main()
