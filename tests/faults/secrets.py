"""The API key, and what a conversation says: where neither may turn up."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

from tests.mindscore.forks import ForkServer

from mindscore.cli import main

from .attack import Attacks, Finding

CORE = "Z7qW4eXr8TyU2iOp5AsD"
KEY = f"sk-\"'{CORE}/+<&>\\%41="
"""However it is written but in base64, it and any larger part of it hold a half of its core."""

HALVES = (CORE[:10].encode(), CORE[-10:].encode(), b64encode(KEY.encode())[:20])
MEMORY, RESPONSE = "Quokka7731", "Numbat4482"
TALK = [
    {"role": "memory", "key": "pet", "content": f"The pet is called {MEMORY} {MEMORY}."},
    {"role": "user", "content": "What is my pet called?"},
    {"role": "assistant", "content": f"{RESPONSE} {MEMORY}."},
    {"role": "user", "content": "Again?"},
    {"role": "assistant", "content": f"{RESPONSE} {MEMORY} {RESPONSE}."},
]
TOKENS = [
    {**line, "token_ids": [100 + number, 7], **({"body": [1, 2]} if number in (2, 4) else {})}
    for number, line in enumerate(TALK)
]

# -- a server that repeats ------------------------------------------------------------------------

Way = Callable[[str, dict[str, Any]], tuple[int, str, dict[str, str], str]]
"""From what is to be repeated, and the request, to status, reason, headers and body."""


def _honest(_: str, asked: dict[str, Any]) -> tuple[int, str, dict[str, str], str]:
    totals = [{"total_logprob": float(start - end)} for start, end in asked.get("score_ranges", [])]
    return 200, "OK", {}, json.dumps({"scores": totals, "tokens": [1, 2, 3]})


def _error(status: int) -> Way:
    return lambda said, _: (status, "No", {}, json.dumps({"error": {"message": f"bad: {said}"}}))


WAYS: dict[str, Way] = {
    "works": _honest,
    "works, and repeats": lambda said, asked: (
        200, "OK", {"X-Key": said, "Set-Cookie": f"k={quote(said)}"}, _honest("", asked)[3],
    ),
    **{f"HTTP {status}": _error(status) for status in (400, 401, 403, 404, 429, 500, 503)},
    "a reason": lambda said, _: (401, said, {}, ""),
    "a header": lambda said, _: (401, "No", {"WWW-Authenticate": f'Bearer realm="{said}"'}, ""),
    "HTML": lambda said, _: (502, "No", {}, f"<html><p>{said}</p></html>"),
    "JSON escapes": lambda said, _: (
        500, "No", {}, '{"error":"' + "".join(f"\\u{ord(it):04x}" for it in said) + '"}',
    ),
    "a redirect": lambda said, _: (302, "No", {"Location": f"http://x/?k={quote(said)}"}, ""),
    "a redirect as it is": lambda said, _: (307, "No", {"Location": f"http://x/{said}"}, said),
    "no JSON": lambda said, _: (200, "OK", {}, f"Authorization: Bearer {said}"),
    "a long body": lambda said, _: (500, "No", {}, "x" * 180 + said * 100),
    "base64": lambda said, _: (401, b64encode(said.encode()).decode(), {}, ""),
    "a list": lambda said, _: (500, "No", {}, json.dumps([{"error": [said] * 3}])),
    "an answer's error": lambda said, _: (200, "OK", {}, json.dumps({"error": said})),
    "a wrong type": lambda said, _: (200, "OK", {}, json.dumps({"scores": said, "tokens": said})),
    "a wrong number": lambda said, _: (
        200, "OK", {}, json.dumps({"scores": [{"total_logprob": said}], said: said}),
    ),
    "a version": lambda said, _: (200, "OK", {}, json.dumps({"version": said, "data": [said]})),
    "a Retry-After": lambda said, _: (429, "No", {"Retry-After": said}, said),
    "a content type": lambda said, _: (200, "OK", {"Content-Type": said}, said),
    "a broken status line": lambda said, _: (0, said, {}, said),
}  # fmt: skip


class Repeater:
    """A server on loopback that repeats the key it is sent, or what else it is told, in a way."""

    def __init__(self) -> None:
        self.way: Way = _honest
        self.said: str | None = None
        self.keys: list[str] = []
        """The keys that it was sent."""
        repeater = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                repeater.keys.append(key)
                asked = json.loads(raw) if raw else {}
                said = raw.decode() if repeater.said is None else repeater.said
                status, reason, headers, body = repeater.way(said, asked)
                if not status:
                    self.wfile.write(f"HTTP/9 {reason} {body}\r\n\r\n".encode())
                    self.close_connection = True
                    return
                self.send_response(status, reason)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Repeater:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# -- the key --------------------------------------------------------------------------------------

SCORERS = ("score", "vllm", "openai", "sglang", "auto")
COMMANDS = {
    "score": ["score", "TALK"],
    "score as JSON": ["score", "TALK", "--all", "--json"],
    "the matrix": ["score", "TALK", "--full"],
    "finetune": ["score", "TALK", "--finetune", "--json"],
    "a plan": ["plan", "TALK"],
    "config show": ["config", "show"],
    "config check": ["config", "check"],
    "plugins": ["plugins", "--json"],
    "the store": ["store", "list", "--json"],
    "an export": ["store", "export", "EXPORT"],
}
ASKS = ("score", "score as JSON", "the matrix", "finetune")


def _cases() -> Iterator[tuple[str, str, str, bool]]:
    """Command, way, scorer, and whether the key is in a file: each way with each flow."""
    names = [*ASKS, *ASKS, *(it for it in COMMANDS if it not in ASKS)]
    number = 0
    while True:
        for shift in range(len(names)):
            for place, way in enumerate(WAYS):
                name = names[(place + shift) % len(names)]
                # Each way meets each scorer in turn.
                yield name, way, SCORERS[(number + shift) % len(SCORERS)], number % 2 == 0
                number += 1


def key_leaks(trials: int) -> Finding:
    """Runs the command at --debug against servers that repeat the key, and greps all there is."""
    failures, sent = list[str](), 0
    cases = _cases()
    with tempfile.TemporaryDirectory() as place, Repeater() as server, ForkServer() as commands:
        server.said = KEY
        for number in range(trials):
            name, way, scorer, in_file = next(cases)
            folder = Path(place) / str(number)
            folder.mkdir(mode=0o700)
            server.way = WAYS[way]
            server.keys.clear()
            said = _run_command(commands, COMMANDS[name], scorer, server.url, folder, in_file)
            sent += KEY in server.keys
            found = {"its output": said, **_files(folder)}
            where = [it for it, content in found.items() if any(half in content for half in HALVES)]
            if where:
                failures.append(f"{name}, {scorer}, {way}: the key is in {', '.join(where)}")
            if name in ASKS and not server.keys:
                failures.append(
                    f"{name}, {scorer}, {way}: the server was not asked: {said[-200:]!r}"
                )
            elif set(server.keys) - {KEY}:
                failures.append(f"{name}, {scorer}, {way}: another key was sent")
    return Finding(
        "the API key turns up nowhere but in the request",
        "the command line at --debug, against servers that repeat it; output, store and files read",
        trials,
        failures,
        f"sent in {sent} of {trials} runs",
    )


def _run_command(
    commands: ForkServer, command: list[str], scorer: str, url: str, folder: Path, in_file: bool
) -> bytes:
    talk, key_file = folder / "talk.jsonl", folder.with_suffix(".key")
    talk.write_text("".join(json.dumps(line) + "\n" for line in TOKENS), encoding="utf-8")
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(KEY)
    settings = {"scorer": scorer, "base_url": url, "max_attempts": 1, "deadline_s": 20}
    environment = {
        **os.environ,
        **{f"XDG_{it}_HOME": str(folder / it.lower()) for it in ("CONFIG", "DATA", "CACHE")},
        "MINDSCORE_API_KEY": KEY,
    }
    if in_file:
        del environment["MINDSCORE_API_KEY"]
        settings["api_key_file"] = str(key_file)
    names = {"TALK": str(talk), "EXPORT": str(folder / "export.json")}
    arguments = [names.get(it, it) for it in command]
    arguments += [
        it for key, value in settings.items() for it in ("--set", f"server.{key}={value}")
    ]
    done = commands.run([*arguments, "--debug"], environment, 120)
    return (done.stdout + done.stderr).encode()


def _files(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes, and the names of all."""
    files = {str(it.relative_to(folder)): it for it in folder.rglob("*") if it.is_file()}
    return {
        "names": "\n".join(files).encode(),
        **{name: it.read_bytes() for name, it in files.items()},
    }


# -- memories -------------------------------------------------------------------------------------


class Records(logging.Handler):
    """All that is logged at INFO and above, as a host's file would have it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


LOGGERS = ("", "mindhooks", "mindscore", "aiohttp", "asyncio")


@contextmanager
def _listening() -> Iterator[Records]:
    records, root = Records(), logging.getLogger()
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    root.addHandler(records)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.removeHandler(records)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _in_process(arguments: list[str], folder: Path) -> tuple[list[str], str]:
    """What the command logs at INFO and above, and its standard error."""
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    homes = {f"XDG_{it}_HOME": str(folder / it.lower()) for it in ("CONFIG", "DATA", "CACHE")}
    with (
        mock.patch.dict(os.environ, homes),
        _listening() as records,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        main(arguments)
    return records.lines, errors.buffer.getvalue().decode()  # type: ignore[attr-defined]


def memory_leaks(trials: int) -> Finding:
    """Scores a conversation, well and badly, and greps logs, standard error and store."""
    failures, logged = list[str](), 0
    flows = [["--all"], ["--full"], ["--finetune"]]
    ways = [None, *WAYS]
    with tempfile.TemporaryDirectory() as place, Repeater() as server:
        server.said = "no"
        for number in range(trials):
            folder = Path(place) / str(number)
            folder.mkdir()
            talk = folder / "talk.jsonl"
            way, flow = ways[number % len(ways)], flows[number // len(ways) % len(flows)]
            lines = TALK if (number + number // len(ways)) % 2 else TOKENS
            talk.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            server.way = WAYS[way or "works"]
            settings = {
                "server.scorer": SCORERS[number % len(SCORERS)] if way else "toy",
                "server.base_url": server.url,
                "server.max_attempts": 1,
                "finetune.threshold": 0,
                "store.keep_texts": str(number % 4 < 2).lower(),
            }
            arguments = ["score", str(talk), *flow]
            arguments += [
                it for key, value in settings.items() for it in ("--set", f"{key}={value}")
            ]
            loud, _ = _in_process([*arguments, "--debug"], folder)
            _, shown = _in_process(arguments, folder)
            logged += len(loud)
            told = {"a log record": "\n".join(loud), "standard error": shown}
            stored = b"".join(
                it.read_bytes() for it in (folder / "data").rglob("*") if it.is_file()
            )
            told["the store"] = stored.decode("utf-8", "replace")
            for where, text in told.items():
                allowed = set()
                if where == "the store" and flow == ["--finetune"]:
                    allowed = {RESPONSE, MEMORY}
                elif where == "the store" and settings["store.keep_texts"] == "true":
                    allowed = {MEMORY}
                for marker in {MEMORY, RESPONSE} - allowed:
                    if marker in text:
                        failures.append(
                            f"{way or 'toy'}, {flow}: {marker} is in {where}: {text:.300}"
                        )
    return Finding(
        "what memories and responses say is not logged above DEBUG, nor kept but for candidates, "
        "and for memories' texts unless store.keep_texts is false",
        "runs that succeed and that fail; log records, standard error and store read",
        trials,
        failures,
        f"{logged} records read",
    )


ATTACKS: Attacks = {key_leaks: 250, memory_leaks: 156}
