"""Rows of a pass with Ray: a conversation that waits, and what was found in one."""

from __future__ import annotations

import hmac
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from mindhooks import FinetuneCandidate, MemoryScore
from mindscore._util.errors import TranscriptError
from mindscore.archive.attempt import Attempt, Work
from mindscore.archive.pass_record import short_hash
from mindscore.store import ConversationFacts, Evidence, KnownScore, MemoryText, Notes, Pass
from mindscore.store.archive import storable_text
from mindscore.store.export import import_pyarrow
from mindscore.store.matrix_rows import decode_row, encode_row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conversation that waits for a worker.

    ``id`` tells the row from all others. ``work`` is packed by ``pack``; ``seal`` proves that this
    command has packed it.
    """

    id: str
    conversation: str
    source: str
    work: bytes
    seal: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """The findings in one conversation, as the store takes them.

    ``done.model`` is empty of a conversation that could not even be rendered: no pass is kept.
    ``scores`` say when memories were scored as they fell due, ``rows`` are those of the matrix, and
    ``notes`` are those on it. These are JSON, and so are ``candidates`` and ``json``, the document
    of ``--json``, which is empty where nothing was measured. ``given_up`` has what servers did that
    gave it up.
    """

    id: str
    source: str
    done: Pass
    evidence: list[Evidence]
    texts: list[MemoryText]
    facts: ConversationFacts | None
    scores: list[KnownScore]
    rows: list[str]
    candidates: list[str]
    json: str
    given_up: list[Pass]
    notes: str = "{}"

    @property
    def error(self) -> str | None:
        """The failure, or ``None``."""
        return self.done.error

    def document(self) -> dict[str, Any]:
        """Return the document of ``--json``."""
        decoded: dict[str, Any] = msgspec.json.decode(self.json)
        return decoded

    def decoded_candidates(self) -> list[FinetuneCandidate]:
        """Return the fine-tuning candidates."""
        return [msgspec.json.decode(it, type=FinetuneCandidate) for it in self.candidates]

    def decoded_notes(self) -> Notes:
        """Return the notes on the matrix."""
        return Notes.of(msgspec.json.decode(self.notes, type=dict[str, str]))

    def decoded_rows(self) -> list[MemoryScore]:
        """Return the rows of the matrix, but for those that JSON cannot hold."""
        return [row for it in self.rows if (row := decode_row(it)) is not None]


def row_id(conversation: str, content: str, settings: bytes) -> str:
    """Return the id of a row, without the number of the attempt.

    A conversation that has changed, or is scored with other settings, is another row.
    """
    return storable_text(f"{conversation}@{short_hash(content + settings.hex())}")


def pack(work: Work) -> bytes:
    """Return the bytes of a conversation, with the functions that print its memories.

    Raises:
        TranscriptError: a function of a third party's recogniser cannot go to another process.
    """
    from ray import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(work)
    # A recogniser is anybody's code.
    except Exception as error:
        raise TranscriptError(
            f"{work.transcript.file}: a recogniser's way to print memories cannot be sent to "
            f"workers: {error}"
        ) from None
    return packed


def sealed(key: bytes, row: str, packed: bytes) -> bytes:
    """Return the seal of a row's packed conversation."""
    return hmac.digest(key, row.encode() + b"\0" + packed, "sha256")


def unpack(waiting: Waiting, key: bytes) -> Work:
    """Return the conversation of a row.

    Raises:
        TranscriptError: the row is not from the command that made ``key``: a pickle can run code.
    """
    if not hmac.compare_digest(sealed(key, waiting.id, waiting.work), waiting.seal):
        raise TranscriptError("the conversation was changed on its way to the worker")
    work: Work = pickle.loads(waiting.work)  # noqa: S301 - sealed
    return work


def finding(
    waiting: Waiting, ended: Attempt, done: Pass, given_up: list[Pass], *, keep_texts: bool
) -> Finding:
    """Return what was found in a conversation as a row."""
    scored = ended.scored
    if scored is None:
        return Finding(waiting.id, waiting.source, done, [], [], None, [], [], [], "", given_up)
    rows = [encode_row(it) for it in scored.rows()]
    candidates = [msgspec.json.encode(it).decode() for it in scored.result.candidates]
    document = "" if ended.gave_up else json.dumps(msgspec.to_builtins(scored.document()))
    texts = scored.texts(keep_texts=keep_texts)
    evidence, facts, scores = scored.evidence(), scored.facts(), scored.known_scores()
    return Finding(
        waiting.id,
        scored.source,
        done,
        evidence,
        texts,
        facts,
        scores,
        rows,
        candidates,
        document,
        given_up,
        msgspec.json.encode(scored.notes().encoded()).decode(),
    )


def as_table(kind: type, rows: Sequence[Any]) -> Any:
    """Return rows of ``kind``, a dataclass, as a ``pyarrow.Table``."""
    pyarrow, _ = import_pyarrow()
    return pyarrow.Table.from_pylist(
        _storable(msgspec.to_builtins(rows, builtin_types=(bytes,))), schema=schema_of(kind)
    )


def as_rows(kind: type[T], table: Any) -> list[T]:
    """Return the rows of a ``pyarrow.Table`` as objects of ``kind``."""
    return [msgspec.convert(it, kind, builtin_types=(bytes,)) for it in table.to_pylist()]


def _storable(value: Any) -> Any:
    """Return ``value`` with texts that UTF-8 can hold."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {name: _storable(it) for name, it in value.items()}
    return [_storable(it) for it in value] if isinstance(value, list) else value


def schema_of(kind: type) -> Any:
    """Return the ``pyarrow.Schema`` of a dataclass of texts, numbers, bytes, lists and the like."""
    pyarrow, _ = import_pyarrow()
    return pyarrow.schema(_fields(pyarrow, kind))


def _fields(pyarrow: Any, kind: type) -> list[Any]:
    return [_field(pyarrow, name, hint) for name, hint in get_type_hints(kind).items()]


def _field(pyarrow: Any, name: str, hint: Any) -> Any:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return pyarrow.field(name, _type(pyarrow, kinds[0]), nullable=len(kinds) > 1)


def _type(pyarrow: Any, kind: Any) -> Any:
    plain = {
        str: pyarrow.string(),
        bytes: pyarrow.binary(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
    }
    if get_origin(kind) is list:
        return pyarrow.list_(_field(pyarrow, "item", *get_args(kind)))
    if kind in plain:
        return plain[kind]
    if isinstance(kind, type):
        return pyarrow.struct(_fields(pyarrow, kind))
    return pyarrow.string()  # a literal
