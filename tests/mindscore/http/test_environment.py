"""The environment's proxies and certificates, with real sockets, a real proxy and real TLS."""

import asyncio
import base64
import logging
import shutil
import ssl
import subprocess
from contextlib import aclosing, asynccontextmanager, suppress
from types import SimpleNamespace

import msgspec
import pytest

from mindhooks import ScorerError
from mindscore._util.errors import ConfigError
from mindscore.config.settings import ServerSettings
from mindscore.http.client import StatusError, UnavailableError, UntrustedError, WireClient
from mindscore.http.environment import proxy_for

KEY = "sk-very-secret"
PASSWORD = "p@ss:word/hidden"
LOGIN = "ines:p%40ss%3Aword%2Fhidden@"
BASIC = "Basic " + base64.b64encode(f"ines:{PASSWORD}".encode()).decode()
HOST = "model.example"


class Answer(msgspec.Struct):
    x: int


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


def client(base_url, **settings):
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 1, **settings}
    return aclosing(WireClient(ServerSettings(base_url=base_url, **limits)))


async def asked(base_url, **settings):
    async with client(base_url, **settings) as it:
        return (await it.post("/ask", {"q": 1}, Answer)).x


async def failure(kind, base_url, **settings):
    with pytest.raises(kind) as caught:
        await asked(base_url, **settings)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert not any(it in text for it in (KEY, PASSWORD, "hidden", BASIC.split()[1]))
    return text


# -- servers --------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(answer, context=None):
    """A server on 127.0.0.1 that ``answer(head, reader, writer)`` answers; it keeps the heads."""
    seen = SimpleNamespace(heads=[], tasks=set())

    async def serve(reader, writer):
        seen.tasks.add(asyncio.current_task())
        # Cancelled at the test's end, while a client keeps its connection.
        with suppress(ConnectionError, asyncio.CancelledError):
            while head := await _head(reader):
                seen.heads.append(head)
                if not await answer(head, reader, writer):
                    break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        seen.port = server.sockets[0].getsockname()[1]
        yield seen
        for task in seen.tasks:
            task.cancel()
        await asyncio.gather(*seen.tasks, return_exceptions=True)


async def _head(reader):
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return ""


async def model(head, reader, writer):
    """Answer as a model server does."""
    length = next(
        int(it.split(":")[1]) for it in head.splitlines() if it.lower().startswith("content-length")
    )
    await reader.readexactly(length)
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"x":7}')
    await writer.drain()
    return True


def tunnel(port):
    """Answer as a proxy does that connects to ``port``, whatever the host is called."""

    async def answer(head, reader, writer):
        if not head.startswith("CONNECT "):
            return await model(head, reader, writer)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            back.close()
        return False

    return answer


async def _copy(reader, writer):
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


def saying(status, more=""):
    """Answer ``status``, and repeat what was sent."""

    async def answer(head, reader, writer):
        body = f"you sent {head}{more}".encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return False

    return answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority, another one, and a server's certificate that the former has signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("authority")

    def run(*arguments):
        done = subprocess.run(
            [openssl, *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other"):
        extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
        added = [it for each in extensions for it in ("-addext", each)]
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        run("req", "-x509", *new, *files, "-days", "2", "-subj", f"/CN={name}", *added)
    run("req", *new, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", f"/CN={HOST}")
    (folder / "leaf.ext").write_text(
        f"subjectAltName=DNS:{HOST},IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
    )
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "leaf.ext")
    run("x509", "-req", "-in", "leaf.csr", *signed, "-days", "2", "-out", "leaf.pem")
    hashed = folder / "hashed"
    hashed.mkdir()
    (hashed / f"{run('x509', '-in', 'ca.pem', '-noout', '-hash')}.0").symlink_to(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    return SimpleNamespace(
        file=folder / "ca.pem", other=folder / "other.pem", folder=hashed, context=context
    )


# -- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "http://127.0.0.1:{}/"])
async def test_http_goes_through_the_proxy_that_the_environment_names(name, form, monkeypatch):
    async with listening(model) as proxy:
        monkeypatch.setenv(name, form.format(proxy.port))
        assert await asked(f"http://{HOST}:8000/v1") == 7
    [head] = proxy.heads
    assert head.startswith(f"POST http://{HOST}:8000/v1/ask HTTP/1.1\r\n")
    assert "proxy-authorization" not in head.lower()


@pytest.mark.parametrize(("login", "expected"), [(LOGIN, BASIC), ("", None)])
async def test_https_goes_through_a_tunnel_in_which_the_proxy_sees_nothing(
    login, expected, monkeypatch, authority
):
    monkeypatch.setenv("MINDSCORE_API_KEY", KEY)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with listening(model, authority.context) as server, listening(tunnel(server.port)) as it:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{login}127.0.0.1:{it.port}")
        assert await asked(f"https://{HOST}") == 7
    [connect], [request] = it.heads, server.heads
    assert connect.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    given = [it for it in connect.splitlines() if "authorization" in it.lower()]
    assert given == ([f"Proxy-Authorization: {expected}"] if expected else [])
    assert KEY not in connect
    assert f"Authorization: Bearer {KEY}" in request
    assert "proxy-authorization" not in request.lower()


async def test_the_proxy_is_sent_the_user_and_password_of_its_address(monkeypatch):
    async with listening(model) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{LOGIN}127.0.0.1:{proxy.port}")
        assert await asked(f"http://{HOST}") == 7
    [head] = proxy.heads
    assert f"Proxy-Authorization: {BASIC}" in head
    assert "ines" not in head


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.1", "LOCALHOST."])
async def test_this_machine_is_never_asked_through_a_proxy(host, monkeypatch):
    async with listening(model) as server, listening(saying("418 No")) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert proxy_for(f"https://{host}:{server.port}") is None
        assert proxy_for("http://[::1]:80") is None
        # The server listens on one address, and not every system knows all names of it.
        if not host.endswith(("9.1", ".")):
            assert await asked(f"http://{host}:{server.port}") == 7
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("exempt", "is_exempt"),
    [
        (HOST, True),
        (".example", True),
        ("example", True),
        ("*", True),
        (f"a.b, {HOST}:8000", True),
        (f"{HOST}:9000", False),
        ("del.example", False),
        ("", False),
    ],
)
def test_no_proxy_names_hosts_that_are_asked_without_one(exempt, is_exempt, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert (proxy_for(f"http://{HOST}:8000/v1") is None) == is_exempt


def test_the_proxy_of_a_scheme_is_for_that_scheme_alone(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://[fd00::1]:3128")
    assert proxy_for(f"http://{HOST}") is None
    assert proxy_for(f"https://{HOST}").url == "http://[fd00::1]:3128"
    assert proxy_for(f"https://{HOST}").headers == {}


@pytest.mark.parametrize("given", ["socks5://{}proxy:1080", "http://{}proxy:port", "http://", ":"])
def test_a_proxy_of_another_kind_is_an_error_that_holds_no_password(given, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", given.format(LOGIN))
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY: .*http://.*NO_PROXY") as caught:
        WireClient(ServerSettings(base_url=f"https://{HOST}"))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_is_an_error_that_names_it_and_no_password(
    scheme, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    variable = f"{scheme.upper()}_PROXY"
    more = f" {PASSWORD} {BASIC} {LOGIN}"
    async with listening(saying(f"407 Not you, {BASIC}", more)) as proxy:
        monkeypatch.setenv(variable, f"http://{LOGIN}127.0.0.1:{proxy.port}")
        kind = UntrustedError if scheme == "https" else StatusError
        text = await failure(kind, f"{scheme}://{HOST}")
    assert "HTTP 407" in text
    assert f"password in {variable} right?" in text
    assert not any("hidden" in it.getMessage() for it in caplog.records)


@pytest.mark.parametrize("status", ["503 Busy", "429 Slowly"])
async def test_a_proxy_that_is_busy_may_be_asked_again(status, monkeypatch):
    async with listening(saying(status)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UnavailableError, match=f"proxy .* HTTP {status[:3]}") as caught:
            await asked(f"https://{HOST}")
    assert not caught.value.arrived


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_down_is_an_error_that_names_it(scheme, monkeypatch):
    async with listening(model) as gone:
        pass
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{LOGIN}127.0.0.1:{gone.port}")
    text = await failure(UnavailableError, f"{scheme}://{HOST}")
    assert f"cannot connect to the proxy http://127.0.0.1:{gone.port} (" in text
    assert f"is {scheme.upper()}_PROXY right?" in text


async def test_passwords_of_a_netrc_file_are_not_sent(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text(f"default login ines password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with listening(model) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert await asked(f"http://{HOST}") == 7
    assert "authorization" not in proxy.heads[0].lower()


# -- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_either_variable_names_the_certificates_to_trust(name, monkeypatch, authority):
    async with listening(model, authority.context) as server:
        url = f"https://127.0.0.1:{server.port}"
        text = await failure(UntrustedError, url)
        assert "SSL_CERT_FILE or REQUESTS_CA_BUNDLE" in text
        monkeypatch.setenv(name, str(authority.other))
        await failure(UntrustedError, url)
        monkeypatch.setenv(name, str(authority.file))
        assert await asked(url) == 7
    assert len(server.heads) == 1


async def test_both_variables_are_heeded_where_both_are_set(monkeypatch, authority):
    async with listening(model, authority.context) as server:
        for one, other in ((authority.file, authority.other), (authority.other, authority.file)):
            monkeypatch.setenv("SSL_CERT_FILE", str(one))
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
            assert await asked(f"https://127.0.0.1:{server.port}") == 7


async def test_a_bundle_may_be_a_folder(monkeypatch, authority):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.folder))
    async with listening(model, authority.context) as server:
        assert await asked(f"https://127.0.0.1:{server.port}") == 7


async def test_a_certificate_of_another_host_is_not_trusted(monkeypatch, authority):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with listening(model, authority.context) as server:
        await failure(UntrustedError, f"https://localhost:{server.port}")
    assert server.heads == []


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_without_certificates_is_an_error_that_names_it(name, text, monkeypatch, tmp_path):
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv(name, str(file))
    with pytest.raises(ConfigError, match=f"^{name}: no certificates in {file}: "):
        WireClient(ServerSettings(base_url="https://127.0.0.1"))
    # It is of no matter where there is no TLS.
    WireClient(ServerSettings(base_url="http://127.0.0.1"))


async def test_the_scorers_find_the_model_server_behind_the_proxy(monkeypatch):
    from mindhooks import load_scorer

    async with listening(saying("418 No")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        for name in ("score", "vllm", "sglang", "openai", "auto"):
            table = {"scorer": name, "base_url": f"http://{HOST}", "max_attempts": 1}
            scorer = await load_scorer(table)
            with pytest.raises(ScorerError, match="HTTP 418"):
                await scorer.tokenize("text")
            await scorer.aclose()
    assert all(f"//{HOST}/" in head for head in proxy.heads)
