"""A review page served for real, over a store that real runs of the toy scorer have filled."""

import asyncio
import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mindscore.config.settings import parse_settings
from mindscore.conversation.native import read_transcript
from mindscore.review.app import served
from mindscore.review.runs import Runs
from mindscore.review.stream import DEFAULT_PACE
from mindscore.session.session import Session
from mindscore.store import Reviews, Store

PATIENCE_S = 30
END = "<|im_end|>"
NOTED = ("error", "warning")

MEMORIES = {
    "tea": "Nora drinks rooibos tea in the evening, never coffee.",
    "dog": "Nora has an old dog called Max.",
    "office": "Nora works in an office near the harbour on Tuesdays.",
    "piano": "Nora played the piano as a child.",
}
TURNS = [
    ("What shall I drink?", "Drink rooibos tea, as in every evening, and no coffee."),
    ("Who is at the door?", "Nobody but your old dog Max."),
    ("Where am I on Tuesdays?", "In the office near the harbour."),
    ("And tonight?", "Rooibos tea again, with Max, far from the office."),
    ("Good night.", "Good night, Nora."),
]


def conversation(memories=MEMORIES, turns=TURNS):
    """The lines of a transcript."""
    lines = [{"role": "system", "content": "You help Nora."}]
    lines += [{"role": "memory", "key": key, "content": text} for key, text in memories.items()]
    for asked, said in turns:
        lines += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return lines


class Page:
    """A page that is served in a thread of its own; ``address`` is what the command prints."""

    def __init__(self, tables, transcript=None, pace=DEFAULT_PACE):
        self.tables = tables
        self._pace = pace
        self.settings = parse_settings(tables)
        self._transcript = transcript
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        self.address = self.run(self._start())
        self.url = self.address.partition("/?")[0]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_):
        self.run(self._serving.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self):
        self.runs = Runs(self._transcript, self.tables)
        self._serving = served(self.settings, self.runs, 0, self._pace)
        return await self._serving.__aenter__()

    def run(self, coroutine):
        """The result of a coroutine that runs on the page's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    def queue(self):
        """What the store says of the candidates, the largest divergence first."""
        return self.run(Reviews(self.settings.store).queue())

    def record(self, candidate, model="toy"):
        """Put a candidate in the store."""
        self.run(Store(self.settings.store).record_candidate(candidate, model))

    def decisions(self):
        """What was decided: a decision and an answer, or None, for each candidate."""
        return [it.review and (it.review.decision, it.review.answer) for it in self.queue()]


def settings_of(file):
    """The toy, the store in ``file``, every response a candidate."""
    return {
        "server": {"scorer": "toy"},
        "memory": {"interval_s": 0, "token_cutoff": 1.0},
        "finetune": {"threshold": 0.0, "window_fraction": 1.0},
        "store": {"url": f"sqlite:///{file}"},
    }


def written(folder, lines):
    """Lines as a transcript."""
    file = folder / "talk.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")
    return read_transcript(file)


@pytest.fixture
def tables(tmp_path):
    """Settings with a store of the test's own."""
    return settings_of(tmp_path / "store.sqlite3")


@pytest.fixture
def transcript(tmp_path):
    """A transcript: ``transcript()``, or of some other lines."""
    return lambda lines=None: written(tmp_path, lines or conversation())


def fill(tables, transcript, *commands, alternate="Drink what you like."):
    """Run commands, and give each candidate an alternate that ends as it should."""

    async def run():
        async with Session(transcript).open(tables) as session:
            for command in commands:
                await session.run(command)
            scorer, store = await session.registry.scorer(), Store(parse_settings(tables).store)
            for candidate in session.candidates:
                ids = await scorer.tokenize(alternate + END)
                better = replace(candidate, alternate_text=alternate, alternate_ids=tuple(ids))
                await store.record_candidate(better, scorer.model)

    asyncio.run(run())


@pytest.fixture(scope="session")
def store_file(tmp_path_factory):
    """A store that holds runs, memories, a matrix and five candidates; to be copied."""
    folder = tmp_path_factory.mktemp("review")
    file = folder / "store.sqlite3"
    talk = written(folder, conversation())
    fill(settings_of(file), talk, "score", "score", "score-full", "score-finetune")
    return file


@pytest.fixture
def filled(tables, store_file, tmp_path):
    """Settings with a store of the test's own, a copy of ``store_file``."""
    shutil.copy(store_file, tmp_path / "store.sqlite3")
    return tables


@pytest.fixture
def reviewing():
    """``with reviewing(tables, transcript) as page``."""

    @contextmanager
    def reviewing(tables, transcript=None, **options):
        with Page(tables, transcript, **options) as page:
            yield page

    return reviewing


class Gated:
    """Answers of a model server that wait until they are let go."""

    def __init__(self, server):
        self._open = threading.Event()
        self._honest = server.honest
        server.always(self._answer)

    async def _answer(self, request):
        await asyncio.to_thread(self._open.wait, PATIENCE_S)
        return await self._honest(request)

    def open(self):
        """Let all answers go, those to come as well."""
        self._open.set()


@pytest.fixture
def gated(score_server, tables, tokenizer_file):
    """A model server that answers once it is told to; ``tables`` lead to it."""
    tables["server"] = {
        "scorer": "score", "base_url": score_server.url, "model": "far away",
        "tokenizer": str(tokenizer_file), "self_test": False, "max_attempts": 1,
    }  # fmt: skip
    found = Gated(score_server)
    yield found
    found.open()


@pytest.fixture
def opened(browser):
    """``with opened(page.address) as tab``: a tab of a browser of its own.

    At the end, nothing may be in its console but what the test takes out of ``tab.complaints``.
    """

    @contextmanager
    def opened(address, width=1440, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        tab = context.new_page()
        tab.complaints = []
        tab.set_default_timeout(PATIENCE_S * 1000)
        tab.on("console", lambda it: it.type in NOTED and tab.complaints.append(it.text))
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        try:
            tab.goto(address)
            yield tab
            assert tab.complaints == []
        finally:
            context.close()

    return opened
