"""A report of a run on a server that says nothing more once it was measured."""

import asyncio
from typing import ClassVar

from mindhooks import MindCommand
from mindscore.report.page import HtmlReport
from mindscore.session.session import Session

from ..imitations import VLLMImitation


class Hanging(VLLMImitation):
    """Answers all but what tokens mean."""

    routes: ClassVar = {**VLLMImitation.routes, ("POST", "/detokenize"): "detokenize"}

    async def detokenize(self, body):
        await asyncio.Event().wait()


async def test_words_that_a_server_does_not_say_are_not_waited_for(tmp_path, made_up):
    file = tmp_path / "report.html"
    async with Hanging() as server:
        tables = {
            "server": {
                "scorer": "vllm", "base_url": server.url, "model": "toy", "self_test": False,
            },
            "memory": {"token_cutoff": 1.0},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
            "plugins": {"settings": {"memory-scoring": {"tokens": True}}},
        }  # fmt: skip
        report = HtmlReport(file, tables, patience_s=0.2)
        async with Session(made_up().transcript).open(tables) as session:
            keys = tuple(session.transcript.keys())
            result = await session.attempt(MindCommand.SCORE_FULL, keys)
            async with asyncio.timeout(20):
                found = await report.with_words(session, result)
    assert found.error is None
    assert not found.words
    report.write(found)
    why = "the server did not say within 0.2 s what their tokens are"
    assert f'"without_words":"{why}"' in file.read_text(encoding="utf-8")
