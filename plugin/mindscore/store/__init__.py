"""SQLite files: the store of scores, candidates, marks and sends, and the tables of others."""

from mindscore.store.history import Cell, History, Point, RunRecord, Speed
from mindscore.store.records import Damage, Records, damage_remark
from mindscore.store.reviews import CandidateName, ConflictError, Listed, Review, Reviewed, Reviews
from mindscore.store.scores import KnownScore, StoredMemory
from mindscore.store.sends import Send, Sends
from mindscore.store.store import Store, TrainedMarks

__all__ = [
    "CandidateName",
    "Cell",
    "ConflictError",
    "Damage",
    "History",
    "KnownScore",
    "Listed",
    "Point",
    "Records",
    "Review",
    "Reviewed",
    "Reviews",
    "RunRecord",
    "Send",
    "Sends",
    "Speed",
    "Store",
    "StoredMemory",
    "TrainedMarks",
    "damage_remark",
]
