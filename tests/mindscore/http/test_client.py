"""JSON over HTTP: attempts, pauses, limits, and what an operator is told (section 5)."""

import asyncio
import email.utils
import socket
import ssl
import time
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from mindhooks import MindhooksError, ScorerError
from mindscore._util.errors import ConfigError
from mindscore.config.settings import ServerSettings
from mindscore.http.client import StatusError, UnavailableError, WireClient
from mindscore.measure.retry import with_retries

from ..imitations import Together

SECRET = "sk-very-secret"
REPEATS = f"Incorrect API key provided: {SECRET}"
PASSING = [408, 425, 429, 500, 501, 502, 503, 504, 599]
LASTING = [400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451]

# Self-signed, for localhost, to the year 2126.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtx6VBqmnWFPbi7Nd
aFxVXeGaqYreQbMZ6z3x1A3aKlKhRANCAAR/4XVrz2X+btngFeb2GK9Mhd2wLSG+
tRXcL6Bj+QFZIUzpEG+qljJNzMy7KxrSSDDUzMKPTLRnheV78FQvourH
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUGTjHbMP8uokzq3pEBn7zjtX24+EwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzAxMzIzMFoYDzIxMjYxMDMw
MDEzMjMwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR/4XVrz2X+btngFeb2GK9Mhd2wLSG+tRXcL6Bj+QFZIUzpEG+qljJN
zMy7KxrSSDDUzMKPTLRnheV78FQvourHo1MwUTAdBgNVHQ4EFgQU0xF6dOkG6MlI
4wvVabPo5AneOIowHwYDVR0jBBgwFoAU0xF6dOkG6MlI4wvVabPo5AneOIowDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBmdX0bJBELPkoz3SX9izgA
nNUOkjYolUs7y9dgARQRjAIhANcBEJpn7CaImVpamq3naG8pspasCNJbBdzTb/Q/
ddVr
-----END CERTIFICATE-----
"""


class Answer(msgspec.Struct):
    x: int


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)


@pytest.fixture
def client(score_server):
    """Makes a client of the scripted server: ``async with client(max_attempts=2) as it``."""

    def make(base_url=score_server.url, **settings):
        limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 4, **settings}
        return aclosing(WireClient(ServerSettings(base_url=base_url, **limits)))

    return make


@pytest.fixture
def post(client):
    """Posts as the flows do, or, without ``repeat``, as a sink does; what was answered."""

    async def post(body=None, *, repeat=True, **settings):
        async with client(**settings) as it:
            return await persistently(
                lambda: it.post("/ask", body or {}, Answer),
                repeat,
                {"base_url": it.base_url, **settings},
            )

    return post


@pytest.fixture
def refused(post, score_server):
    """Posts once; the text of the error: one line that names the address and holds no key."""

    async def refused(**options):
        with pytest.raises(ScorerError) as caught:
            await post(**options)
        text = str(caught.value)
        assert len(text.splitlines()) == 1
        assert text.startswith(options.get("base_url", score_server.url))
        assert len(text) < 1000
        assert SECRET not in text
        return text

    return refused


@pytest.fixture
def nobody():
    """A socket whose port refuses connections until something listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


async def persistently(call, repeat=True, settings=None):
    """Makes the call as often as the settings allow, and, without ``repeat``, its arrival does."""
    limits = {"deadline_s": 20, "max_attempts": 4, **(settings or {})}
    return await with_retries(
        call, ServerSettings(**limits), lambda error: repeat or not error.arrived
    )


def address(server):
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@asynccontextmanager
async def listening(sock):
    """An HTTP server behind ``sock``; the headers of the requests that arrived."""
    arrived = []

    async def answer(reader, writer):
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
        writer.write(head + b'{"x":1}')
        # Closed before the client's body has been read, the answer might not reach it.
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, sock=sock.dup()):
        yield arrived


async def reset(request):
    """The connection ends instead of an answer."""
    request.transport.abort()
    return web.Response()


async def reset_mid_body(request):
    """The connection ends within the answer."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"x":')
    request.transport.abort()
    return response


# What is sent.


async def test_a_post_carries_json_and_the_key(post, score_server):
    score_server.script({"x": 1})

    answer = await post({"a": [1, 2], "b": "é"})

    assert answer == Answer(1)
    [seen] = score_server.requests
    assert (seen.method, seen.path) == ("POST", "/ask")
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Authorization"] == f"Bearer {SECRET}"
    assert seen.body == {"a": [1, 2], "b": "é"}


async def test_without_a_key_there_is_no_authorization_header(post, score_server, monkeypatch):
    monkeypatch.delenv("MINDSCORE_API_KEY")
    score_server.script({"x": 1})

    await post()

    assert "Authorization" not in score_server.requests[0].headers


async def test_the_key_in_the_file_is_the_one_that_is_sent(post, score_server, tmp_path):
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text("from-the-file\n")
    score_server.script({"x": 1})

    await post(api_key_file=str(file))

    assert score_server.requests[0].headers["Authorization"] == "Bearer from-the-file"


@pytest.mark.parametrize("base_path", ["", "/", "/v1", "/v1/", "/v1//"])
async def test_the_path_goes_behind_the_base_url(base_path, client, score_server):
    score_server.script({"x": 1})

    async with client(base_url=score_server.url + base_path) as it:
        await it.post("/ask", {}, Answer)

    assert score_server.paths == [f"{base_path.rstrip('/')}/ask"]


@pytest.mark.parametrize("base_url", ["", "localhost:8000", "ftp://host", "/v1", "file:///etc"])
async def test_a_base_url_that_is_no_http_address_is_an_error_that_names_the_key(base_url):
    with pytest.raises(MindhooksError) as caught:
        WireClient(ServerSettings(base_url=base_url))

    text = str(caught.value)
    assert "server.base_url" in text
    assert "http://" in text
    assert repr(base_url) in text


async def test_a_key_that_no_header_can_carry_is_an_error_before_anything_is_sent(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", f"{SECRET}\nX-Evil: 1")

    with pytest.raises(MindhooksError) as caught:
        WireClient(ServerSettings(base_url="http://127.0.0.1:1"))

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:99999", "http://[::1", "http://user@"])
def test_an_address_that_cannot_be_one_is_an_error_before_anything_is_sent(base_url):
    with pytest.raises(ConfigError, match=r"^server\.base_url: expected [^\n]*$"):
        WireClient(ServerSettings(base_url=base_url))


async def test_credentials_in_the_base_url_beside_a_key_are_an_error_that_says_so(
    client, score_server
):
    score_server.always({"x": 1})
    base_url = score_server.url.replace("http://", "http://user:password@")

    with pytest.raises(MindhooksError) as caught:
        async with client(base_url=base_url) as it:
            await it.post("/ask", {}, Answer)

    assert len(str(caught.value).splitlines()) == 1
    assert "server." in str(caught.value)


async def test_a_large_body_arrives_whole(post, score_server):
    ids = list(range(300_000))
    score_server.script({"x": 1})

    await post({"ids": ids})

    assert score_server.requests[0].body == {"ids": ids}


async def test_a_large_answer_arrives_whole(client, score_server):
    values = [index / 7 for index in range(300_000)]
    score_server.script({"values": values})

    class Values(msgspec.Struct):
        values: list[float]

    async with client() as it:
        assert (await it.post("/ask", {}, Values, max_bytes=2**25)).values == values


# Gets.


async def test_a_get_carries_the_key_and_no_body(client, score_server):
    score_server.script({"x": 1})

    async with client(base_url=score_server.url + "/v1/") as it:
        assert await it.get("/ask", Answer) == Answer(1)

    [seen] = score_server.requests
    assert (seen.method, seen.path, seen.body) == ("GET", "/v1/ask", b"")
    assert seen.headers["Authorization"] == f"Bearer {SECRET}"


async def test_a_get_is_tried_again_as_a_post_is(client, score_server):
    again = score_server.reply(b"", 503, {"Retry-After": "0"})
    score_server.script(again, again, {"x": 1})

    async with client() as it:
        assert await persistently(lambda: it.get("/ask", Answer)) == Answer(1)

    assert len(score_server.requests) == 3


@pytest.mark.parametrize("status", PASSING)
async def test_the_client_itself_makes_one_attempt(status, client, score_server):
    score_server.always(score_server.reply(b"", status, {"Retry-After": "7"}))

    async with client() as it:
        with pytest.raises(UnavailableError) as caught:
            await it.post("/ask", {}, Answer)

    assert len(score_server.requests) == 1
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(("status", "kind"), [(404, StatusError), (503, UnavailableError)])
async def test_a_failure_has_the_status_of_the_answer(status, kind, client, score_server):
    score_server.always(score_server.reply({"error": REPEATS}, status, {"Retry-After": "0"}))

    async with client(max_attempts=2) as it:
        with pytest.raises(kind) as caught:
            await it.get("/ask", Answer)

    assert caught.value.status == status
    assert SECRET not in str(caught.value)


async def test_a_failure_without_an_answer_has_no_status(client, nobody):
    async with client(base_url=address(nobody), max_attempts=2) as it:
        with pytest.raises(UnavailableError) as caught:
            await it.get("/ask", Answer)

    assert caught.value.status is None
    assert not caught.value.arrived


@pytest.mark.parametrize("length", [3, 30_000])
async def test_an_answer_may_be_a_list(length, client, score_server):
    score_server.script([{"x": index} for index in range(length)])

    async with client() as it:
        assert await it.get("/ask", list[Answer]) == [Answer(index) for index in range(length)]


@pytest.mark.parametrize("answer", [{"x": "1"}, {"y": 1}, {"error": "the reason"}])
async def test_a_large_answer_that_does_not_fit_is_an_error_too(answer, refused, score_server):
    score_server.always({**answer, "padding": "a" * 2**20})

    text = await refused()

    assert "the reason" in text or "server.scorer" in text


# One session.


async def test_the_connection_is_used_again(client, score_server):
    score_server.always({"x": 1})

    async with client() as it:
        for _ in range(8):
            await it.post("/ask", {}, Answer)

    # Some versions of aiohttp hand a connection back a moment after the answer.
    assert len({seen.peer for seen in score_server.requests}) <= 2


async def test_the_connection_is_used_again_after_a_refusal(client, score_server):
    again = score_server.reply({"error": "busy"}, 503, {"Retry-After": "0"})
    score_server.script(again, {"x": 1}, 400, {"x": 1}, 400)

    async with client() as it:
        for _ in range(2):
            await persistently(lambda: it.post("/ask", {}, Answer))
            with pytest.raises(ScorerError):
                await it.post("/ask", {}, Answer)

    assert len(score_server.requests) == 5
    assert len({seen.peer for seen in score_server.requests}) <= 2


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_as_many_requests_as_the_settings_say_are_under_way(
    concurrency, client, score_server
):
    together = Together(concurrency, {"x": 1})
    score_server.always(together)
    async with client(concurrency=concurrency) as it:
        await asyncio.gather(*(it.post("/ask", {}, Answer) for _ in range(3 * concurrency)))

    assert together.most == concurrency


async def test_a_request_that_failed_makes_room_for_the_next(client, score_server):
    score_server.script(400, {"x": 1})

    async with client(concurrency=1) as it:
        with pytest.raises(ScorerError):
            await it.post("/ask", {}, Answer)
        assert await it.post("/ask", {}, Answer) == Answer(1)


async def test_a_request_that_was_cancelled_makes_room_for_the_next(client, score_server):
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def never(request):
        loop.call_soon_threadsafe(asked.set)
        return await score_server.silent(request)

    score_server.script(never, {"x": 1})
    async with client(concurrency=1) as it:
        task = asyncio.create_task(it.post("/ask", {}, Answer))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await it.post("/ask", {}, Answer) == Answer(1)


async def test_closing_twice_is_fine(client, score_server):
    score_server.script({"x": 1})

    async with client() as it:
        await it.post("/ask", {}, Answer)
        await it.aclose()
        await it.aclose()


async def test_closing_without_having_asked_is_fine(client):
    async with client() as it:
        await it.aclose()


# Failures that may pass.


@pytest.mark.parametrize("status", PASSING)
async def test_a_status_that_may_pass_is_tried_again(status, post, score_server):
    again = score_server.reply(b"", status, {"Retry-After": "0"})
    score_server.script(again, again, {"x": 1})

    assert await post({"a": 1}) == Answer(1)
    assert [seen.body for seen in score_server.requests] == [{"a": 1}] * 3


async def test_a_status_that_may_pass_is_tried_again_without_retry_after_too(post, score_server):
    score_server.script(503, {"x": 1})

    assert await post() == Answer(1)
    assert len(score_server.requests) == 2


@pytest.mark.parametrize("breaks", [reset, reset_mid_body])
async def test_a_connection_that_breaks_is_tried_again(breaks, post, score_server):
    score_server.script(breaks, {"x": 1})

    assert await post({"a": 1}) == Answer(1)
    assert [seen.body for seen in score_server.requests] == [{"a": 1}] * 2


async def test_a_time_out_is_tried_again(post, score_server):
    score_server.script(score_server.silent, {"x": 1})

    assert await post({"a": 1}, timeout_s=1.0) == Answer(1)
    assert [seen.body for seen in score_server.requests] == [{"a": 1}] * 2


async def test_a_connection_that_is_refused_is_tried_again(client, nobody):
    async with client(base_url=address(nobody)) as it:
        call = persistently(lambda: it.post("/ask", {}, Answer), True, {"max_attempts": 50})
        task = asyncio.create_task(call)
        await asyncio.sleep(0.05)
        async with listening(nobody):
            assert await task == Answer(1)


async def test_a_refusal_that_asks_for_a_second_is_not_tried_again_before(post, score_server):
    score_server.script(score_server.reply(b"", 503, {"Retry-After": "1"}), {"x": 1})

    assert await post() == Answer(1)
    first, second = score_server.requests
    # By itself the first pause is half a second at the most.
    assert second.at - first.at > 0.9


@pytest.mark.parametrize(
    "retry_after", ["0", " 0 ", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 -0000"]
)
async def test_retry_after_replaces_the_back_off(retry_after, post, score_server):
    again = score_server.reply(b"", 429, {"Retry-After": retry_after})
    score_server.script(*[again] * 12, {"x": 1})

    # Without it the twelve pauses take two minutes, give or take.
    async with asyncio.timeout(5):
        assert await post(max_attempts=13, deadline_s=500) == Answer(1)


def in_an_hour():
    return email.utils.formatdate(time.time() + 3600, usegmt=True)


BEYOND = [lambda: "3600", in_an_hour, lambda: "9" * 5000, lambda: "Fri, 31 Dec 9999 23:59:59 GMT"]


@pytest.mark.parametrize("retry_after", BEYOND)
async def test_a_retry_after_beyond_the_deadline_is_cut_so_that_there_is_another_attempt(
    retry_after, post, score_server
):
    again = score_server.reply(b"", 503, {"Retry-After": retry_after()})
    score_server.script(again, {"x": 1})

    assert await post(deadline_s=3) == Answer(1)
    first, second = score_server.requests
    assert second.at - first.at > 1


async def test_with_a_retry_after_beyond_the_deadline_a_call_still_ends_at_it(
    refused, score_server
):
    score_server.always(score_server.reply({"error": "busy"}, 503, {"Retry-After": "3600"}))

    async with asyncio.timeout(10):
        text = await refused(deadline_s=1, max_attempts=10**6)

    assert "server.deadline_s" in text
    assert "busy" in text


@pytest.mark.parametrize(
    "retry_after",
    ["", "soon", "-1", "1.5.", "²", "1e400", "nan", "Wed, 99 Foo 2015", "Fri, 31 Dec -001 23:59:59",
     "Mon, 1 Jan 2024 00:00:00 +99999999999999"],
)  # fmt: skip
async def test_a_retry_after_that_cannot_be_read_leaves_the_back_off(
    retry_after, post, score_server
):
    score_server.script(score_server.reply(b"", 503, {"Retry-After": retry_after}), {"x": 1})

    assert await post() == Answer(1)


@pytest.mark.parametrize("most", [1, 3])
async def test_a_call_ends_after_max_attempts(most, refused, score_server):
    score_server.always(score_server.reply({"error": "busy"}, 503, {"Retry-After": "0"}))

    text = await refused(max_attempts=most)

    assert "503" in text
    assert "busy" in text
    assert len(score_server.requests) == most


async def test_a_call_ends_at_the_deadline_however_many_attempts_are_left(refused, score_server):
    score_server.always(score_server.reply(b"", 503, {"Retry-After": "0"}))

    async with asyncio.timeout(5):
        await refused(deadline_s=0.3, max_attempts=10**6)

    assert len(score_server.requests) > 1


async def test_the_deadline_ends_an_attempt_that_is_under_way(refused, score_server):
    score_server.always(score_server.silent)

    async with asyncio.timeout(5):
        text = await refused(timeout_s=60, deadline_s=0.2)

    assert "server.deadline_s" in text
    assert len(score_server.requests) == 1


async def test_waiting_for_a_free_slot_does_not_count_towards_the_time_out(client, score_server):
    async def slow(request):
        await asyncio.sleep(0.7)
        return web.json_response({"x": 1})

    score_server.always(slow)
    async with client(concurrency=1, timeout_s=1.75) as it:
        answers = await asyncio.gather(*(it.post("/ask", {}, Answer) for _ in range(3)))

    assert answers == [Answer(1)] * 3


async def test_a_deadline_that_ends_the_attempts_says_what_they_failed_of(refused, score_server):
    score_server.always(score_server.reply({"error": "the queue is full"}, 503))

    text = await refused(deadline_s=0.3, max_attempts=10**6)

    assert "the queue is full" in text


# Failures that last.


@pytest.mark.parametrize("status", LASTING)
async def test_a_status_that_lasts_fails_at_once(status, refused, score_server):
    score_server.always(
        score_server.reply({"error": "the reason"}, status, headers={"Retry-After": "0"})
    )

    text = await refused()

    assert str(status) in text
    assert "the reason" in text
    assert len(score_server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_without_a_word_still_says_what_to_do(status, refused, score_server):
    score_server.always(status)

    text = await refused()

    # Whatever the words are, the bare status is not all.
    _, _, after_status = text.partition(f"HTTP {status} ")
    assert any(mark in after_status for mark in ("; ", ": "))


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_where_the_key_comes_from(status, refused, score_server):
    score_server.always(status)

    text = await refused(api_key_env="MY_KEY")

    assert "MY_KEY" in text
    assert "server.api_key_file" in text


async def test_not_found_is_told_what_the_address_is_made_of(refused, score_server):
    score_server.always(404)

    text = await refused()

    assert "server.base_url" in text
    assert "server.scorer" in text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": "the reason"}', "the reason"),
        (b'{"error": {"message": "the reason", "type": "x", "code": 400}}', "the reason"),
        (b'{"error": {"reason": "the reason"}}', "the reason"),
        (b'{"detail": "the reason"}', "the reason"),
        (b"the\r\n\treason", "the reason"),
        (b"<html>\n<h1>the reason</h1>\n</html>", "<h1>the reason</h1>"),
        (b'{"error": "the\\nreason"}', "the reason"),
        (b"the reason \xff\xfe", "the reason"),
        (b'"the reason"', "the reason"),
        (b"the reason" + b" and so on" * 10_000, "the reason"),
        (b'{"error": "the reason' + b" and so on" * 10_000 + b'"}', "the reason"),
        ("the\u2028reason\x85".encode(), "the reason"),
    ],
)
@pytest.mark.parametrize("status", [400, 500])
async def test_a_refusal_says_what_the_server_said(status, body, expected, refused, score_server):
    score_server.always(score_server.reply(body, status))

    assert expected in await refused(max_attempts=1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status, refused, score_server):
    location = f"{score_server.url}/elsewhere"
    score_server.always(score_server.reply(b"", status, {"Location": location}))

    text = await refused()

    assert score_server.paths == ["/ask"]
    assert location in text
    assert "server.base_url" in text


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (401, REPEATS.encode(), {}),
        (401, {"error": REPEATS}, {}),
        (403, {"error": {"message": REPEATS}}, {}),
        (500, {"detail": REPEATS}, {}),
        (302, b"", {"Location": f"http://127.0.0.1/?key={SECRET}"}),
        (200, {"error": REPEATS}, {}),
        (200, f"<html>{REPEATS}</html>".encode(), {}),
    ],
    ids=["text", "error", "message", "retried", "location", "error in 200", "html"],
)
async def test_a_key_that_the_server_repeats_is_not_told(
    status, body, headers, refused, score_server
):
    score_server.always(score_server.reply(body, status, headers))

    await refused(max_attempts=1)


# Connections that don't come to an answer.


async def test_a_refused_connection_says_what_to_look_at(refused, nobody):
    text = await refused(base_url=address(nobody), max_attempts=1)

    assert "server.base_url" in text
    assert "is the server running" in text


async def test_a_time_out_says_which_limit_it_was(refused, score_server):
    score_server.always(score_server.silent)

    assert "server.timeout_s" in await refused(timeout_s=0.1, max_attempts=1)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "ssh", "tls", "header", "chunk", "gzip", "short", "short error", "long header"],
)
async def test_what_is_not_proper_http_is_an_error_in_one_line(written, refused, score_server):
    score_server.always(score_server.raw(written))

    await refused(max_attempts=1)


async def test_a_certificate_that_cannot_be_trusted_is_an_error_that_says_so(refused, tmp_path):
    file = tmp_path / "certificate.pem"
    file.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def answer(reader, writer):
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        text = await refused(base_url=f"https://127.0.0.1:{port}", max_attempts=1)

    assert "certificate" in text


# Answers that don't fit.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", "`x`"),
        (b'{"x": null}', "$.x"),
        (b'{"x": "1"}', "$.x"),
        (b'{"x": 1.5}', "$.x"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"1", "object"),
    ],
)
async def test_an_answer_of_another_shape_names_field_and_setting(
    body, expected, refused, score_server
):
    score_server.always(score_server.reply(body))

    text = await refused()

    assert expected in text
    assert "server.scorer" in text
    assert len(score_server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"<html>\n<body>Welcome</body>\n</html>",
        b'{"x": 1',
        b'{"x": 1} {"x": 1}',
        b"\xff\xfe{",
        b"a" * 100_000,
    ],
    ids=["empty", "blank", "html", "truncated", "twice", "utf-16", "long"],
)
async def test_an_answer_that_is_not_json_names_the_base_url(body, refused, score_server):
    score_server.always(score_server.reply(body))

    text = await refused()

    assert "JSON" in text
    assert "server.base_url" in text
    assert len(score_server.requests) == 1


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_an_answer_with_numbers_that_are_none_is_an_error_that_says_so(
    number, refused, score_server
):
    score_server.always(score_server.reply(b'{"x": ' + number + b"}"))

    text = await refused()

    assert "NaN" in text
    assert "number format" in text


@pytest.mark.parametrize("nested", [b'{"y": %s, "x": 1}', b'{"error": %s}'])
async def test_an_answer_nested_without_end_is_an_error_of_the_scorer(
    nested, refused, score_server
):
    score_server.always(score_server.reply(nested % (b"[" * 100_000 + b"]" * 100_000)))

    await refused()


@pytest.mark.parametrize(
    "error",
    [
        "the reason",
        {"message": "the reason", "code": 1},
        {"reason": "the reason"},
        ["the reason"],
        "the reason\nand more",
        {"message": "the reason\nand more"},
        "the reason" + " and so on" * 10_000,
        {"reason": "the reason", "trace": ["and so on"] * 10_000},
    ],
    ids=["text", "message", "dict", "list", "lines", "message lines", "long", "long dict"],
)
async def test_an_error_in_an_answer_that_is_ok_is_an_error(error, refused, score_server):
    score_server.always({"error": error, "x": 1})

    assert "the reason" in await refused()
    assert len(score_server.requests) == 1


async def test_an_error_that_is_null_is_none(post, score_server):
    score_server.script({"error": None, "x": 1})

    assert await post() == Answer(1)


async def test_what_an_answer_holds_besides_is_ignored(post, score_server):
    score_server.script({"id": "a", "x": 1, "usage": {"prompt_tokens": 5}})

    assert await post() == Answer(1)


# Posts that must not be repeated.


@pytest.mark.parametrize("passing", [429, 503, reset, reset_mid_body])
async def test_a_post_that_may_have_arrived_is_not_repeated_where_that_is_asked(
    passing, refused, score_server
):
    score_server.always(passing)

    await refused(repeat=False)

    assert len(score_server.requests) == 1


async def test_a_post_that_timed_out_is_not_repeated_where_that_is_asked(refused, score_server):
    score_server.always(score_server.silent)

    await refused(repeat=False, timeout_s=0.4)

    assert len(score_server.requests) == 1


async def test_a_post_that_cannot_have_arrived_is_repeated_nevertheless(client, nobody):
    async with client(base_url=address(nobody)) as it:
        call = persistently(lambda: it.post("/ask", {}, Answer), False, {"max_attempts": 50})
        task = asyncio.create_task(call)
        await asyncio.sleep(0.05)
        async with listening(nobody) as arrived:
            assert await task == Answer(1)
    assert len(arrived) == 1
