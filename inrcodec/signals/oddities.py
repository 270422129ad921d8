"""Warnings about files that are read or written in spite of something odd."""


class InrcodecWarning(UserWarning):
    """A file is odd, and what was made of it; each message is one line that begins with the file's path."""
