"""Keeping the API key out of what is told."""

from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus

HIDDEN = "[key]"


class Redactor:
    """Takes the key out of texts, however a server that repeats it has written it."""

    def __init__(self, key: str | None) -> None:
        # A form may be part of a longer one.
        self._forms = sorted(_forms(key), key=len, reverse=True) if key else []

    def __call__(self, text: str, *, is_cut: bool) -> str:
        """``text`` without the key, nor, where its end was cut off, the beginning of the key."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        if is_cut and self._forms:
            return text[: -len(self._forms[0])]
        return text


def _forms(key: str) -> set[str]:
    in_json = json.dumps(key)[1:-1]
    in_python = key.replace("\\", "\\\\")
    return {
        key,
        in_json,
        in_json.replace("/", "\\/"),
        in_python,
        in_python.replace("'", "\\'"),
        html.escape(key),
        quote(key, safe=""),
        quote_plus(key),
    }
