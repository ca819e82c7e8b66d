"""Read the conversations that other programs keep, each in its own format.

A reader is one file: a class with the two methods of ``Reader``, and an entry point of group
``mindscore.readers`` whose name is the format's.
"""

from mindscore.readers.conversations import Reader
from mindscore.readers.reading import Reading, iso_time, tool_call
from mindscore.readers.source import Source, first_text, kind_of, listed

__all__ = [
    "Reader", "Reading", "Source", "first_text", "iso_time", "kind_of", "listed", "tool_call",
]  # fmt: skip
