"""The proxies and the certificates that the environment names."""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mindscore._util.errors import ConfigError
from mindscore.http.addresses import is_loopback


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: the variable that names it, and its address without user and password."""

    variable: str
    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """The headers that it is sent: user and password, if there are any."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that must not be shown."""


def proxy_for(base_url: str) -> Proxy | None:
    """Return the proxy for the server at ``base_url``; never any for this machine's loopback.

    It is ``HTTP_PROXY`` or ``HTTPS_PROXY``, by the address's scheme, unless ``NO_PROXY`` names the
    host; where the environment has none, some systems have settings of their own.

    Raises:
        ConfigError: it is of a kind that is not supported.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    given = getproxies().get(parts.scheme)
    if not given or proxy_bypass(parts.netloc) or proxy_bypass(host):
        return None
    variable = f"{parts.scheme.upper()}_PROXY"
    try:
        address = urlsplit(given if "://" in given else f"http://{given}")
        is_proxy = bool(address.scheme in ("http", "https") and address.hostname)
        port = address.port
    except ValueError:
        is_proxy = False
    if not is_proxy:
        # Not repeated: it may hold a password.
        raise ConfigError(
            f"{variable}: expected the address of an http:// or https:// proxy; to reach "
            f"{host} without one, name it in NO_PROXY"
        )
    name = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname
    url = f"{address.scheme}://{name}" + (f":{port}" if port else "")
    if address.username is None and address.password is None:
        return Proxy(variable, url)
    user, password = unquote(address.username or ""), unquote(address.password or "")
    both = f"{user}:{password}"
    encoded = base64.b64encode(both.encode()).decode()
    secrets = (both, *([password] if password else []))
    return Proxy(variable, url, {"Proxy-Authorization": f"Basic {encoded}"}, secrets)


def tls_context() -> ssl.SSLContext:
    """Return a context that trusts the system's certificates, or those of ``SSL_CERT_FILE``.

    Where ``REQUESTS_CA_BUNDLE`` is set, that is trusted in place of the system's, as by requests.

    Raises:
        ConfigError: a file that is named so has no certificates, or cannot be read.
    """
    bundle, file = os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("SSL_CERT_FILE")
    named = {"REQUESTS_CA_BUNDLE": bundle, "SSL_CERT_FILE": file}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file or not bundle:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    for variable, path in named.items():
        if not path:
            continue
        try:
            is_folder = Path(path).is_dir()
            context.load_verify_locations(**{"capath" if is_folder else "cafile": path})
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(f"{variable}: no certificates in {path}: {why}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context
