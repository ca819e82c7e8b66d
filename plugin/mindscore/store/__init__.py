"""Where scores, matrix cells, candidates and trained marks are kept: one SQLite file."""

from mindscore.store.store import Store, StoredMemory, TrainedMarks

__all__ = ["Store", "StoredMemory", "TrainedMarks"]
