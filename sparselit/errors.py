"""The error class whose message is meant for the person at the terminal."""


class SparselitError(Exception):
    """A mistake that the user can mend; the command line prints its message in one or two lines and exits with code 2.

    The message says what is wrong, where, and what would be right.
    """
