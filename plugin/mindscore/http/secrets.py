"""Keep an API key from being shown or sent in the clear."""

from __future__ import annotations

import html
import ipaddress
import re


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine and reached from nowhere else."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


HIDDEN = "[key]"

# What an escape may look like that was cut off.
_CUT_ESCAPE = re.compile(r"(?:%[0-9a-fA-F]?|\\+(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?)?|&#?\w*)\Z")


class Redactor:
    """Takes the key out of texts, however a server that repeats it has written it.

    Each of its characters may stand as itself, or be escaped as in JSON, Python, HTML or an
    address, and escaped again.
    """

    def __init__(self, key: str | None) -> None:
        self._characters = [_written(character) for character in key or ""]
        self._whole = re.compile("".join(self._characters)) if key else None

    def __call__(self, text: str, *, is_cut: bool) -> str:
        """``text`` without the key, nor, where its end was cut off, the beginning of the key."""
        if self._whole is None:
            return text
        text = self._whole.sub(HIDDEN, text)
        return self._without_beginning(text) if is_cut else text

    def _without_beginning(self, text: str) -> str:
        text = _CUT_ESCAPE.sub("", text)
        for length in range(len(self._characters) - 1, 0, -1):
            beginning = re.compile("".join(self._characters[:length]) + r"\\*\Z")
            if found := beginning.search(text):
                return text[: found.start()]
        return text


def _written(character: str) -> str:
    """A pattern for all that ``character`` may be written as."""
    code = ord(character)
    hexadecimal = f"(?i:{code:02x})"
    forms = [
        re.escape(character),
        # A percent sign may be escaped itself.
        rf"%(?:25)*{hexadecimal}",
        rf"\\+u00{hexadecimal}",
        rf"\\+x{hexadecimal}",
        rf"&(?:amp;)*#0*{code};",
        rf"&(?:amp;)*#[xX]0*{hexadecimal};",
    ]
    if (named := html.escape(character)) != character:
        forms.append(re.escape(named))
    if character == " ":
        forms.append(r"\+")
    # A backslash before a character, or several, as JSON and Python write some.
    return rf"\\*(?:{'|'.join(forms)})"
