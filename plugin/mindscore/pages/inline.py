"""What stands in a page itself: its scripts and styles, and the policy that allows no others."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files


def asset(name: str, package: str = "mindscore.pages") -> str:
    """The text of a file in ``assets`` of ``package``."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def csp(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The Content-Security-Policy of a page that has these inline and loads nothing.

    Each is what stands between an element's tags, to the letter.
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
