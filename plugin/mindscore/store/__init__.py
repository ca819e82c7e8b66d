"""Where scores, the matrix, candidates, trained marks and sends are kept: one SQLite file."""

from mindscore.store.sends import Sample, Send, Sends
from mindscore.store.store import Store, StoredMemory, TrainedMarks

__all__ = ["Sample", "Send", "Sends", "Store", "StoredMemory", "TrainedMarks"]
