"""One file a command, each with ``run(argv)``."""
