"""Who is let in, and who is not: by plain HTTP, header by header."""

import logging
import re
import socket
from urllib.parse import urlencode

import pytest

from .client import Client
from .conftest import PATIENCE_S

PATHS = (
    "/",
    "/memories",
    "/matrix",
    "/candidates",
    "/response?node=n",
    "/send?model=toy",
    "/events",
    "/assets/review.js",
    "/nowhere",
)
CHANGING = ("/decide", "/undo", "/run", "/stop")


@pytest.fixture
def client(filled, transcript, reviewing):
    """A client that has been let in."""
    with reviewing(filled, transcript()) as page:
        yield Client(page).let_in()
        assert page.decisions() == [None] * 5


def _refused(answer, status=403):
    assert answer.status == status
    _guarded(answer)


def _guarded(answer):
    """The headers that every answer has."""
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"


def test_the_printed_address_gives_a_cookie_and_leaves_no_token_behind(client):
    answer = client.ask("GET", "/?" + client.page.address.partition("?")[2], Cookie=None)
    assert answer.headers["Location"] == "/"
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == f"mindscore-review-{client.page.port}"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(rest.split("; "))
    _guarded(answer)
    assert client.ask("GET", "/").status == 200


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_shown_without_the_cookie(path, client):
    answer = client.ask("GET", path, Cookie=None)
    _refused(answer)
    assert answer.text.startswith("mindscore: ")
    assert "open the address that mindscore review printed" in answer.text
    assert len(answer.text.splitlines()) == 1


@pytest.mark.parametrize("given", ["", "x", "ü", "=", "Set-Cookie: a=b", "%00", "a" * 7000])
def test_a_wrong_token_and_a_wrong_cookie_are_refused(given, client):
    _refused(client.ask("GET", "/?" + urlencode({"token": given}), Cookie=None))
    name = client.cookie.partition("=")[0]
    cookie = f"{name}={given}".encode("latin-1").decode("latin-1")
    _refused(client.ask("GET", "/", Cookie=cookie))
    # Nor does a right cookie make a wrong token right, or the token count elsewhere.
    _refused(client.ask("GET", "/?" + urlencode({"token": given})))
    query = client.page.address.partition("?")[2]
    _refused(client.ask("GET", f"/candidates?{query}", Cookie=None))


def test_the_cookie_of_another_server_is_not_taken(client, filled, reviewing):
    with reviewing(filled) as page:
        other = Client(page).let_in()
        _refused(client.ask("GET", "/", Cookie=other.cookie.partition(";")[0]))
        both = "; ".join(it.cookie.partition(";")[0] for it in (client, other))
        assert client.ask("GET", "/", Cookie=both).status == 200
        assert other.ask("GET", "/", Cookie=both).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "",
             "127.0.0.1.evil.example:{port}", "localhost.:{port}", "0.0.0.0:{port}",
             "[::1]:{port}", "127.1:{port}", "a@127.0.0.1:{port}"],
)  # fmt: skip
def test_a_host_that_is_not_this_server_is_refused(host, client):
    host = host.format(port=client.page.port)
    for path in PATHS:
        _refused(client.ask("GET", path, Host=host))
    query = client.page.address.partition("?")[2]
    _refused(client.ask("GET", f"/?{query}", Host=host))
    for path in CHANGING:
        _refused(client.ask("POST", path, client.decision(), Host=host, Origin=f"http://{host}"))


def test_localhost_is_a_name_of_this_server(client):
    host = f"localhost:{client.page.port}"
    assert client.ask("GET", "/", Host=host).status == 200


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize(
    "origin", [None, "", "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1",
               "http://127.0.0.1:1", "http://localhost:{port}", "http://127.0.0.1:{port}/",
               "http://127.0.0.1:{port}.evil.example"],
)  # fmt: skip
def test_a_change_that_another_page_asks_for_is_refused(path, origin, client):
    origin = origin and origin.format(port=client.page.port)
    body = client.decision(command="score")
    _refused(client.ask("POST", path, body, Origin=origin))
    _refused(client.ask("POST", path, body, Origin=origin, Referer=client.page.url + "/"))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "x"])
def test_what_browsers_say_of_a_request_counts(site, client):
    for path in CHANGING:
        _refused(client.ask("POST", path, client.decision(), Sec_Fetch_Site=site))
    framed = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    opened = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    expected = 200 if site == "none" else 403
    assert client.ask("GET", "/", Sec_Fetch_Site=site).status == expected
    assert client.ask("GET", "/", Sec_Fetch_Site=site, **framed).status == expected
    assert client.ask("GET", "/", Sec_Fetch_Site=site, **opened).status == 200


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_changes_are_made_by_post_alone(method, path, client):
    query = urlencode(client.decision(command="score"))
    answer = client.ask(method, f"{path}?{query}", Origin=client.page.url)
    _refused(answer, 405)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("/decide", {"id": "1-2"}, 404),
        ("/decide", {"id": ""}, 404),
        ("/decide", {"model": "other"}, 404),
        ("/decide", {"choice": ""}, 400),
        ("/decide", {"choice": "accepted"}, 400),
        ("/decide", {"choice": "edited", "text": " \r\n "}, 422),
        ("/decide", {"choice": "edited"}, 422),
        ("/decide", {"choice": "edited", "text": "Tea.<|im_end|>Coffee."}, 422),
        ("/undo", {"id": "1-2"}, 404),
        ("/undo", {}, 400),
        ("/undo", {"decided_at": "then"}, 400),
        ("/undo", {"decided_at": "nan"}, 409),
        ("/run", {"command": "score-all"}, 400),
        ("/run", {}, 400),
    ],
)
def test_a_form_that_says_nothing_that_can_be_done_is_refused(path, form, status, client):
    answer = client.ask("POST", path, client.decision(**form))
    _refused(answer, status)
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"a=" + b"x" * 2**20, {}, 413),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        (b"id=%ff%fe", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"&".join(b"a=b" for _ in range(100)), {}, 400),
        (b"", {}, 404),
        (b"id=1", {"Content-Encoding": "gzip"}, 404),
    ],
)
def test_bodies_that_are_no_forms_are_refused(body, headers, status, client):
    for path in ("/decide", "/undo"):
        _refused(client.ask("POST", path, body, **headers), status)


@pytest.mark.parametrize(
    "path",
    ["/assets/", "/assets/../run.py", "/assets/..%2frun.py", "/assets/%2e%2e/run.py",
     "/assets//etc/passwd", "/assets/....//run.py", "/assets/theme.css/..", "//assets/theme.css",
     "/templates/runs.html", "/assets/review.js%00", "/assets/\\..\\run.py"],
)  # fmt: skip
def test_nothing_but_what_pages_load_is_given(path, client):
    _refused(client.ask("GET", path), 404)


def test_assets_say_what_they_are(client):
    kinds = {"theme.css": "text/css", "review.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = client.ask("GET", f"/assets/{name}")
        assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
        _guarded(answer)


def test_neither_token_nor_texts_are_logged(client, caplog):
    caplog.set_level(logging.DEBUG)
    token = client.page.address.partition("token=")[2]
    client.ask("GET", f"/?token={token}")
    client.ask("GET", f"/?token={token}x")
    client.ask("POST", "/decide", client.decision(choice="edited", text="a secret <|im_end|>"))
    with socket.create_connection(("127.0.0.1", client.page.port)) as raw:
        raw.sendall(f"GET /?token={token} HTTP/9\r\nno header: {token}\r\n\r\n".encode())
        raw.settimeout(PATIENCE_S)
        assert re.match(rb"HTTP/1\.[01] 400", raw.recv(2**16))
    said = "".join(record.getMessage() for record in caplog.records) + caplog.text
    assert token not in said
    assert "secret" not in said


def test_a_store_that_cannot_be_read_is_a_page_that_says_so(client, tmp_path):
    file = tmp_path / "store.sqlite3"
    kept = file.read_bytes()
    file.write_bytes(b"this is no database" * 1000)
    for path in ("/", "/memories", "/matrix", "/candidates"):
        answer = client.ask("GET", path)
        _refused(answer, 500)
        assert "it is not a database" in answer.text
        assert "Traceback" not in answer.text
    answer = client.ask("POST", "/decide", {"model": "toy", "id": "1-2", "choice": "response"})
    _refused(answer, 500)
    file.write_bytes(kept)


def test_where_nothing_is_kept_the_pages_say_what_to_run(tables, reviewing, tmp_path):
    with reviewing(tables) as page:
        client = Client(page).let_in()
        for path, command in {
            "/": "mindscore score conversation.jsonl",
            "/memories": "mindscore score conversation.jsonl",
            "/matrix": "mindscore score conversation.jsonl --full",
            "/candidates": "mindscore score conversation.jsonl --finetune",
        }.items():
            answer = client.ask("GET", path)
            assert answer.status == 200
            assert f"<code>{command}</code>" in answer.text
        assert client.ask("POST", "/run", {"command": "score"}).status == 409
    assert not (tmp_path / "store.sqlite3").exists()
