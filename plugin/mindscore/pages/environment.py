"""Templates that escape their values, the policy of pages, and what several pages show."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from mindscore._util.errors import UsageError
from mindscore._util.text import iso_utc, moment_text
from mindscore.conversation.conversation import Transcript
from mindscore.measure.divergence import noise_limit
from mindscore.measure.screening.words import words_in_common
from mindscore.measure.support import ranked

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def asset(name: str, package: str = "mindscore.pages") -> str:
    """Return the text of a file in ``assets`` of ``package``."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def csp(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """Return the Content-Security-Policy of a page that has these inline and loads nothing.

    Each is the exact text between an element's tags.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes(scripts)}",
            f"style-src {_hashes(styles)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hashes(texts: Iterable[str]) -> str:
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{it}'" for it in hashes) or "'none'"


Kind = Literal["same", "removed", "added"]

# A word or a mark, with the white space after it: blanks alone would match everywhere.
_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text: in both, in the first alone, or in the second alone."""

    kind: Kind
    text: str


NEAR = 0.5
"""Share of words in common from which on two texts are compared word by word."""


def word_diff(before: str, after: str) -> list[Piece]:
    """Return the differences between two texts, by words; ``[]`` if little is the same.

    ``"same"`` and ``"removed"`` pieces make up ``before``, in order; ``"same"`` and ``"added"``
    ones make up ``after``.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    matcher = SequenceMatcher(None, old, new)
    if matcher.ratio() < NEAR:
        return []
    for _, i, j, k, n in matcher.get_opcodes():
        if old[i:j] == new[k:n]:
            pieces.append(Piece("same", "".join(old[i:j])))
            continue
        if i < j:
            pieces.append(Piece("removed", "".join(old[i:j])))
        if k < n:
            pieces.append(Piece("added", "".join(new[k:n])))
    return pieces


# None of these ends a script element, opens a comment in it, or ends a line of JavaScript.
_HARMLESS = {ord(it): f"\\u{ord(it):04x}" for it in "<>&\u2028\u2029"}


def environment(package: str) -> Environment:
    """Return the templates of ``package`` and of this one; an unknown name in one is an error.

    A template has ``embed(id, data)`` and ``word_diff(before, after)``, and the filters ``day``,
    ``moment`` and ``number``.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UsageError(
            f"pages are made with Jinja2 ({error}); install it with: "
            "pip install 'mindscore[report]'"
        ) from error
    loaders = [PackageLoader(package), PackageLoader("mindscore.pages")]
    made = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(embed=embed, word_diff=word_diff)
    made.filters.update(day=day, moment=moment, number=number)
    return made


def moment(seconds: float | None) -> Markup:
    """Return a time since the epoch as an element, in local time."""
    from markupsafe import Markup

    if seconds is None:
        return Markup("never")
    when = datetime.fromtimestamp(seconds).astimezone()
    element = Markup('<time datetime="{}">{}</time>')
    return element.format(when.isoformat(timespec="seconds"), moment_text(seconds))


def day(seconds: float) -> str:
    """Return the date of a time since the epoch, in UTC."""
    return (iso_utc(seconds) or "an unknown day")[:10]


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with separated thousands, or a dash if there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def embed(element_id: str, data: Any) -> Markup:
    """Return an element that holds ``data`` as JSON; no text in it can end the element.

    Raises:
        ValueError: a number is not finite.
    """
    from markupsafe import Markup

    # Lone surrogates are replaced where the page is encoded.
    written = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    template = Markup('<script type="application/json" id="{}">{}</script>')
    return template.format(element_id, Markup(written.translate(_HARMLESS)))  # noqa: S704


MOST_SHOWN = 5
"""Memories shown beside a response."""


def turns(transcript: Transcript, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a conversation, each response with the memories that changed it.

    Those that helped it come first, in the order of their ``support``, then those that harmed it,
    of which the worst is shown in any case. ``data`` is the matrix's: a response has its ``column``
    there, any other message ``None``.
    """
    columns = {it["node_id"]: at for at, it in enumerate(data["responses"])}
    keys = [memory["key"] for memory in data["memories"]]
    words = words_in_common(transcript, columns, keys)
    found = []
    for index, message in enumerate(transcript.conversation):
        column = columns.get(message.id)
        effects = [] if column is None else _effects(data, column)
        common = {key: words[key].get(message.id, 0.0) for _, key in effects}
        helped, harmed = ranked(effects, common)
        shown = helped[: MOST_SHOWN - bool(harmed)]
        shown += harmed[: MOST_SHOWN - len(shown)]
        turn = {"index": index, "role": message.role, "text": message.text, "column": column}
        found.append({**turn, "effects": shown, "more": len(effects) - len(shown)})
    return found


def _effects(data: Mapping[str, Any], column: int) -> list[tuple[float, str]]:
    """Return the effects on a response that are beyond noise, each with its memory's key."""
    found = []
    for row, memory in enumerate(data["memories"]):
        value = data["signed"][row][column]
        noise = data["noise"][row][column] if data["noise"] else None
        if value is not None and abs(value) > noise_limit(noise, data["spread"][column]):
            found.append((value, memory["key"]))
    return found
