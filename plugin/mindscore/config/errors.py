"""An error in the configuration, in words that name the key and what was expected of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from mindscore._util.text import printable

_TOML_NAMES = {
    "object": "a table",
    "array": "an array",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}


def explain(message: str, kind: type, name: str, tables: Mapping[str, type]) -> str:
    """Return msgspec's ``message`` on a table of type ``kind``, called ``name``, in plain words.

    ``tables`` are the types of the tables that it may be in, by their dotted names.
    """
    problem, _, path = message.partition(" - at `$")
    key = ".".join(part for part in (name, path.rstrip("`").lstrip(".")) if part)
    if unknown := re.search(r"unknown field `(.*)`", problem, flags=re.DOTALL):
        known = [f.encode_name for f in msgspec.structs.fields(tables.get(key, kind))]
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known) or 'none'}"
        full = printable(f"{key}.{unknown[1]}" if key else unknown[1])
        return f"{full}: unknown key; {hint}"
    if problem.startswith("Invalid enum value"):
        table, _, last = key.rpartition(".")
        hint = get_type_hints(tables.get(table, kind))[last]
        expected = " or ".join(_choices(hint))
        return f"{key}: expected {expected}, got {problem.removeprefix('Invalid enum value ')}"
    if problem.startswith(("settings.", "url: ", "folder: ", "device: ", "base_urls: ")):
        # Of a table's own __post_init__.
        return printable(f"{key}.{problem}")
    if " matching regex " in problem:
        return f"{key}: expected an absolute path"
    problem = problem.replace("`int | str`", "`int`")
    problem = re.sub(r"`(\w+)`", lambda it: _TOML_NAMES.get(it[1], it[1]), problem)
    return f"{key}: {problem[:1].lower()}{problem[1:]}"


def _choices(hint: Any) -> list[str]:
    """Return the values that a key of type ``hint``, a literal or a union with one, may have."""
    if get_origin(hint) is Literal:
        return [repr(value) for value in get_args(hint)]
    return [it for each in get_args(hint) for it in (_choices(each) or ["an integer"])]
