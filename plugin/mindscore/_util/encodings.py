"""Read bytes as JSON programs write them: compressed, in UTF-16, with what strict JSON lacks."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"

MAX_DECOMPRESSED = 2 << 30
"""Most bytes that a compressed file may hold."""

_PIECE_BYTES = 1 << 20

ENCODINGS = {
    # Before UTF-16, which begins alike.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings other than UTF-8 by their byte order marks."""

_SURROGATES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\xed[\xa0-\xbf][\x80-\xbf])"
    rb"|\\."
)
"""Escapes of JSON: pairs of surrogates, lone ones, and any other, which may be a backslash's."""

_ZSTD_MODULES = ("compression.zstd", "backports.zstd")
"""Modules that read zstd: the standard library's, of Python 3.14, and its backport."""


def is_compressed(content: bytes) -> bool:
    """Return true if ``content`` begins as gzip or zstd does."""
    return content.startswith((GZIP, ZSTD))


def to_utf8(content: bytes) -> bytes:
    """Return ``content`` as UTF-8 without a byte order mark, decompressed if it is compressed.

    Raises:
        ValueError: it cannot be decompressed or decoded; the text says why.
    """
    if is_compressed(content):
        content = _decompressed(content)
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            try:
                text = content.decode(encoding, "surrogatepass")
            except UnicodeDecodeError:
                raise ValueError(f"is not valid {encoding.upper()}") from None
            return text.encode("utf-8", "surrogatepass")
    return content.removeprefix(codecs.BOM_UTF8)


def _decompressed(content: bytes) -> bytes:
    kind = "gzip" if content.startswith(GZIP) else "zstd"
    # Counted before it is kept: a file that never ends takes no memory.
    size = 0
    try:
        for piece in _pieces(content):
            size += len(piece)
            if size > MAX_DECOMPRESSED:
                raise ValueError(
                    f"holds more than {MAX_DECOMPRESSED / (1 << 30):,.3g} GiB once decompressed: "
                    "split it, or decompress it yourself"
                )
        return b"".join(_pieces(content))
    except EOFError:
        raise ValueError(f"is cut off: its {kind} data has no end") from None
    except ValueError:
        raise
    # Each kind has errors of its own: OSError, zlib.error, ZstdError.
    except Exception as error:
        raise ValueError(f"is damaged {kind}: {error}") from None


def _pieces(content: bytes) -> Iterator[bytes]:
    packed = io.BytesIO(content)
    with gzip.GzipFile(fileobj=packed) if content.startswith(GZIP) else _zstd(packed) as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def _zstd(packed: io.BytesIO) -> Any:
    for name in _ZSTD_MODULES:
        with suppress(ImportError):
            return import_module(name).ZstdFile(packed)
    raise ValueError(
        "is compressed with zstd: pip install 'mindscore[zstd]' to read it, or decompress it"
    )


def without_lone_surrogates(raw: bytes) -> tuple[bytes, int]:
    """Return JSON with U+FFFD for each lone half of a surrogate pair, and their number."""
    found = 0

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal found
        if match["lone"] is None:
            return match[0]
        found += 1
        return b"\\ufffd"

    return _SURROGATES.sub(replace, raw), found


def loads_leniently(raw: bytes) -> Any:
    """Return a JSON value that may hold ``NaN``, ``Infinity`` and numbers out of range.

    Raises:
        ValueError: it is no JSON even so.
    """
    return json.loads(raw.decode())
