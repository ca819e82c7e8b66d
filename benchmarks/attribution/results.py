"""The values that methods found, in a JSON file that a run that was cut off goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from benchmarks.attribution.measuring import Cost
from mindscore._util.files import write_whole


class Found(Struct):
    """What a method found of one answer: a value for each key, and what that took."""

    values: list[float]
    cost: Cost


class Ablations(Struct):
    """Random ablations, and the answer's log-probability under each, in nats."""

    masks: list[str]
    totals: list[float]


class Answer(Struct):
    """One answer, its labels, and what each method found."""

    set: str
    case: str
    node_id: str
    held_out: bool
    keys: list[str]
    support: list[str]
    harmful: list[str]
    tokens: int
    methods: dict[str, Found] = field(default_factory=dict)
    random: Ablations | None = None
    token_logprobs: dict[str, Any] = field(default_factory=dict)


class Results(Struct):
    """All answers, measured with the same model in the same way.

    ``setup`` says how: what is measured otherwise does not belong into the same file.
    """

    setup: dict[str, str]
    answers: list[Answer] = field(default_factory=list)

    def of(self, set_: str, case: str) -> dict[str, Answer]:
        """Return the answers of a case, by node id."""
        return {it.node_id: it for it in self.answers if (it.set, it.case) == (set_, case)}

    def write(self, file: Path) -> None:
        """Write all to ``file``, whole or not at all."""
        write_whole(file, msgspec.json.encode(self))


def read_results(file: Path | None, setup: dict[str, str]) -> Results:
    """Return what ``file`` has, or nothing yet.

    Raises:
        ValueError: it was measured otherwise, or is no such file.
    """
    if file is None or not file.exists():
        return Results(setup)
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Results)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file}: not a file of results: {error}") from error
    for name, value in setup.items():
        if found.setup.get(name) != value:
            raise ValueError(
                f"{file}: measured with {name} {found.setup.get(name)}, not {value}: name another "
                "file with --json"
            )
    return found
