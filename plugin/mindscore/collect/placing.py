"""Turns are put together to conversations, many in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import sqlite

from mindscore.collect.turns import Record, Turn
from mindscore.store.turn_tables import branches, known_turns, waiting

MOST_NAMED = 10_000
"""Memories that earlier turns named, and that a conversation keeps."""

AT_ONCE = 500
"""Values that one query looks for."""

# Made once: SQLAlchemy takes longer to make a statement than SQLite to run it.
_given: BindParameter[Any] = bindparam("given", expanding=True)
_of, _in = known_turns.c, branches.c
_IDS = select(_of.scope, _of.turn_id, _of.digest).where(_of.turn_id.in_(_given))
_KNOWN = select(_of.scope, _of.digest, _of.turn_id, _of.branch).where(_of.digest.in_(_given))
_TIPS = select(_in.id, _in.scope, _in.tip).where(_in.tip.in_(_given))
_NAMES = select(_in.name).where(_in.name.in_(_given))
_COUNTS = select(_in.scope, func.count()).where(_in.scope.in_(_given)).group_by(_in.scope)
_MEMORIES = select(_in.id, _in.memories).where(_in.id.in_(_given), _in.memories.is_not(None))
_LAST = select(func.coalesce(func.max(_in.id), 0))
_WAITING = select(waiting.c.branch, waiting.c.turns, waiting.c.record).where(
    waiting.c.branch.in_(_given)
)
_STEPPED = (
    update(branches)
    .where(_in.id == bindparam("branch"))
    .values(tip=bindparam("last"), seen_at=bindparam("now"))
)
_NAMED = (
    update(known_turns)
    .where(_of.scope == bindparam("of"), _of.digest == bindparam("hash"), _of.turn_id.is_(None))
    .values(turn_id=bindparam("name"), at_ns=bindparam("at"), prompt=bindparam("system"))
)
_REMEMBERED = sqlite.insert(known_turns).on_conflict_do_nothing()
_REPLACED = delete(waiting).where(waiting.c.branch == bindparam("gone"))

Key = tuple[str, bytes]
"""What a sender calls a conversation, and a hash of ``Turn``'s."""


@dataclass(slots=True)
class _Last:
    """The last turn of a branch, and how many it stands for."""

    record: bytes
    turns: int

    def follow(self, record: bytes, turns: int) -> None:
        """Let ``record`` take its place, with the memories that were named before."""
        self.record, self.turns = (
            with_memories(record, memories_in(self.record)),
            self.turns + turns,
        )


class Placement:
    """The places of turns among those that are known, in one transaction.

    ``put`` them one by one, then ``write``.
    """

    def __init__(self, connection: Connection, turns: Sequence[Turn], now: float) -> None:
        self._connection = connection
        self._now = now
        named = self._find(_IDS, [it.id for it in turns])
        self._ids: dict[tuple[str, str], bytes] = {(it[0], it[1]): it.digest for it in named}
        ends = [it.exact[-1] for it in turns] + [it.prompted for it in turns if not it.scope]
        ends += [it.exact[-2] for it in turns if it.scope and len(it.exact) > 1]
        known = {(row.scope, row.digest): row for row in self._find(_KNOWN, ends)}
        self._known: dict[Key, str | None] = {key: row.turn_id for key, row in known.items()}
        self._said_in: dict[Key, int] = {key: row.branch for key, row in known.items()}
        self._stepped: dict[int, bytes] = {}
        self._tips: dict[Key, list[int]] = {}
        self._note_tips([_tips(it)[-2] for it in turns if len(it.said) > 1])
        self._names = {row.name for row in self._find(_NAMES, [it.name for it in turns])}
        counted = self._find(_COUNTS, list({it.scope for it in turns if it.scope}))
        self._counts = {row[0]: row[1] for row in counted}
        self._next_branch: int = connection.execute(_LAST).scalar_one() + 1
        self._last: dict[int, _Last] = {}
        self._new: dict[int, dict[str, Any]] = {}
        self._remembered: list[dict[str, Any]] = []
        self._named: list[dict[str, Any]] = []

    def put(self, turn: Turn) -> bool | None:
        """Place a turn; return false if it is known, alone or within a later one.

        ``None``: another turn of its conversation has its id, so that it has no place.
        """
        said = self._ids.setdefault((turn.scope, turn.id), turn.exact[-1])
        if said not in (turn.exact[-1], turn.prompted):
            return None
        key = turn.scope, turn.exact[-1]
        if key in self._known:
            if not self._is_of_another(turn, self._known[key]):
                # Its row may have no id yet, if it was seen within a later turn.
                now_known = {"name": turn.id, "at": turn.at_ns, "system": turn.prompt}
                self._named.append({"of": turn.scope, "hash": turn.exact[-1], **now_known})
                return False
            turn = replace(turn, exact=(*turn.exact[:-1], turn.prompted))
        branch, continued = self._continued(turn)
        tip = _tips(turn)[-1]
        if branch is None:
            branch = self._new_branch(turn, tip)
        elif branch in self._new:
            self._new[branch]["tip"] = tip
        else:
            self._stepped[branch] = tip
        self._tips.setdefault((turn.scope, tip), []).append(branch)
        for digest in turn.exact[continued:]:
            self._known.setdefault((turn.scope, digest), None)
            self._said_in.setdefault((turn.scope, digest), branch)
            row = {"scope": turn.scope, "digest": digest, "branch": branch}
            self._remembered.append({**row, "turn_id": None, "at_ns": None, "prompt": None})
        self._known[turn.scope, turn.exact[-1]] = turn.id
        self._remembered[-1] |= {"turn_id": turn.id, "at_ns": turn.at_ns, "prompt": turn.prompt}
        if branch in self._last:
            self._last[branch].follow(turn.record, 1)
        else:
            self._last[branch] = _Last(turn.record, 1)
        return True

    def _is_of_another(self, turn: Turn, known: str | None) -> bool:
        """Return whether a turn without a name is not the ``known`` one that says the same.

        One of another trace with another system prompt, and so perhaps with other memories, is not.
        """
        if turn.scope or known is None:
            return False
        is_same_trace = known.rpartition("-")[0] == turn.id.rpartition("-")[0]
        return not is_same_trace and (turn.scope, turn.prompted) not in self._known

    def write(self, ready_at: float) -> None:
        """Write what was placed; it may be scored from ``ready_at`` on."""
        execute = self._connection.execute
        if self._new:
            execute(insert(branches), list(self._new.values()))
        if self._stepped:
            stepped = [
                {"branch": branch, "last": tip, "now": self._now}
                for branch, tip in self._stepped.items()
            ]
            execute(_STEPPED, stepped)
        if self._remembered:
            execute(_REMEMBERED, self._remembered)
        if self._named:
            execute(_NAMED, self._named)
        old = list(self._find(_WAITING, [it for it in self._last if it not in self._new]))
        if old:
            execute(_REPLACED, [{"gone": it.branch} for it in old])
        for row in old:
            last, earlier = self._last[row.branch], _Last(row.record, row.turns)
            earlier.follow(last.record, last.turns)
            self._last[row.branch] = earlier
        scored = self._last.keys() - self._new.keys() - {it.branch for it in old}
        for row in self._find(_MEMORIES, list(scored)):
            last = self._last[row.id]
            last.record = with_memories(last.record, memories_in(row.memories))
        if self._last:
            execute(insert(waiting), list(self._rows(ready_at)))

    def _rows(self, ready_at: float) -> Iterator[dict[str, Any]]:
        for branch, last in self._last.items():
            yield {
                "branch": branch,
                "turns": last.turns,
                "size": len(last.record),
                "received_at": self._now,
                "ready_at": ready_at,
                "attempts": 0,
                "record": last.record,
            }

    def _find(self, query: Select[Any], values: Sequence[Any]) -> Iterator[Any]:
        for at in range(0, len(values), AT_ONCE):
            yield from self._connection.execute(query, {"given": values[at : at + AT_ONCE]})

    def _note_tips(self, tips: Sequence[bytes]) -> None:
        for id_, scope, tip in self._find(_TIPS, tips):
            # One that has gone on since, in this transaction, ends elsewhere.
            its = self._tips.setdefault((scope, tip), [])
            if id_ not in self._stepped and id_ not in its:
                its.append(id_)

    def _continued(self, turn: Turn) -> tuple[int | None, int]:
        """Return the branch that a turn continues, and how many responses of it that has.

        With a name, responses tell it: hosts may print the same user's message with other memories.
        """
        tips = _tips(turn)[:-1]
        if not tips:
            return None, 0
        before = self._take_tip(turn, len(tips))
        if before is not None:
            return before, len(tips)
        # It may continue one from longer ago: what is between was not sent, or comes later.
        self._note_tips(tips[:-1])
        for length in range(len(tips) - 1, 0, -1):
            before = self._take_tip(turn, length)
            if before is not None:
                return before, length
        return None, 0

    def _take_tip(self, turn: Turn, length: int) -> int | None:
        """Return the branch that ends with so many responses of a turn, which is to end elsewhere.

        Of several with equal responses, that in which users and tools said the same, too; none, if
        that has gone on already: the turn is a fork of it, and continues no other.
        """
        ending = self._tips.get((turn.scope, _tips(turn)[length - 1]))
        if not ending:
            return None
        same = self._branch_of(turn.scope, turn.exact[length - 1])
        if same in ending:
            ending.remove(same)
            return same
        return ending.pop() if same is None else None

    def _branch_of(self, scope: str, digest: bytes) -> int | None:
        """Return the branch in which all that was said, if it is known."""
        if (scope, digest) not in self._said_in:
            for row in self._find(_KNOWN, [digest]):
                self._said_in[row.scope, row.digest] = row.branch
        return self._said_in.get((scope, digest))

    def _new_branch(self, turn: Turn, tip: bytes) -> int:
        branch, self._next_branch = self._next_branch, self._next_branch + 1
        name = next(it for it in self._names_for(turn, branch) if self._is_free(it))
        self._names.add(name)
        if turn.scope:
            self._counts[turn.scope] = self._counts.get(turn.scope, 0) + 1
        row = {"id": branch, "scope": turn.scope, "name": name, "tip": tip, "seen_at": self._now}
        self._new[branch] = row
        return branch

    def _names_for(self, turn: Turn, branch: int) -> Iterator[str]:
        """Yield the few names that a new branch may have, the last of which nobody else has."""
        before = self._counts.get(turn.scope, 0) if turn.scope else 0
        if not before:
            yield turn.name
        yield f"{turn.name}-{before + 1 if before else 2}"
        yield f"{turn.name}-{branch}"
        yield f"{turn.name}-{uuid.uuid4().hex}"

    def _is_free(self, name: str) -> bool:
        return name not in self._names and not list(self._find(_NAMES, [name]))


def _tips(turn: Turn) -> tuple[bytes, ...]:
    return turn.said if turn.scope else turn.exact


class _Memories(msgspec.Struct):
    memories: dict[str, str]


def memories_in(record: bytes) -> dict[str, str]:
    """Return the memories that a record names."""
    return msgspec.json.decode(record, type=_Memories).memories


def with_memories(record: bytes, earlier: dict[str, str]) -> bytes:
    """Return ``record`` with the last ``MOST_NAMED`` of the memories that were named earlier."""
    if not earlier:
        return record
    whole = msgspec.json.decode(record, type=Record)
    kept = [(key, text) for key, text in earlier.items() if key not in whole.memories]
    whole.memories = {**dict(kept[-MOST_NAMED:]), **whole.memories}
    return msgspec.json.encode(whole)
