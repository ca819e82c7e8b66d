"""Hostile and broken input: transcripts, configuration, servers' answers, imports, large talks."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mindhooks import MindhooksError, Scorer, ScorerError, WirePrompt
from mindscore._util.errors import ConfigError, TranscriptError, UsageError
from mindscore._util.text import printable
from mindscore.config.file import dump, load_configuration
from mindscore.config.settings import StoreSettings
from mindscore.conversation.native import read_transcript
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer
from mindscore.scorers.toy import ToyScorer
from mindscore.store import Store
from mindscore.store.store import read_exchange, write_exchange

from .attack import Attacks, Finding

MUTANTS = 10
"""Cases that are made of one document, beside the document itself."""

PATIENCE_S = 10
LINE = 500
"""Characters of an error beyond which nobody reads it."""

# -- documents ------------------------------------------------------------------------------------

NASTY = [
    b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b"-1e999", b"NaN", b"Infinity", b"nan", b"inf",
    b"9" * 25, b"9" * 5000, b"0x" + b"f" * 5000, b"1e-999", b"-0.0", b'""', b'" "', b'"a"', b"[]",
    b"{}", b"[[]]", b'{"a":1}', b"{a=1}", b"[" * 2000, b'{"a":' * 2000, b"{a=" * 2000,
    b"[" * 60 + b"]" * 60, b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b"\x00", b"\xff",
    b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1b[31m", b"\xc2\x9b2J", b"\xe2\x80\xae",
    b'"\\u001b[2J\\u202e"', b"\n", b"\r\n", b"\\", b'"', b"'''", b'"""', b",", b":", b"=", b"#",
    b"a." * 300 + b"a=1\n", b'"' + b"k" * 10_000 + b'"', b"1979-05-27", b"07:32:00",
    b'"9999-12-31T23:59:59+00:01"', b'"0001-01-01T00:00:00+23:59"', b'"2026-02-30T00:00:00"',
    b'"2026-01-01T00:00:00.' + b"0" * 3000 + b',"', b"[[a]]\n", b"[server]\n", b'"../../x"',
]  # fmt: skip
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')

_places = st.integers(0, 2**16 - 1)
_mutations = st.tuples(
    st.sampled_from(["flip", "cut", "drop", "repeat", "insert", "swap", "swap"]),
    _places,
    _places,
    st.sampled_from(NASTY) | st.binary(max_size=8),
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def _mutated(document: bytes, mutation: tuple[str, int, int, bytes]) -> bytes:
    kind, first, second, payload = mutation
    start, end = sorted((first * len(document) >> 16, second * len(document) >> 16))
    if kind == "flip":
        return document[:start] + payload[:1] + document[start + 1 :]
    if kind == "cut":
        return document[:start]
    if kind == "drop":
        return document[:start] + document[end:]
    if kind == "repeat":
        return document[:end] + document[start:end] + document[end:]
    values = list(VALUE.finditer(document)) if kind == "swap" else []
    if values:
        start, end = values[first % len(values)].span()
        return document[:start] + payload + document[end:]
    return document[:start] + payload + document[start:]


def _documents(valid: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Return a document, often a valid one, with ``MUTANTS`` broken ones made of it."""
    whole = st.sampled_from(valid)
    other = st.binary(max_size=40) | _json.map(lambda it: json.dumps(it).encode())

    def with_mutants(document: bytes, mutations: list[tuple[str, int, int, bytes]]) -> list[bytes]:
        made = [_mutated(document, mutation) for mutation in mutations[:-1]]
        for mutation in mutations:
            document = _mutated(document, mutation)
        return [*made, document]

    several = st.lists(_mutations, min_size=MUTANTS, max_size=MUTANTS)
    return st.builds(with_mutants, whole | whole | whole | other, several)


Case = Callable[[Any], str | None]
"""Tries one input; what is wrong with what came of it."""


def _try_all(
    batches: st.SearchStrategy[list[Any]], case: Case, trials: int
) -> tuple[int, list[str]]:
    """Try ``trials`` inputs; how many they were, and what was found."""
    tried, failures = 0, list[str]()

    @settings(
        max_examples=math.ceil(trials / MUTANTS),
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(batches)
    def attack(batch: list[Any]) -> None:
        nonlocal tried
        for it in batch:
            tried += 1
            started = time.monotonic()
            wrong = case(it)
            if time.monotonic() - started > PATIENCE_S:
                wrong = f"takes {time.monotonic() - started:.0f} s"
            if wrong:
                failures.append(f"{wrong}: {it!r:.300}")

    while tried < trials:
        attack()
    return tried, failures


def _wrong(error: BaseException, documented: type[MindhooksError], names: str) -> str | None:
    """Return the fault of an error that came of broken input, if it has one."""
    text = str(error)
    if not isinstance(error, documented):
        return f"{type(error).__name__}: {text[:200]!r}"
    if printable(text) != text:
        return f"not printable: {text!r:.200}"
    if len(text) > LINE:
        return f"{len(text)} characters: {text[:200]!r}"
    return None if re.match(names, text) else f"names nothing: {text[:200]!r}"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# -- transcripts ----------------------------------------------------------------------------------

_TRANSCRIPTS = [
    b"""{"role":"system","content":"You help."}
{"role":"memory","key":"tea","content":"The user drinks tea.","section":"identity"}
{"role":"user","content":"What?","timestamp":"2026-03-03T10:00:00.123456789Z"}
{"role":"assistant","content":"Tea.","id":"r1","timestamp":"2026-03-03T10:00:01+02:00"}
""",
    b"""{"role":"system","content":[{"text":"Notes: "},{"text":"- tea","key":"a"}]}
{"role":"assistant","content":"Tea.","token_ids":[1,2,3],"body":[1,2]}
""",
    b"""{"role":"user","content":"See","images":[{"mime":"image/png","data":"aGVsbG8="}]}
{"role":"tool","content":"42"}
{"role":"identity","content":"I am."}
""",
]


def _run(coroutine: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def transcripts(trials: int) -> Finding:
    """Read broken transcripts, and render those that are taken."""
    with _folder() as folder:
        file = folder / "talk.jsonl"

        def case(document: bytes) -> str | None:
            file.write_bytes(document)
            try:
                context = _run(read_transcript(file).context(ToyScorer().tokenize))
                context.wire_prompt(range(len(context.conversation)), lambda _: False)
            except Exception as error:
                return _wrong(error, TranscriptError, rf"{re.escape(str(file))}(, line \d+)?: .")
            return None

        tried, failures = _try_all(_documents(_TRANSCRIPTS), case, trials)
    return Finding(
        "a broken transcript is an error that names its line", "hypothesis", tried, failures
    )


# -- configuration --------------------------------------------------------------------------------

_CONFIGURATIONS = [
    b"""[server]
scorer = "toy"
base_url = "http://127.0.0.1:1"
timeout_s = 1.5
max_attempts = 3
self_test = true
[server.options]
any = [1, 2.5, {a = 'b'}]
when = 1979-05-27T07:32:00Z
""",
    b"""[memory]
interval_s = 0
noise_repeats = "auto"
ewma_alpha = 1
[finetune]
threshold = 0
""",
    b"""[store]
url = "sqlite:////tmp/x.db"
namespace = "a\\u001b"
[plugins]
disabled = ["x"]
[plugins.settings.memory-scoring]
only = ["a"]
hold = true
[plugins.settings."a b"]
x = 1
""",
    b"""server = {scorer = "toy", options = {deep = [[[[1]]]]}}
memory.response_window = 5
""",
]
_ASSIGNMENTS = [
    b"server.scorer=toy", b"memory.interval_s=0", b"server.options.a.b=[1,{c=2}]",
    b'plugins.settings."x y".z="w"', b"store.namespace=1979-05-27",
]  # fmt: skip


def _values(settings: Any) -> Any:
    """Return settings that can be compared: without nan."""
    return msgspec.json.decode(msgspec.json.encode(settings))


def toml(trials: int) -> Finding:
    """Read broken configuration files and ``--set`` values, and print those that are taken."""
    with _folder() as folder:
        file = folder / "config.toml"

        def show(given: Path | None, assignments: list[str]) -> str | None:
            settings = load_configuration(given, assignments).settings
            shown = dump(settings)
            (folder / "shown").write_text(shown, encoding="utf-8")
            if printable(shown.replace("\n", "")) != shown.replace("\n", ""):
                return f"not printable: {shown!r}"
            again = load_configuration(folder / "shown").settings
            return (
                None
                if _values(again) == _values(settings)
                else f"prints as something else: {shown!r}"
            )

        def from_file(document: bytes) -> str | None:
            file.write_bytes(document)
            try:
                return show(file, [])
            except Exception as error:
                return _wrong(error, ConfigError, rf"{re.escape(str(file))}: .")

        def from_set(document: bytes) -> str | None:
            file.write_bytes(b"")
            try:
                return show(file, [document.decode("utf-8", "surrogateescape")])
            except Exception as error:
                return _wrong(error, ConfigError, "--set .")

        tried, failures = _try_all(_documents(_CONFIGURATIONS), from_file, trials * 3 // 4)
        more, others = _try_all(_documents(_ASSIGNMENTS), from_set, max(1, trials - tried))
    return Finding(
        "a broken configuration is an error that names file or key",
        "hypothesis",
        tried + more,
        failures + others,
    )


# -- servers' answers -----------------------------------------------------------------------------

_PROMPT = WirePrompt(tokens=(5, 6, 7, 8), images=(), ranges=((2, 3), (3, 4)), node_ids=("a", "b"))


def _npy(values: Any) -> str:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=values.dtype == object)
    return base64.b64encode(file.getvalue()).decode()


def _answers() -> dict[str, list[Any]]:
    """Return valid answers, by scorer and question."""
    usage = {"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    rows = [None, *({str(id_): {"logprob": -1.5, "rank": 1}} for id_ in (6, 7, 8))]
    entries = [[None, 6, None], [-1.5, 7, None], [-2.5, 8, None]]
    ids = {"prompt_token_ids": [5, 6, 7, 8]}
    said = [f"token_id:{it}" for it in (5, 6, 7, 8)]
    echoed = {"token_logprobs": [None, -1.0, -2.0, -3.0], "tokens": said}
    cached = {"prompt_tokens": 4, "cached_tokens": 1}
    return {
        "score": [{"scores": [{"total_logprob": -1.5}, {"total_logprob": -2}], "usage": usage}],
        "vllm": [{"choices": [{"index": 0, "prompt_logprobs": rows}], "usage": usage}],
        "vllm rows": [
            {"prompt_token_id_logprobs": _npy(np.array([[-1.5], [-2.5]], "f4")), "usage": usage},
            {"prompt_token_id_logprobs": _npy(np.array([[-1.5, 1], [-2.5, 2]], "f8"))},
            {"prompt_token_id_logprobs": _npy(np.array([[{}], [set()]], object))},
        ],
        "sglang": [[{"text": "", "meta_info": {"input_token_logprobs": entries, **cached}}]],
        "openai": [{"choices": [{"index": 0, "logprobs": echoed, **ids}], "usage": usage}],
        "generate": [
            {"choices": [{"text": "a", "token_ids": [1, 2]}]},
            {"text": "a", "output_ids": [1]},
        ],
        "tokenize": [{"tokens": [1, 2, 3], "count": 3}],
        "failure": [{"error": {"message": "no", "code": 3}}, {"error": "no"}, {"detail": ["no"]}],
    }  # fmt: skip


SCORERS: dict[str, Callable[[dict[str, Any]], Scorer]] = {
    "score": ScoreScorer,
    "vllm": VLLMScorer,
    "vllm rows": VLLMScorer,
    "sglang": SGLangScorer,
    "openai": OpenAIScorer,
}


class Parrot:
    """A server on loopback that answers whatever it is told to, on connections that stay open."""

    def __init__(self) -> None:
        self.status = 200
        self.answer = b""
        self.version = b'{"version":"0.10.0"}'

    async def __aenter__(self) -> Parrot:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if length := re.search(rb"(?i)content-length: (\d+)", head):
            await reader.readexactly(int(length[1]))
        elif b"chunked" in head.lower():
            while (size := int(await reader.readline(), 16)) or await reader.readline() == b"":
                await reader.readexactly(size + 2)
        is_version = head.startswith(b"GET /version ")
        status, body = (200, self.version) if is_version else (self.status, self.answer)
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def _ask(scorer: Any, asked: str) -> str | None:
    """Ask the scorer; what is wrong with what it took for an answer."""
    if asked == "tokenize":
        said = await scorer.tokenize("hello")
        return None if all(isinstance(it, int) for it in said) else f"took {said!r}"
    if asked == "generate":
        await scorer.generate(_PROMPT, max_tokens=3, stop=())
        return None
    [scores] = (await scorer.score([_PROMPT])).ranges
    totals = [it.total for it in scores]
    # A thousandth above nothing is rounding.
    right = len(totals) == 2 and all(math.isfinite(it) and -9999 < it <= 0.01 for it in totals)
    return None if right else f"took {totals}"


def scorer_answers(trials: int) -> Finding:
    """Has every scorer of a server read broken answers, over HTTP."""
    answers = _answers()
    asked = st.sampled_from(["score", "score", "score", "generate", "tokenize"])

    valid = {name: [msgspec.json.encode(it) for it in found] for name, found in answers.items()}

    @st.composite
    def batches(draw: st.DrawFn) -> list[tuple[str, str, int, bytes]]:
        name, asks = draw(st.sampled_from(sorted(SCORERS))), draw(asked)
        kind = draw(st.sampled_from([name if asks == "score" else asks] * 5 + ["failure"]))
        status = draw(st.sampled_from([200] * 9 + [400]))
        return [(name, asks, status, it) for it in draw(_documents(valid[kind]))]

    with asyncio.Runner() as runner:
        parrot = runner.run(Parrot().__aenter__())
        made: dict[str, Any] = {}

        async def reply(name: str, asks: str, status: int, document: bytes) -> str | None:
            parrot.status, parrot.answer = status, document
            parrot.version = b'{"version":"%b"}' % (b"0.33.0" if "rows" in name else b"0.10.0")
            table = {
                "base_url": parrot.url,
                "max_attempts": 1,
                "breaker_failures": 10**9,
                "timeout_s": PATIENCE_S,
            }
            scorer = made.get(name) or made.setdefault(name, SCORERS[name](table))
            try:
                return await _ask(scorer, asks)
            except Exception as error:
                # What one answer teaches the scorer must not decide about the next.
                if name == "vllm rows":
                    await made.pop(name).aclose()
                return _wrong(error, ScorerError, rf".*{re.escape(parrot.url)}/\w+")

        tried, failures = _try_all(batches(), lambda it: runner.run(reply(*it)), trials)
        for scorer in made.values():
            runner.run(scorer.aclose())
        runner.run(parrot.__aexit__())
    return Finding(
        "a broken answer of a server is an error that names its address, never a score",
        "hypothesis, through the scorers of servers, over HTTP",
        tried,
        failures,
    )


# -- store imports --------------------------------------------------------------------------------

_EXCHANGED = [
    b'{"tea": 1.5, "dog": 0, "a\\u001b": -2e-3, "": 7, "\\u202e": 1e300}',
    b"[1767225600123456789, -9223372036854775808, 9223372036854775807, 0]",
    b"{}",
    b"[]",
]


def store_imports(trials: int) -> Finding:
    """Read broken files for the store; those that are taken go in and come out again."""
    with _folder() as folder, asyncio.Runner() as runner:
        file, again = folder / "given.json", folder / "again.json"
        store = Store(StoreSettings(url=f"sqlite:///{folder / 'store.sqlite3'}"))

        def case(document: bytes) -> str | None:
            file.write_bytes(document)
            try:
                contents = read_exchange(file)
            except Exception as error:
                return _wrong(error, UsageError, rf"{re.escape(str(file))}: .")
            if isinstance(contents, dict):
                runner.run(store.import_scores(contents, "m"))
                kept = {it.key: it.score for it in runner.run(store.memories())}
                if any(kept[key] != score for key, score in contents.items()):
                    return "comes out of the store as something else"
            else:
                runner.run(store.import_trained(contents))
                if not set(contents) <= set(runner.run(store.trained_timestamps())):
                    return "comes out of the store as something else"
            write_exchange(again, contents)
            text = again.read_bytes().decode()
            if printable(text[:-1]) != text[:-1]:
                return f"not printable: {text!r}"
            return None if read_exchange(again) == contents else "is written as something else"

        tried, failures = _try_all(_documents(_EXCHANGED), case, trials)
    return Finding(
        "a broken file for the store is an error that names it", "hypothesis", tried, failures
    )


# -- large conversations --------------------------------------------------------------------------


def _turns(count: int, words: int) -> list[dict[str, Any]]:
    said = " ".join(f"word{index % 997}" for index in range(words))
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": f"{index} {said}"} for index in range(2 * count)]


def _memories(count: int) -> list[dict[str, Any]]:
    return [{"role": "memory", "key": f"m{it}", "content": f"word{it}"} for it in range(count)]


def _shapes() -> dict[str, list[dict[str, Any]]]:
    printed = [{"text": f"- word{index}\n", "key": f"m{index}"} for index in range(2000)]
    whole = "word1 " * 1000
    return {
        "200,000 tokens": [*_memories(3), *_turns(100, 1000)],
        "20,000 messages": [*_memories(3), *_turns(10_000, 3)],
        "2,000 memories": [*_memories(2000), *_turns(5, 5)],
        "2,000 memories in one message": [{"role": "system", "content": printed}, *_turns(2, 5)],
        "a key and a text of 1 MB": [
            {"role": "memory", "key": "k" * 2**20, "content": "word1 " * 2**17},
            *_turns(2, 5),
        ],
        "a memory that is the whole system prompt": [
            {"role": "system", "content": [{"text": whole, "key": "all"}]},
            *_turns(2, 5),
        ],
    }


COMMANDS: list[list[str]] = [
    ["score", "--all"],
    ["score", "--full"],
    ["score", "--finetune"],
    ["plan"],
]


def large(trials: int) -> Finding:
    """Scores large conversations with the toy, each in a process whose memory is measured."""
    failures, peaks = list[str](), dict[str, int]()
    with _folder() as folder:
        environment = {**os.environ, "XDG_DATA_HOME": str(folder)}
        runs = [
            (shape, lines, command) for shape, lines in _shapes().items() for command in COMMANDS
        ]
        for shape, lines, command in runs[:trials]:
            file = folder / "talk.jsonl"
            file.write_bytes(b"\n".join(msgspec.json.encode(it) for it in lines))
            arguments = [*command, str(file), "--json", "--set", "server.scorer=toy"]
            status, peak = _measured(arguments, environment, folder)
            peaks[shape] = max(peaks.get(shape, 0), peak)
            if status != 0:
                error = (folder / "stderr").read_text(encoding="utf-8")
                failures.append(f"{shape}: {' '.join(command)}: status {status}: {error:.200}")
            elif json.loads((folder / "stdout").read_bytes()).get("error") is not None:
                failures.append(f"{shape}: {' '.join(command)}: the document holds an error")
    return Finding(
        "a conversation of any size is scored",
        f"the command line, on {', '.join(peaks)}",
        min(trials, len(runs)),
        failures,
        "peak memory " + ", ".join(f"{shape}: {peak} MiB" for shape, peak in peaks.items()),
    )


# A process counts what its parent held when it was forked: this parent holds little.
_MEASURE = """
import os, sys
with open("stdout", "wb") as out, open("stderr", "wb") as err:
    actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, err.fileno(), 2)]
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss // 1024)
"""


def _measured(arguments: list[str], environment: dict[str, str], folder: Path) -> tuple[int, int]:
    """Exit status of the command and its peak memory in MiB."""
    command = [str(Path(sys.executable).with_name("mindscore")), *arguments]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    status, peak = done.stdout.split()
    return int(status), int(peak)


ATTACKS: Attacks = {
    transcripts: 60_000,
    toml: 60_000,
    scorer_answers: 50_000,
    store_imports: 30_000,
    large: 24,
}
