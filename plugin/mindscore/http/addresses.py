"""Addresses of model servers: which are valid, and which only this machine can reach."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from mindscore._util.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``, a name or an address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def checked_address(base_url: str) -> str:
    """Return ``base_url`` without a slash at its end.

    Raises:
        ConfigError: it is not the address of a server.
    """
    if "@" in base_url:
        raise ConfigError(
            "server.base_url: expected an address without user and password; "
            "a key comes from server.api_key_env or server.api_key_file"
        )
    try:
        parts = urlsplit(base_url)
        is_address = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:
        is_address = False
    if not is_address or not base_url.isprintable():
        raise ConfigError(
            f"server.base_url: expected the server's http:// or https:// address, got {base_url!r}"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            "server.base_url: expected an address without query or fragment; "
            "a key comes from server.api_key_env or server.api_key_file"
        )
    return base_url.rstrip("/")


def require_privacy(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"server.base_url: {base_url} is plain http, over which anybody on the way reads the "
            "API key: use https, or set server.allow_insecure = true, or set no key"
        )
