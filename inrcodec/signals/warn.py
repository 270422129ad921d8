"""The warnings that the package gives on purpose: a file was read, but something in it was not as it should be."""


class InrcodecWarning(UserWarning):
    """Something in a file is unusual: the message says what, how often, and what was done about it."""
