"""A served scorer on a real socket, and a client for it."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from mindscore.http.runner import listen
from mindscore.scorers.toy import ToyScorer
from mindscore.serve.app import make_app

PATIENCE_S = 20


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Any

    @property
    def error(self):
        """The error in it, in the shape that every error has."""
        assert self.body.keys() == {"error"}
        error = self.body["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == self.status
        assert len(error["message"].splitlines()) == 1
        return error


class Client:
    """Asks one server; ``url`` is its root."""

    def __init__(self, url, session):
        self.url = url
        self._session = session

    async def ask(self, method, path, **options):
        async with self._session.request(method, self.url + path, **options) as response:
            assert response.content_type == "application/json"
            return Answer(response.status, await response.json(), response.headers)

    async def get(self, path, **options):
        return await self.ask("GET", path, **options)

    async def post(self, path, body, **options):
        return await self.ask("POST", path, json=body, **options)

    async def until(self, **state):
        """Wait until ``/health`` says so: ``until(queued=2)``."""
        async with asyncio.timeout(PATIENCE_S):
            while not state.items() <= (await self.get("/health")).body.items():
                pass


@pytest.fixture
def served():
    """``async with served(scorer, key="…") as client``; without a scorer, the toy."""

    @asynccontextmanager
    async def served(scorer=None, headers=None, **options):
        async with (
            listen(make_app(scorer or ToyScorer(), **options)) as listening,
            aiohttp.ClientSession(headers=headers) as session,
        ):
            yield Client(listening.address, session)

    return served


class HeldScorer(ToyScorer):
    """Scores once ``release()`` is called for it; keeps who was asked, and who was cancelled.

    A prompt is known by its first token.
    """

    def __init__(self):
        super().__init__()
        self.began, self.cancelled = [], []
        self._places = asyncio.Semaphore(0)

    def release(self, count=1):
        for _ in range(count):
            self._places.release()

    async def score(self, prompts):
        name = prompts[0].tokens[0]
        self.began.append(name)
        try:
            await self._places.acquire()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return await super().score(prompts)


@pytest.fixture
def held():
    """A scorer that waits to be released."""
    return HeldScorer()


@pytest.fixture
def scored():
    """A body for ``/v1/score``: ``scored(7, priority=1)``."""
    return lambda name=1, **more: {"prompt": [name, 5, 5], "score_ranges": [[1, 3]], **more}
