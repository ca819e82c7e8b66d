"""Find the memories that an agent prints inside its messages.

A recogniser is a plugin with the hook ``find_memories``. Third parties bring theirs through the
entry-point group ``mindscore.recognisers``: a module or an instance, registered as it is; a class
or function is called without arguments.
"""

from mindscore.recognisers.finder import (
    Block,
    Entry,
    Found,
    MemoryFinder,
    Unread,
    hookimpl,
    hookspec,
)
from mindscore.recognisers.literal import standing_in

__all__ = [
    "Block",
    "Entry",
    "Found",
    "MemoryFinder",
    "Unread",
    "hookimpl",
    "hookspec",
    "standing_in",
]
