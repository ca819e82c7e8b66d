"""What the tests share: a scripted model server, conversations, a naive second implementation."""

import asyncio
import importlib
import json
import math
import sqlite3
import sys
import textwrap
import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from hypothesis import strategies as st

from mindhooks import Context, Image, Node, Part, Registry, Role, ScorerError
from mindhooks.testing import RecordingListener, StubMind
from mindscore.config.settings import StoreSettings
from mindscore.scorers.selftest import tester as passed
from mindscore.scorers.toy import ToyScorer
from mindscore.store import Store

from .forks import ForkServer
from .imitations import stop

# -- a model server, a tokenizer ------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """One request as the server got it; ``peer`` tells connections apart."""

    method: str
    path: str
    headers: Any
    body: Any
    peer: tuple
    at: float


class ScoreServer:
    """A real HTTP server on a port of its own, in a thread of its own.

    ``script`` says what is answered, request by request; ``always`` what is answered once the
    script is at its end. An answer is JSON (a dict or a list), bytes to send as they are, a status
    without a body, or a handler: an async function that takes aiohttp's request. ``requests`` is
    what it was asked so far.
    """

    def __init__(self):
        self.requests = []
        self._script = []
        self._last = self.reply({"error": "the test's script is at its end"}, 418)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        self.url = self._run(self._start())
        return self

    def __exit__(self, *_):
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def script(self, *answers):
        self._script.extend(self._handler(answer) for answer in answers)

    def always(self, answer):
        self._last = self._handler(answer)

    @property
    def paths(self):
        return [seen.path for seen in self.requests]

    @staticmethod
    def reply(body=b"", status=200, headers=None):
        """A handler that answers ``body``: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def handler(request):
            return web.Response(body=raw, status=status, headers=headers)

        return handler

    @staticmethod
    async def honest(request):
        """Every range's total is minus its length."""
        ranges = (await request.json())["score_ranges"]
        return web.json_response(
            {"scores": [{"total_logprob": float(start - end)} for start, end in ranges]}
        )

    @staticmethod
    async def silent(request):
        """No answer, for longer than any test takes."""
        await asyncio.sleep(60)
        return web.Response()

    @staticmethod
    def raw(data):
        """A handler that writes ``data`` on the connection and ends it there."""

        async def handler(request):
            if data:
                request.transport.write(data)
            request.transport.close()
            return web.Response()

        return handler

    def _handler(self, answer):
        if callable(answer):
            return answer
        return self.reply(status=answer) if isinstance(answer, int) else self.reply(answer)

    async def _answer(self, request):
        raw = await request.read()
        is_json = request.content_type == "application/json"
        self.requests.append(
            Seen(
                method=request.method,
                path=request.path,
                headers=request.headers.copy(),
                body=json.loads(raw) if is_json else raw,
                peer=request.transport.get_extra_info("peername"),
                at=time.monotonic(),
            )
        )
        return await (self._script.pop(0) if self._script else self._last)(request)

    async def _start(self):
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self):
        await stop(self._runner)
        # Answers that their client did not wait for.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


@pytest.fixture(autouse=True)
def _no_server_was_tested(monkeypatch):
    """Ports are used again: what passed in one test is another server in the next."""
    monkeypatch.setattr(passed, "_passed", {})


@pytest.fixture(scope="session")
def forked():
    """Runs ``mindscore`` in processes that are soon there; see ``ForkServer``."""
    with ForkServer() as server:
        yield server


@pytest.fixture
def score_server():
    """A model server that the test scripts."""
    with ScoreServer() as server:
        yield server


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A byte-level BPE with ChatML's special tokens, as a ``tokenizer.json``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = (
        "system user assistant tool memory\n\nthe answer is yes, no, 42.\n- notes of the user:\n"
    )
    tokenizer.train_from_iterator([words] * 5, trainer)
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


# -- conversations, as the tests think of them ----------------------------------------------------

HEADER, END_OF_TURN, NEWLINE, COUNT = 21, 7, 22, 100


@dataclass(frozen=True)
class Said:
    """One message: stretches of ids, each with the memory printed there, or ``None``.

    With ``key`` the whole message is a memory. One that prints memories starts with a token that
    states how many: leaving one out changes more than the stretch that goes.
    """

    role: str
    stretches: tuple[tuple[tuple[int, ...], str | None], ...]
    body: tuple[int, int] = (0, 0)
    key: str | None = None
    id: str = ""
    text: str = "text"
    timestamp_ns: int | None = None
    images: tuple[str, ...] = ()

    @property
    def printed(self):
        return [key for _, key in self.stretches if key is not None]

    @property
    def keys(self):
        return ([self.key] if self.key is not None else []) + self.printed

    def ids(self, gone=frozenset()):
        left = [key for key in self.printed if key not in gone]
        count = [COUNT + len(left)] if self.printed else []
        return count + [it for ids, key in self.stretches if key not in gone for it in ids]

    def node(self):
        return Node(
            id=self.id,
            role=Role(self.role),
            text=self.text,
            token_ids=tuple(self.ids()),
            body=self.body,
            memory_key=self.key,
            timestamp_ns=self.timestamp_ns,
            images=tuple(Image("image/png", name.encode()) for name in self.images),
            parts=tuple(Part(str(ids), key) for ids, key in self.stretches),
            render=self.ids if self.printed else None,
        )


@dataclass(frozen=True)
class Talk:
    """A whole conversation; ``conversation[3]`` has the id ``c3``."""

    system: tuple[Said, ...]
    identity: tuple[Said, ...]
    conversation: tuple[Said, ...]

    def context(self):
        sections = (self.system, self.identity, self.conversation)
        return Context(*(tuple(said.node() for said in section) for section in sections))


class Say:
    """Builds conversations by hand."""

    @staticmethod
    def plain(role, *ids, **fields):
        return Said(role, ((ids, None),), **fields)

    @staticmethod
    def user(*ids, **fields):
        return Say.plain("user", *ids, **fields)

    @staticmethod
    def reply(*ids, **fields):
        """A response: header, ``ids`` and end-of-turn (the body), newline."""
        whole = (HEADER, *ids, END_OF_TURN, NEWLINE)
        return Say.plain("assistant", *whole, **{"body": (1, len(whole) - 1), **fields})

    @staticmethod
    def silent(**fields):
        """An assistant node whose body is empty."""
        return Say.plain("assistant", HEADER, NEWLINE, **fields)

    @staticmethod
    def memory(key, *ids, role="memory", **fields):
        return Say.plain(role, *ids, key=key, **fields)

    @staticmethod
    def prints(role, *stretches, **fields):
        """A message with memories in it: ``prints("user", ([1, 2], None), ([3], "k"))``."""
        return Said(role, tuple((tuple(ids), key) for ids, key in stretches), **fields)

    @staticmethod
    def talk(*conversation, system=(), identity=()):
        def named(prefix, section):
            numbered = enumerate(section)
            return tuple(replace(it, id=it.id or f"{prefix}{index}") for index, it in numbered)

        return Talk(named("s", system), named("i", identity), named("c", conversation))


@pytest.fixture
def two(say):
    """Two memories, one of them between two responses."""
    return say.talk(
        say.user(9),
        say.reply(1, 2),
        say.memory("b", 2),
        say.user(9),
        say.reply(1, 2),
        identity=[say.memory("a", 1)],
    )


@pytest.fixture(scope="session")
def say():
    """Builds conversations by hand."""
    return Say


_words = st.lists(st.integers(1, 6), min_size=1, max_size=4)
_keys = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def _told(draw, roles=("system", "user", "tool")):
    """Anything but a response: plain, a memory, or a message with memories printed inside."""
    kind = draw(st.sampled_from(["plain", "memory", "prints"]))
    if kind == "plain":
        return Say.plain(draw(st.sampled_from(roles)), *draw(_words))
    if kind == "memory":
        ids = draw(st.lists(st.integers(1, 6), max_size=4))
        return Say.memory(draw(_keys), *ids, role=draw(st.sampled_from(["memory", *roles])))
    stretches = st.lists(st.tuples(_words, st.none() | _keys), min_size=1, max_size=4)
    return Say.prints(draw(st.sampled_from(roles)), *draw(stretches))


@st.composite
def _replies(draw):
    fields = {
        "text": draw(st.sampled_from(["said", "said", "said", "", " \n"])),
        "timestamp_ns": draw(st.none() | st.integers(0, 3)),
    }
    if draw(st.integers(0, 4)) == 0:
        return Say.silent(**fields)
    return Say.reply(*draw(_words), **fields)


@st.composite
def _talks(draw):
    before = st.lists(st.one_of(_told(roles=("system",)), _replies()), max_size=2)
    turns = st.lists(st.one_of(_told(), _replies(), _replies()), max_size=10)
    return Say.talk(*draw(turns), system=draw(before), identity=draw(before))


@pytest.fixture(scope="session")
def talks():
    """Random conversations: memories in every section, whole and printed, keys more than once."""
    return _talks()


# -- section 4 a second time ----------------------------------------------------------------------


class Naive:
    """Section 4 of the contract over a ``Talk``, as plain as it can be; calls none of the code."""

    def __init__(self, talk):
        self.talk = talk
        self.length = len(talk.conversation)

    # prompts and the toy's formula

    def tokens(self, indexes, gone):
        """Every token of the prompt, with the response that it is part of, or ``None``."""
        sent = [*self.talk.system, *self.talk.identity]
        sent += [self.talk.conversation[index] for index in indexes]
        found = []
        for said in sent:
            if said.key is not None and said.key in gone:
                continue
            first, last = said.body
            for index, token in enumerate(said.ids(gone)):
                spoken = said.role == "assistant" and first <= index < last
                found.append((token, said.id if spoken else None))
        return found

    def total(self, tokens, response):
        """The response's log-probability by the toy's formula."""
        ids = [token for token, _ in tokens]
        result = 0.0
        for index, (token, owner) in enumerate(tokens):
            if owner == response:
                result += math.log(ids[:index].count(token) + 16 / 2**20) - math.log(index + 16)
        return result

    def responses(self, indexes):
        """Index and id of each response among ``indexes``."""
        said = [(index, self.talk.conversation[index]) for index in indexes]
        return [
            (index, it.id)
            for index, it in said
            if it.role == "assistant" and it.body[1] > it.body[0]
        ]

    def row(self, indexes, gone):
        """Index, id and signed divergence of each response among ``indexes``."""
        with_, without = self.tokens(indexes, set()), self.tokens(indexes, gone)
        return [
            (index, id_, self.total(with_, id_) - self.total(without, id_))
            for index, id_ in self.responses(indexes)
            if self.talk.conversation[index].key not in gone
        ]

    def after_removal(self, indexes, gone):
        """The responses that do not end before the first token that goes."""
        removed = False
        found = []
        for number, said in enumerate(
            [*self.talk.system, *self.talk.identity, *(self.talk.conversation[i] for i in indexes)]
        ):
            whole = said.key is not None and said.key in gone and said.ids() != []
            removed = removed or whole or any(key in gone for key in said.printed)
            in_conversation = number >= len(self.talk.system) + len(self.talk.identity)
            spoke = said.role == "assistant" and said.body[1] > said.body[0]
            if removed and in_conversation and spoke and said.key not in gone:
                found.append(said.id)
        return found

    # 4.1

    def positions(self):
        """Each key's first position."""
        first = [*self.talk.system, *self.talk.identity]
        every = {key for said in (*first, *self.talk.conversation) for key in said.keys}
        found = {}
        for key in every:
            if any(key in said.keys for said in first):
                found[key] = 0
            else:
                said = enumerate(self.talk.conversation)
                found[key] = min(index for index, it in said if key in it.keys)
        return found

    def is_past_cutoff(self, position, cutoff):
        lengths = [len(said.ids()) for said in self.talk.conversation]
        return sum(lengths[: position + 1]) > Fraction(str(cutoff)) * sum(lengths)

    def window(self, position, count):
        indexes = []
        for index in range(position, self.length):
            indexes.append(index)
            count -= self.talk.conversation[index].role == "assistant"
            if count == 0:
                break
        return indexes

    def status(self, key, ages, interval_s, cutoff, count):
        """What becomes of ``key``; ``ages``: seconds since each one's last score."""
        position = self.positions()[key]
        if key in ages and ages[key] < interval_s:
            return "not-due"
        if self.length and self.is_past_cutoff(position, cutoff):
            return "past-cutoff"
        if not self.responses(self.window(position, count)):
            return "no-response"
        return "scored"

    def measured(self, key, count):
        """The row of ``key`` over its own window."""
        return self.row(self.window(self.positions()[key], count), {key})

    # 4.3

    def score_memory(self, key, count):
        if key not in self.positions():
            return 0.0
        return sum(max(0.0, signed) for _, _, signed in self.measured(key, count))

    # 4.4

    def finetune_window(self, fraction):
        keep = math.floor(self.length * Fraction(str(fraction)))
        return list(range(self.length))[self.length - keep :]

    def everything(self):
        return set(self.positions())

    def ids_before(self, index, gone):
        """The prompt from the conversation's start up to the body of ``conversation[index]``."""
        said = self.talk.conversation[index]
        header = said.ids()[: said.body[0]]
        return tuple([token for token, _ in self.tokens(range(index), gone)] + header)

    def body(self, index):
        said = self.talk.conversation[index]
        return tuple(said.ids()[said.body[0] : said.body[1]])

    def candidates(self, fraction, threshold, marks, timestamps):
        """``{index: divergence}``; ``marks``: trained bodies, ``timestamps``: imported ones."""
        found = {}
        for index, _, signed in self.row(self.finetune_window(fraction), self.everything()):
            said = self.talk.conversation[index]
            trained = said.timestamp_ns in timestamps
            trained = trained or (said.timestamp_ns, self.body(index)) in marks
            if max(0.0, signed) >= threshold and said.text.strip() != "" and not trained:
                found[index] = max(0.0, signed)
        return found

    @staticmethod
    def greedy(ids, limit):
        """What the toy says after ``ids``, to the end of its turn or for ``limit`` tokens."""
        ids, said = list(ids), []
        while ids and len(said) < limit and END_OF_TURN not in said:
            most = max(ids.count(token) for token in ids)
            token = min(token for token in ids if ids.count(token) == most)
            said.append(token)
            ids.append(token)
        return tuple(said)


@pytest.fixture(scope="session")
def naive():
    """Section 4 a second time: ``naive(talk)``."""
    return Naive


# -- a host ---------------------------------------------------------------------------------------


class Host:
    """A stub mind over a conversation, with the real registry, plugins, scorer and store."""

    def __init__(self, talk, tables, file):
        self.mind = StubMind(talk.context())
        self.state = self.mind.state
        self.heard = RecordingListener()
        self.file = file
        self.store = Store(StoreSettings(**tables["store"]))
        self.registry = Registry(self.mind, tables)

    async def __aenter__(self):
        self.registry.load_entry_points()
        self.registry.register(self.heard, name="heard")
        return self

    async def __aexit__(self, *_):
        await self.registry.aclose()

    async def run(self, command):
        """Dispatch, wait for the end, and return the answers."""
        answers = self.registry.dispatch(command)
        await self.registry.wait_idle()
        return answers

    @property
    def outcomes(self):
        """What became of each memory in the last run."""
        return {key: it.status for key, it in self.state.memory_last_run.outcomes.items()}

    @property
    def lines(self):
        """The activity lines that name their steps."""
        return [line for line in self.mind.lines if line[1:] != (None, None)]

    def rows(self, table):
        """A table of the store as it is on disk, each row a dict."""
        if not self.file.exists():
            return []
        with closing(sqlite3.connect(self.file)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Makes a host with a store of its own: ``async with host(talk, memory={…}) as it``."""
    folder = tmp_path_factory.mktemp("hosts")

    def make(talk, scorer="toy", file=None, **tables):
        file = file or folder / f"{uuid.uuid4().hex}.sqlite3"
        server = {"scorer": scorer, **tables.pop("server", {})}
        store = {"url": f"sqlite:///{file}", **tables.pop("store", {})}
        return Host(talk, {"server": server, "store": store, **tables}, file)

    return make


class Probe(ToyScorer):
    """The toy, but it keeps what it was asked, and fails or waits where a test wants it to."""

    def __init__(self):
        super().__init__()
        self.asked = []
        """Every prompt that was to be scored."""
        self.continued = []
        """Every prompt that was to be continued, with the limit and the stop tokens."""
        self.refuses = lambda prompt: False
        self.waits = lambda prompt: False
        self.waiting, self.go = asyncio.Event(), asyncio.Event()
        self.closed = 0

    async def score(self, prompts):
        self.asked += prompts
        await self._pass(prompts)
        return await super().score(prompts)

    async def generate(self, prompt, *, max_tokens, stop):
        self.continued.append((prompt, max_tokens, tuple(stop)))
        await self._pass([prompt])
        return await super().generate(prompt, max_tokens=max_tokens, stop=stop)

    async def _pass(self, prompts):
        if any(map(self.waits, prompts)):
            self.waiting.set()
            await self.go.wait()
        if any(map(self.refuses, prompts)):
            raise ScorerError("the probe refuses")

    async def aclose(self):
        self.closed += 1


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """A ``Probe``, installed as the scorer of that name."""
    scorer = Probe()
    module = ModuleType("probe_of_the_test")
    module.build = lambda table: scorer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    info = tmp_path / "site" / "probe-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
    entry = f"probe = {module.__name__}:build"
    info.joinpath("entry_points.txt").write_text(f"[mindhooks.scorers]\n{entry}\n")
    monkeypatch.syspath_prepend(info.parent)
    importlib.invalidate_caches()
    return scorer


class Clock:
    """The time of day, which passes when a test says so."""

    def __init__(self):
        self.now = 1_700_000_000.0


@pytest.fixture
def clock(monkeypatch):
    """Stands in for the computer's clock."""
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


# -- distributions --------------------------------------------------------------------------------


@pytest.fixture
def install_extension(tmp_path, monkeypatch):
    """Install a distribution of one entry point: ``(group, name, source, target, distribution)``.

    ``target`` is what the entry point names in the module of that source: ``":Class"`` or nothing.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def install(group, name, source, target, distribution=None):
        module = distribution or f"{name}_of_the_test"
        site.joinpath(f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        monkeypatch.delitem(sys.modules, module)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[{group}]\n{name} = {module}{target}\n")
        importlib.invalidate_caches()

    return install
