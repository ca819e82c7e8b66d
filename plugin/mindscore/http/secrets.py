"""Keep an API key from being shown or sent in the clear."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from urllib.parse import quote, quote_plus


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``, a name or an address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


HIDDEN = "[key]"


class Redactor:
    """Takes the API key out of texts, plain or as JSON, URLs and base64 write it."""

    def __init__(self, key: str | None) -> None:
        self._forms = _forms(key) if key else []
        self._pattern = re.compile("|".join(map(re.escape, self._forms)), re.IGNORECASE)

    def __call__(self, text: str, *, is_cut: bool) -> str:
        """Return ``text`` without the key, nor its beginning at the end of a text cut off."""
        if not self._forms:
            return text
        text = self._pattern.sub(HIDDEN, text)
        return self._without_beginning(text) if is_cut else text

    def _without_beginning(self, text: str) -> str:
        lowered = text.lower()
        beginnings = (form[:length].lower() for form in self._forms for length in range(len(form)))
        cut = max(len(it) for it in beginnings if lowered.endswith(it))
        return text[: len(text) - cut]


def _forms(key: str) -> list[str]:
    """Return what the key may be written as, the longest first."""
    encoded = base64.b64encode(key.encode()).decode().rstrip("=")
    escaped = {json.dumps(key)[1:-1], json.dumps(key).replace("/", r"\/")[1:-1]}
    in_urls = {quote(key), quote(key, safe=""), quote_plus(key)}
    return sorted({key, encoded, *escaped, *in_urls}, key=len, reverse=True)
