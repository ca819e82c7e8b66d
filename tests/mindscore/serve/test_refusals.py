"""Who is refused, and how: keys, hosts, bodies, failures."""

import asyncio
import logging

import pytest
from aiohttp import web

from mindhooks import ScorerError
from mindscore.http import bodies
from mindscore.scorers.toy import ToyScorer
from mindscore.serve import app, requests

KEY = "sk-very-secret"
SECRET = "conversation-of-a-person"
POSTS = ["/v1/score", "/v1/completions", "/tokenize", "/v1/tokenize", "/detokenize"]
WITH_KEY = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def said(caplog):
    """All that was logged, at any level, with its exceptions."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text


# keys


@pytest.mark.parametrize("path", [*POSTS, "/nowhere"])
async def test_without_the_key_nothing_is_answered(path, served):
    async with served(key=KEY) as client:
        answer = await client.post(path, {})
        listed = await client.get("/v1/models")
    for it in (answer, listed):
        assert (it.status, it.error["type"]) == (401, "AuthenticationError")
        assert it.headers["WWW-Authenticate"] == "Bearer"
        assert KEY not in it.error["message"]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, "Bearer é"],
)
async def test_another_key_is_refused(header, served):
    async with served(key=KEY) as client:
        answer = await client.get("/v1/models", headers={"Authorization": header})
    assert answer.status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_key_opens_the_door_whatever_the_host_is_called(scheme, served, scored):
    headers = {"Authorization": f"{scheme} {KEY}", "Host": "scorer.example"}
    async with served(key=KEY) as client:
        answer = await client.post("/v1/score", scored(), headers=headers)
    assert answer.status == 200


async def test_health_needs_no_key(served):
    async with served(key=KEY) as client:
        assert (await client.get("/health")).status == 200


# hosts


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.2:9", "[::1]", "[::1]:8017"]
)
async def test_this_machines_own_names_are_taken(host, served):
    async with served() as client:
        assert (await client.get("/v1/models", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8017", "localhost.evil.example", "127.0.0.1.evil.example",
     "127.0.0.1@evil.example", "10.0.0.1", "0.0.0.0", "[::2]"],
)  # fmt: skip
async def test_a_name_that_is_not_this_machines_is_refused(host, served):
    async with served() as client:
        answer = await client.get("/v1/models", headers={"Host": host})
    assert (answer.status, answer.error["type"]) == (403, "PermissionDeniedError")


# bodies


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/score", {"prompt": [1, 2]}, "score_ranges"),
        ("/v1/score", {"score_ranges": []}, "prompt"),
        ("/v1/score", {"prompt": "text", "score_ranges": []}, "prompt"),
        ("/v1/score", {"prompt": [1, -2], "score_ranges": []}, "prompt[1]"),
        ("/v1/score", {"prompt": [1, 2], "score_ranges": [[1]]}, "score_ranges[0]"),
        ("/v1/score", {"prompt": [1, 2], "score_ranges": [[1, 2.5]]}, "score_ranges[0][1]"),
        ("/v1/score", {"prompt": [1, 2], "score_ranges": [], "priority": 2**40}, "priority"),
        ("/tokenize", {"prompt": [1]}, "prompt"),
        ("/tokenize", {"messages": []}, "prompt"),
        ("/detokenize", {"tokens": "text"}, "tokens"),
        ("/detokenize", {}, "tokens"),
        ("/v1/completions", [], None),
    ],
)
async def test_a_body_of_another_shape_is_an_error_that_names_the_field(path, body, param, served):
    async with served() as client:
        answer = await client.post(path, body)
    assert (answer.status, answer.error["type"]) == (400, "BadRequestError")
    assert answer.error["param"] == param


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b'{"a":' + b"[" * 10**5, b'{"prompt": NaN}'],
)
async def test_a_body_that_is_not_json_is_refused(raw, path, served):
    async with served() as client:
        answer = await client.ask(
            "POST", path, data=raw, headers={"Content-Type": "application/json"}
        )
    assert answer.status == 400
    assert "JSON" in answer.error["message"]


async def test_a_text_that_is_not_utf_8_is_refused(served):
    async with served() as client:
        answer = await client.ask(
            "POST",
            "/tokenize",
            data=b'{"prompt": "\xff"}',
            headers={"Content-Type": "application/json"},
        )
    assert answer.status == 400
    assert "JSON" in answer.error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_type_that_web_pages_may_send_unasked_is_refused(kind, served):
    async with served() as client:
        answer = await client.ask("POST", "/tokenize", data=b"{}", headers={"Content-Type": kind})
    assert (answer.status, answer.error["type"]) == (415, "UnsupportedMediaTypeError")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_large_is_refused(chunked, served, monkeypatch):
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 1000)
    raw = b'{"prompt": "' + b"a" * 2000 + b'"}'

    async def pieces():
        for index in range(0, len(raw), 100):
            yield raw[index : index + 100]

    async with served() as client:
        answer = await client.ask(
            "POST",
            "/tokenize",
            data=pieces() if chunked else raw,
            headers={"Content-Type": "application/json"},
        )
        small = await client.post("/tokenize", {"prompt": "tea"})
    assert (answer.status, answer.error["type"]) == (413, "RequestEntityTooLargeError")
    assert small.status == 200


async def test_a_body_that_does_not_arrive_is_given_up(served):
    head = (
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        'Content-Length: 100\r\nConnection: close\r\n\r\n{"prompt": '
    )
    async with served(body_timeout_s=0.1) as client:
        port = int(client.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        status = await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert status.startswith(b"HTTP/1.1 408 ")


async def test_a_path_that_is_none_is_an_error_that_lists_those_there_are(served):
    async with served() as client:
        answer = await client.post("/score", {})
    assert (answer.status, answer.error["type"]) == (404, "NotFoundError")
    assert "/v1: /score" in answer.error["message"]


async def test_another_method_is_an_error_that_says_which(served):
    async with served() as client:
        answer = await client.get("/v1/score")
    assert (answer.status, answer.error["type"]) == (405, "MethodNotAllowedError")
    assert answer.headers["Allow"] == "POST"


# failures, and what is logged


class FailingScorer(ToyScorer):
    """Fails with ``error`` whatever it is asked."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def score(self, prompts):
        raise self.error

    async def generate(self, prompt, *, max_tokens, stop):
        raise self.error

    async def tokenize(self, text):
        raise self.error

    async def detokenize(self, ids):
        raise self.error


async def ask_all(client, scored):
    return [
        await client.post("/v1/score", scored()),
        await client.post("/v1/completions", {"prompt": SECRET}),
        await client.post("/v1/completions", {"prompt": [1, 2]}),
        await client.post("/tokenize", {"prompt": SECRET}),
        await client.post("/detokenize", {"tokens": [1]}),
    ]


async def test_what_the_scorer_refuses_is_the_clients_to_mend(served, scored):
    error = ScorerError("toy: token id 9 is outside the model's vocabulary")
    async with served(FailingScorer(error)) as client:
        answers = await ask_all(client, scored)
    for answer in answers:
        assert (answer.status, answer.error["message"]) == (400, str(error))


async def test_another_failure_is_the_servers_and_is_logged_without_what_it_says(
    served, scored, said
):
    async with served(FailingScorer(RuntimeError(SECRET)), key=KEY, headers=WITH_KEY) as client:
        answers = await ask_all(client, scored)
    for answer in answers:
        assert (answer.status, answer.error["type"]) == (500, "InternalServerError")
        assert "RuntimeError" in answer.error["message"]
        assert SECRET not in answer.error["message"]
    assert "/v1/score: RuntimeError in " in said()
    assert "test_refusals.py, line " in said()
    assert SECRET not in said()
    assert KEY not in said()


async def test_after_a_failure_the_next_is_served(served, scored):
    async with served(FailingScorer(RuntimeError("x"))) as client:
        for _ in range(3):
            assert (await client.post("/v1/score", scored())).status == 500
        assert (await client.get("/health")).body["busy"] is False


async def test_a_request_that_is_no_http_is_not_logged(served, said):
    async with served() as client:
        port = int(client.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.1\r\nAuthorization\x00: Bearer {KEY}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.")
        writer.close()
        await writer.wait_closed()
    assert KEY not in said()


@pytest.mark.parametrize("path", ["/tokenize", "/v1/completions"])
async def test_a_text_that_is_too_large_is_refused_with_its_size(path, served, monkeypatch):
    monkeypatch.setattr(requests, "MAX_TEXT_BYTES", 1000)
    async with served() as client:
        answer = await client.post(path, {"prompt": "€" * 350})
    assert answer.status == 413
    assert "1050 bytes" in answer.error["message"]


async def test_ranges_much_longer_than_the_prompt_together_are_refused(served):
    body = {"prompt": [5] * 100, "score_ranges": [[1, 100]] * 9}
    async with served() as client:
        answer = await client.post("/v1/score", body)
    assert (answer.status, answer.error["param"]) == (400, "score_ranges")
    assert "891 tokens" in answer.error["message"]


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/score", "/v1/completions"])
async def test_a_body_much_larger_than_a_request_needs_is_refused_unread(path, served):
    async with served() as client:
        port = int(client.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {bodies.MAX_BYTES + 1}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        # Nothing of the body was sent.
        assert (await reader.readline()).split()[1] == b"413"
        writer.close()


async def test_of_large_bodies_only_few_are_read_at_once(served, monkeypatch):
    monkeypatch.setattr(bodies, "LARGE_BYTES", 10)
    reading = most = 0
    read = web.Request.read

    async def counted(self):
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            await asyncio.sleep(0.01)
            return await read(self)
        finally:
            reading -= 1

    monkeypatch.setattr(web.Request, "read", counted)
    async with served() as client:
        asked = [client.post("/tokenize", {"prompt": "tea"}) for _ in range(20)]
        answers = await asyncio.gather(*asked)
    assert [it.status for it in answers] == [200] * 20
    assert most == bodies.LARGE_AT_ONCE


async def test_prompts_with_too_many_tokens_together_are_refused(served, monkeypatch):
    monkeypatch.setattr(requests, "MAX_DECODED_TOKENS", 9)
    async with served() as client:
        answer = await client.post("/v1/completions", {"prompt": [[5] * 5, [5] * 5]})
    assert (answer.status, answer.error["param"]) == (413, "prompt")
    assert "10 tokens" in answer.error["message"]


async def test_more_ids_than_are_decoded_at_once_are_refused_with_their_number(served, monkeypatch):
    class Texts(ToyScorer):
        async def detokenize(self, ids):
            return "x" * len(ids)

    monkeypatch.setattr(requests, "MAX_DECODED_TOKENS", 3)
    async with served(Texts()) as client:
        answer = await client.post("/detokenize", {"tokens": [5] * 4})
        assert (await client.post("/detokenize", {"tokens": [5] * 3})).status == 200
    assert (answer.status, answer.error["param"]) == (413, "tokens")
    assert "4 tokens" in answer.error["message"]


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/score", {"prompt": [5] * 9, "score_ranges": [[1, 2]]}),
        ("/v1/completions", {"prompt": [5] * 9}),
        ("/v1/completions", {"prompt": [[5], [5] * 9]}),
        ("/v1/completions", {"prompt": "one two three four five six seven eight nine ten"}),
    ],
)
async def test_a_prompt_beyond_the_models_context_is_refused_before_it_is_computed(
    path, more, served, held
):
    held.context_length = 8
    async with served(held) as client:
        answer = await client.post(path, more)
    assert (answer.status, answer.error["param"]) == (400, "prompt")
    assert "the model reads at most 8" in answer.error["message"]
    assert held.began == []


async def test_a_prompt_of_just_the_models_context_is_scored(served):
    scorer = ToyScorer()
    scorer.context_length = 8
    async with served(scorer) as client:
        body = {"prompt": [5] * 8, "score_ranges": [[1, 8]]}
        assert (await client.post("/v1/score", body)).status == 200
