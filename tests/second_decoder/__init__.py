"""A second decoder of `.inr` files, written from docs/FORMAT.md alone: the tests compare inrcodec with it.

It shares no code with inrcodec, only the two tables of frequencies that are part of the format. It is meant to be read
beside the page: every module says which section it follows, and names are those of the page. It is slow, and it
decodes whole signals only.

A file that breaks a rule of the page is refused. What is not checked of an initialization, whose identifier vouches for
it, are the ranges of its settings, and all that only encoders need.
"""

from second_decoder.initialization import Initialization, read_initialization
from second_decoder.reading import Refused
from second_decoder.streams import Stream, read_streams

__all__ = ["Initialization", "Refused", "Stream", "read_initialization", "read_streams"]
