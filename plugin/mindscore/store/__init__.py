"""SQLite files: the store of scores, candidates, marks and sends, and the tables of others."""

from mindscore.store.archive import ConversationFacts, MemoryText, Pass
from mindscore.store.arrays import EvidenceArrays, as_arrays
from mindscore.store.evidence import (
    COLUMNS,
    Columns,
    Evidence,
    EvidenceKind,
    EvidenceState,
    Mode,
    columns_of,
    rows_of,
)
from mindscore.store.history import (
    Cell,
    History,
    KnownConversation,
    Point,
    RunRecord,
    Sent,
    Speed,
)
from mindscore.store.ledger import Ledger, MemoryEffect
from mindscore.store.matrix_notes import NO_NOTES, Notes
from mindscore.store.records import Damage, Records, damage_remark
from mindscore.store.reservations import Grant, Reservation, Reservations
from mindscore.store.reviews import (
    CandidateName,
    ConflictError,
    Listed,
    Review,
    Reviewed,
    Reviews,
    Unlisted,
)
from mindscore.store.scores import KnownScore, StoredMemory
from mindscore.store.seen import Seen
from mindscore.store.sends import Send, Sends
from mindscore.store.store import Store, TrainedMarks
from mindscore.store.verifications import (
    MeasuredRemoval,
    MeasuredResponse,
    RemovalName,
    Verifications,
)

__all__ = [
    "COLUMNS",
    "NO_NOTES",
    "CandidateName",
    "Cell",
    "Columns",
    "ConflictError",
    "ConversationFacts",
    "Damage",
    "Evidence",
    "EvidenceArrays",
    "EvidenceKind",
    "EvidenceState",
    "Grant",
    "History",
    "KnownConversation",
    "KnownScore",
    "Ledger",
    "Listed",
    "MeasuredRemoval",
    "MeasuredResponse",
    "MemoryEffect",
    "MemoryText",
    "Mode",
    "Notes",
    "Pass",
    "Point",
    "Records",
    "RemovalName",
    "Reservation",
    "Reservations",
    "Review",
    "Reviewed",
    "Reviews",
    "RunRecord",
    "Seen",
    "Send",
    "Sends",
    "Sent",
    "Speed",
    "Store",
    "StoredMemory",
    "TrainedMarks",
    "Unlisted",
    "Verifications",
    "as_arrays",
    "columns_of",
    "damage_remark",
    "rows_of",
]
