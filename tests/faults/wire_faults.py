"""What may go wrong between a scorer and its server, and what is to come of it."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .server import Exchange, Reply, good

KEY = "sk-very/secret+key'of\"the\\test"
MIB = 2**20
BOMB = gzip.compress(b"[" * 64 * MIB, 1)
"""64 MiB in 300 kB; the limit in these attacks is 1 MiB."""

SAYS_KEY = f"HTTP/1.1 500 no {KEY}\r\nX-Key: {KEY}\r\nSet-Cookie: {KEY}\r\n"

RETRIED, LASTING, FAILS, ANSWERED = "retried", "lasting", "fails", "answered"
"""An error after all attempts; one after the first; one or the other; the right answer."""


class Fault(NamedTuple):
    """What a server does, and what a scorer is to make of it."""

    name: str
    reply: Reply
    outcome: str


# -- connections that end, hang or drip -----------------------------------------------------------


async def reset(it: Exchange) -> None:
    """Before the answer."""
    it.reset()


async def ends(it: Exchange) -> None:
    """Before the answer, in good order."""


async def silent(it: Exchange) -> None:
    """For good."""
    await it.until_gone()


def breaks_after(*written: bytes, pause_s: float = 0.0, at_the_end: str = "reset") -> Reply:
    """Writes, and then resets the connection, ends it, or says nothing more."""

    async def reply(it: Exchange) -> None:
        for piece in written:
            it.write(piece)
            await it.writer.drain()
            await asyncio.sleep(pause_s)
        if at_the_end == "reset":
            it.reset()
        elif at_the_end == "silent":
            await it.until_gone()

    return reply


def drips(head: bytes, drop: bytes) -> Reply:
    """A drop every now and then, without an end."""

    async def reply(it: Exchange) -> None:
        it.write(head)
        gone = asyncio.ensure_future(it.until_gone())
        try:
            while not gone.done():
                it.write(drop)
                await asyncio.sleep(0.02)
            await gone
        finally:
            gone.cancel()

    return reply


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def connections() -> Iterator[Fault]:
    """Connections that break, and messages that are cut off or are no HTTP."""
    yield Fault("reset", reset, RETRIED)
    yield Fault("ends", ends, RETRIED)
    yield Fault("silent", silent, RETRIED)
    parts = {
        "status line": b"HTTP/1.1 2",
        "headers": OK,
        "body": OK + b'Content-Length: 100\r\n\r\n{"sc',
        "chunk": CHUNKED + b'20\r\n{"sc',
        "chunks": CHUNKED + b'4\r\n{"sc\r\n',
    }
    for where, part in parts.items():
        for end in ("reset", "ends", "silent"):
            yield Fault(f"{end} in {where}", breaks_after(part, at_the_end=end), RETRIED)
    yield Fault("headers drip", drips(OK, b"X-A: b\r\n"), FAILS)
    yield Fault("a header drips", drips(OK + b"X-A: ", b"b"), RETRIED)
    yield Fault("body drips", drips(OK + b"Content-Length: 100000\r\n\r\n[", b" "), RETRIED)
    yield Fault("chunks drip", drips(CHUNKED, b"1\r\n \r\n"), RETRIED)
    yield Fault("continues without end", drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), RETRIED)
    broken = {
        "chunk size": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        "negative chunk": CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n",
        "huge chunk": CHUNKED + b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n",
        "long chunk": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
        "chunk extension": CHUNKED + b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
        "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "length is no number": OK + b"Content-Length: two\r\n\r\n{}",
        "negative length": OK + b"Content-Length: -2\r\n\r\n{}",
        "long header": OK + b"X-A: " + b"b" * 9000 + b"\r\n\r\n",
        "very long header": OK + b"X-A: " + b"b" * MIB + b"\r\n\r\n",
        "long header name": OK + b"X" * 9000 + b": b\r\n\r\n",
        "no colon": OK + b"no header\r\n\r\n",
        "control characters": OK + b"X-A: \x00\x1b[31m\r\n\r\n",
        "long reason": b"HTTP/1.1 200 " + b"O" * 9000 + b"\r\n\r\n",
        "status of four": b"HTTP/1.1 2000 OK\r\n\r\n",
        "status of none": b"HTTP/1.1 OK\r\n\r\n",
        "another version": b"HTTP/9.9 200 OK\r\n\r\n",
        "ssh": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "tls": b"\x15\x03\x01\x00\x02\x02\x46",
        "zeros": bytes(1000),
        "key for a status line": KEY.encode() + b"\r\n\r\n",
        "key for a header": OK + KEY.encode() + b"\r\n\r\n",
        "key for a chunk": CHUNKED + KEY.encode() + b"\r\n",
    }
    for name, raw in broken.items():
        yield Fault(name, breaks_after(raw, at_the_end="ends"), FAILS)
    many = OK + b"".join(b"X-%d: b\r\n" % index for index in range(5000))
    yield Fault("many headers", breaks_after(many, at_the_end="ends"), FAILS)


# -- statuses -------------------------------------------------------------------------------------


def says(status: int, *headers: str, body: bytes | None = None) -> Reply:
    """A status; the key is in its reason, in headers and in the body."""
    said = json.dumps({"error": {"message": f"key {KEY} is wrong"}}).encode()

    async def reply(it: Exchange) -> None:
        it.answer(
            said if body is None else body,
            f"{status} {KEY}",
            *(f"X-Key: {KEY}", f"Set-Cookie: {KEY} {KEY}={KEY}", f"Server: {KEY}"),
            *headers,
        )

    return reply


ABSURD = (
    *("99999999", "9" * 5000, "1e400", "nan", "inf", "-1", "0x10", "", "soon", KEY, "²"),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec -001 23:59:59 GMT"),
    *("Mon, 1 Jan 2024 00:00:00 +99999999999999", "Mon, 32 Foo 2024", ", , ,"),
)


def statuses(elsewhere: str) -> Iterator[Fault]:
    """Refusals; ``elsewhere`` is where redirects lead."""
    now = "Retry-After: 0"
    for status in (408, 425, 429, 500, 502, 503, 504, 507, 599):
        yield Fault(f"{status}", says(status, now), RETRIED)
        yield Fault(f"{status} without a word", says(status, now, body=b""), RETRIED)
    yield Fault("retry at a date", says(429, f"Retry-After: {email.utils.formatdate()}"), RETRIED)
    for value in ABSURD:
        name = f"Retry-After: {value[:40]}"
        yield Fault(name, says(503, f"Retry-After: {value}"), RETRIED)
    soon = email.utils.formatdate(time.time() + 3600, usegmt=True)
    yield Fault("retry in an hour", says(429, f"Retry-After: {soon}"), RETRIED)
    for status in (400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451):
        yield Fault(f"{status}", says(status), LASTING)
    for status in (300, 301, 302, 303, 304, 307, 308):
        where = f"Location: {elsewhere}/v1/score?key={KEY}"
        yield Fault(f"redirects with {status}", says(status, where), LASTING)
    pages = {
        "html": f"<html>\n<h1>401</h1>{KEY}</html>".encode(),
        "key at the excerpt's end": b" " * (2**16 - 20) + (KEY * 3).encode(),
        "key within the excerpt": b"a" * 190 + KEY.encode() + b"a" * MIB,
        "json, cut": json.dumps({"error": KEY + "a" * MIB}).encode(),
        "nested": json.dumps({"error": {"why": [{KEY: KEY}]}}).encode(),
        "escaped": json.dumps({"error": KEY}).replace("/", "\\/").encode()[:-1],
    }
    for name, page in pages.items():
        yield Fault(f"401 of {name}", says(401, "Content-Type: text/html", body=page), LASTING)
        yield Fault(f"500 of {name}", says(500, now, body=page), RETRIED)
    endless = OK.replace(b"200 OK", b"403 no") + b"Content-Length: 99999999999\r\n\r\n"
    yield Fault(
        "403 without end", breaks_after(endless + b"a" * 2 * MIB, at_the_end="silent"), LASTING
    )
    bomb = f"HTTP/1.1 400 no\r\nContent-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n"
    yield Fault("400 with a bomb", breaks_after(bomb.encode() + BOMB, at_the_end="silent"), LASTING)
    yield Fault("101", says(101), FAILS)


# -- bodies ---------------------------------------------------------------------------------------


def body(raw: bytes, *headers: str, status: str = "200 OK") -> Reply:
    """A body of another kind."""

    async def reply(it: Exchange) -> None:
        it.answer(raw, status, *headers)

    return reply


def packed(pack: Callable[[bytes], bytes], encoding: str) -> Reply:
    """The right answer, compressed."""

    async def reply(it: Exchange) -> None:
        it.answer(pack(json.dumps(it.good).encode()), "200 OK", f"Content-Encoding: {encoding}")

    return reply


async def in_chunks(it: Exchange) -> None:
    """The right answer, a few bytes at a time."""
    raw = json.dumps(it.good).encode()
    pieces = [raw[index : index + 7] for index in range(0, len(raw), 7)]
    it.write(CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n")
    it.is_answered = True


async def in_the_old_way(it: Exchange) -> None:
    """The right answer, which ends with the connection."""
    it.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(it.good).encode())


async def after_continues(it: Exchange) -> None:
    """The right answer, after some that are none yet."""
    it.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n")
    it.answer()


def as_a(kind: str) -> Reply:
    """The right answer, said to be of another type."""

    async def reply(it: Exchange) -> None:
        it.answer(None, "200 OK", *([f"Content-Type: {kind}"]))

    return reply


def bodies() -> Iterator[Fault]:
    """Answers that are no JSON, compressed, or too large."""
    yield Fault("right", good, ANSWERED)
    for kind in ("text/html", "text/plain; charset=utf-7", "image/png", KEY):
        yield Fault(f"type {kind}", as_a(kind), ANSWERED)
    yield Fault("identity", packed(bytes, "identity"), ANSWERED)
    yield Fault("chunks", in_chunks, ANSWERED)
    yield Fault("HTTP/1.0", in_the_old_way, ANSWERED)
    yield Fault("continues", after_continues, ANSWERED)
    for encoding in ("gzip", "GZIP", "deflate", "br", "zstd", "compress", "gzip, gzip", KEY):
        yield Fault(f"encoded {encoding}", packed(gzip.compress, encoding), LASTING)
    yield Fault("gzip bomb", body(BOMB, "Content-Encoding: gzip"), LASTING)
    large = b"[" + b" " * 2 * MIB + b"]"
    yield Fault("too large", body(large), LASTING)
    yield Fault(
        "too large, in a chunk",
        breaks_after(CHUNKED + b"200002\r\n" + large, at_the_end="silent"),
        LASTING,
    )
    until_end = b"HTTP/1.1 200 OK\r\n\r\n" + large
    yield Fault("too large, to the end", breaks_after(until_end, at_the_end="ends"), LASTING)
    said = OK + b"Content-Length: 99999999999999999\r\n\r\n"
    yield Fault("said to be too large", breaks_after(said, at_the_end="silent"), LASTING)
    others = {
        "empty": b"",
        "blank": b" \n",
        "html": f"<html>{KEY}</html>".encode(),
        "key": KEY.encode(),
        "key at the excerpt's end": b" " * (2**16 - 20) + (KEY * 3).encode(),
        "an error": json.dumps({"error": KEY}).encode(),
        "an error within": json.dumps({"error": {"why": KEY}, "scores": []}).encode(),
        "utf-16": '{"scores": []}'.encode("utf-16"),
        "no utf-8": b'{"error": "\xff' + KEY.encode() + b'"}',
        "surrogates": b'{"error": "\\ud800' + json.dumps(KEY).encode()[1:] + b"}",
        "nested": b"[" * 100_000 + b"]" * 100_000,
        "nested error": b'{"error": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "null": b"null",
        "a number": b"1e999999",
        "a long number": b"9" * 100_000,
        "a list": b"[]",
        "an object": b"{}",
        "zeros": bytes(100),
    }
    for name, raw in others.items():
        yield Fault(f"a body that is {name}", body(raw), LASTING)
    yield Fault("204", body(b"", status="204 No Content"), LASTING)


# -- shapes ---------------------------------------------------------------------------------------


def changed(change: Callable[[Any], Any]) -> Reply:
    """The right answer with a change to it."""

    async def reply(it: Exchange) -> None:
        text = json.dumps(change(json.loads(json.dumps(it.good))))
        # What JSON has no word for is written as others write it.
        it.answer(text.replace('"-inf"', "-inf").encode())

    return reply


def cut(it: Exchange) -> bytes:
    """Two thirds of the right answer."""
    raw = json.dumps(it.good).encode()
    return raw[: len(raw) * 2 // 3]


async def truncated(it: Exchange) -> None:
    """The right answer, but for its end."""
    it.answer(cut(it))


VALUES: Mapping[str, Any] = {
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
    "-inf": "-inf",
    "positive": 0.5,
    "a string": "-1.5",
    "the key": KEY,
    "true": True,
    "null": None,
    "a list": [-1.5],
    "an object": {KEY: -1.5},
    "beyond floats": -(10**400),
}


def every_value(value: Any) -> Callable[[Any], Any]:
    """Puts ``value`` for every log-probability, in each server's shape."""

    def change(answer: Any) -> Any:
        if "meta_info" in answer:
            for entry in answer["meta_info"]["input_token_logprobs"][1:]:
                entry[0] = value
            return answer
        for score in answer.get("scores", ()):
            score["total_logprob"] = value
        for choice in answer.get("choices", ()):
            for row in choice["prompt_logprobs"][1:]:
                for entry in row.values():
                    entry["logprob"] = value
            logprobs = choice["logprobs"]["token_logprobs"]
            logprobs[1:] = [value] * (len(logprobs) - 1)
        return answer

    return change


def every_list(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], Any]:
    """Changes the lists of values, in each server's shape."""

    def changed(answer: Any) -> Any:
        if "meta_info" in answer:
            meta = answer["meta_info"]
            meta["input_token_logprobs"] = change(meta["input_token_logprobs"])
            return answer
        if "scores" in answer:
            answer["scores"] = change(answer["scores"])
        for choice in answer.get("choices", ()):
            choice["prompt_logprobs"] = change(choice["prompt_logprobs"])
            logprobs = choice["logprobs"]
            logprobs["token_logprobs"] = change(logprobs["token_logprobs"])
        return answer

    return changed


def every_answer(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], Any]:
    """Changes the list that has one entry for each prompt, or for each range."""

    def changed(answer: Any) -> Any:
        if "meta_info" in answer:
            return change([answer])
        name = "scores" if "scores" in answer else "choices"
        return {**answer, name: change(answer[name])}

    return changed


def with_ids(name: Callable[[str], str]) -> Callable[[Any], Any]:
    """Says that the values are of other tokens, in each server's shape."""

    def changed(answer: Any) -> Any:
        if "meta_info" in answer:
            for entry in answer["meta_info"]["input_token_logprobs"]:
                entry[1] = name(str(entry[1]))
            return answer
        if "scores" in answer:
            return {}
        for choice in answer["choices"]:
            rows = choice["prompt_logprobs"]
            choice["prompt_logprobs"] = [
                row and {name(id_): entry for id_, entry in row.items()} for row in rows
            ]
            tokens = choice["logprobs"]["tokens"]
            choice["logprobs"]["tokens"] = [f"token_id:{name(it[9:])}" for it in tokens]
        return answer

    return changed


def index_of(index: Any) -> Callable[[Any], Any]:
    """Says that the answer is of another prompt, where there are indexes."""

    def changed(answer: Any) -> Any:
        if isinstance(answer, dict) and "choices" in answer:
            for choice in answer["choices"]:
                choice["index"] = index
            return answer
        return {}

    return changed


def shapes() -> Iterator[Fault]:
    """JSON that is not what was asked for."""
    yield Fault("truncated", truncated, LASTING)
    for name, value in VALUES.items():
        yield Fault(f"values: {name}", changed(every_value(value)), LASTING)
    lists: Mapping[str, Callable[[list[Any]], list[Any]]] = {
        "none": lambda it: [],
        "one too few": lambda it: it[:-1],
        "twice as many": lambda it: it * 2,
        "null": lambda it: None,  # type: ignore[return-value,dict-item]
        "all null": lambda it: [None] * len(it),
    }
    for name, change in lists.items():
        yield Fault(f"list: {name}", changed(every_list(change)), LASTING)
        yield Fault(f"answers: {name}", changed(every_answer(change)), LASTING)
    names: Mapping[str, Callable[[str], str]] = {
        "the next": lambda it: str(int(it) + 1),
        "the key": lambda it: KEY,
        "five thousand digits": lambda it: "9" * 5000,
        "four thousand digits": lambda it: "9" * 4000,
    }
    for name, change_id in names.items():
        yield Fault(f"ids: {name}", changed(with_ids(change_id)), LASTING)
    for index in (-1, 1, 10**30, None, "0", KEY):
        yield Fault(f"index: {index}", changed(index_of(index)), LASTING)


def every(elsewhere: str) -> list[Fault]:
    """All of them; ``elsewhere`` is where redirects lead."""
    return [*connections(), *statuses(elsewhere), *bodies(), *shapes()]
