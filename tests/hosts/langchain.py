"""The middleware in the real LangChain, from nothing, without a network.

python tests/hosts/langchain.py
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environment import enter

enter("langchain", "langchain==1.4.7", "langgraph==1.2.22")

from scripted import ChatScripted  # noqa: E402

# This file has the host's name.
sys.path.remove(str(Path(__file__).parent))

from langchain.agents import create_agent  # noqa: E402
from langchain.agents.middleware import AgentMiddleware  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402

from mindscore.config.settings import StoreSettings  # noqa: E402
from mindscore.integrations.langchain import MindMiddleware  # noqa: E402
from mindscore.store import Review, Reviews  # noqa: E402
from mindscore.store.reviews import Decision  # noqa: E402

FACT = "The deploy key is blue-42."
KEYS = {"k0": "amber quartz lintel", "k1": "velvet harbour sonata", "k2": "copper meadow ledger"}
TURNS: list[tuple[str, str, Decision]] = [
    ("The first?", KEYS["k0"], "rejected"),
    ("The second?", KEYS["k1"], "accepted"),
    ("The third?", KEYS["k2"], "rejected"),
]
MESSAGES = 1000
Say = Callable[[Any, list[Any]], list[Any]]


def invoke(agent: Any, messages: list[Any]) -> list[Any]:
    """The messages after a run of the agent."""
    return list(agent.invoke({"messages": messages})["messages"])


def ainvoke(agent: Any, messages: list[Any]) -> list[Any]:
    """As ``invoke``, on an event loop."""
    return list(asyncio.run(agent.ainvoke({"messages": messages}))["messages"])


class Late(AgentMiddleware):
    """Adds to the system prompt inside of mindscore's middleware."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """With a memory of its own."""
        return handler(self._changed(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """As the other."""
        return await handler(self._changed(request))

    @staticmethod
    def _changed(request: Any) -> Any:
        said = f"{request.system_prompt}\n- Late is the hour."
        return request.override(system_message=SystemMessage(said))


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"{FACT} ({where})"


def settings(folder: str) -> dict[str, Any]:
    """mindscore's: the toy, and a store in a folder."""
    return {
        "server": {"scorer": "toy"},
        "memory": {"token_cutoff": 1.0, "interval_s": 0},
        "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
    }


def prove_scores(say: Say) -> None:
    """A turn with a tool, another turn, and what the memories did to both."""
    calls = [{"name": "look", "args": {"where": "notes"}, "id": "c1"}]
    replies = [AIMessage("", tool_calls=calls), AIMessage(FACT), AIMessage("Blue-42.")]
    memories = {"key": FACT, "hour": "Late is the hour."}
    with tempfile.TemporaryDirectory() as folder:
        mind = MindMiddleware(memories, settings=settings(folder), every_turns=0, idle_s=0)
        model = ChatScripted(replies=replies)
        agent = create_agent(
            model, [look], system_prompt=f"You help.\n- {FACT}", middleware=[mind, Late()]
        )
        messages = say(agent, [HumanMessage("What is the key?")])
        say(agent, [*messages, HumanMessage("Again?")])
        assert [str(it.text) for it in model.sent[-1]] == [
            f"You help.\n- {FACT}\n- Late is the hour.",
            *(str(it.text) for it in [*messages, HumanMessage("Again?")]),
        ]
        found = mind.mind.score("score-full").result(30)
        assert (found.error, mind.mind.remarks) == (None, ())
        assert set(found.scores) == {"key", "hour"}, found
        assert [it.entry_idx for it in found.scores["key"].divergences] == [1, 3, 5]
        for key, score in found.scores.items():
            signed = ", ".join(f"#{it.entry_idx} {it.signed:+.2f}" for it in score.divergences)
            sys.stdout.write(f"{say.__name__:8} {key:5} {score.score:6.2f} nats  ({signed})\n")
        mind.close()


def prove_turns(say: Say) -> None:
    """Scored by itself after a turn, from ``{key: text}`` that a callable returns."""
    with tempfile.TemporaryDirectory() as folder:
        mind = MindMiddleware(lambda: {"key": FACT}, settings=settings(folder), idle_s=0)
        agent = create_agent(
            ChatScripted(replies=[AIMessage(FACT)]), system_prompt=FACT, middleware=[mind]
        )
        say(agent, [HumanMessage("What is the key?")])
        mind.mind.registry.wait_idle(30)
        until = time.monotonic() + 30
        while "key" not in mind.mind.state.memory_scores:
            assert time.monotonic() < until, mind.mind.state
            time.sleep(0.01)
        mind.close()


def prove_decisions(say: Say) -> None:
    """Candidates are found by itself; decisions outlive the process and the thread's growth."""
    with tempfile.TemporaryDirectory() as folder:
        tables = settings(folder) | {"live": {"candidates": True}}
        reviews = Reviews(StoreSettings(url=f"sqlite:///{folder}/store.sqlite3"))
        messages: list[Any] = []
        for number, (asked, reply, decision) in enumerate(TURNS):
            # As another process each time: what was said is all that it has.
            mind = MindMiddleware(KEYS, settings=tables, idle_s=0)
            agent = create_agent(
                ChatScripted(replies=[AIMessage(reply)]),
                system_prompt=f"It is day {number}.\n{' '.join(KEYS.values())}",
                middleware=[mind],
            )
            messages = say(agent, [*messages, HumanMessage(asked)])
            until = time.monotonic() + 30
            while reply not in [it.response_text for it in mind.mind.state.finetune_candidates]:
                assert time.monotonic() < until, mind.mind.state
                time.sleep(0.01)
            leaned = mind.mind.leaned_on()
            assert leaned is not None
            assert [it.key for it in leaned] == [f"k{number}"], leaned
            mind.close()
            found = {it.candidate.response_text: it for it in asyncio.run(reviews.queue())}
            for _, earlier, decided in TURNS[:number]:
                review = found[earlier].review
                assert review is not None
                assert review.decision == decided
            made = Review(decision, "response", time.time())
            asyncio.run(reviews.decide(found[reply].name, made))
        sys.stdout.write(f"{say.__name__:8} {len(TURNS)} decisions outlived as many processes\n")


def prove_errors(say: Say) -> None:
    """The model's errors are the agent's, as ever; ours are a line in the log."""

    class Broken(ChatScripted):
        def _generate(self, *_: Any, **__: Any) -> Any:
            raise ConnectionError("the model is down")

    with tempfile.TemporaryDirectory() as folder:
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("mindscore").addHandler(handler)

        def memories() -> dict[str, str]:
            raise OSError("the notes are gone")

        mind = MindMiddleware(memories, settings=settings(folder), idle_s=0)
        agent = create_agent(ChatScripted(replies=[AIMessage("Yes.")]), middleware=[mind])
        assert say(agent, [HumanMessage("Well?")])[-1].text == "Yes."
        assert lines == ["this turn is not scored: OSError: the notes are gone"], lines
        raised = ""
        try:
            say(create_agent(Broken(), middleware=[mind]), [HumanMessage("Well?")])
        except ConnectionError as error:
            raised = str(error)
        assert raised == "the model is down", raised
        mind.close()
        agent = create_agent(ChatScripted(replies=[AIMessage("Yes.")]), middleware=[mind])
        assert say(agent, [HumanMessage("Well?")])[-1].text == "Yes."
        logging.getLogger("mindscore").removeHandler(handler)


def measure() -> None:
    """The work of the agent's own thread for a turn of a long conversation."""
    messages = [
        kind(f"{number} " * 60)
        for number in range(MESSAGES // 2)
        for kind in (HumanMessage, AIMessage)
    ]
    times = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            mind = MindMiddleware({"k": FACT}, settings=settings(folder), idle_s=0)
            hand_over = mind._hand_over

            def timed(*arguments: Any, hand_over: Any = hand_over) -> None:
                # What others do on a busy machine is none of it.
                began = time.thread_time()
                hand_over(*arguments)
                times.append(time.thread_time() - began)

            mind._hand_over = timed  # type: ignore[method-assign]
            agent = create_agent(ChatScripted(replies=[AIMessage("So.")]), middleware=[mind])
            invoke(agent, messages)
            mind.close()
    took = sorted(times)[len(times) // 2] * 1000
    sys.stdout.write(f"a turn of {MESSAGES} messages takes {took:.1f} ms of the agent's thread\n")
    assert took < 50


if __name__ == "__main__":
    for way in (invoke, ainvoke):
        prove_scores(way)
        prove_turns(way)
        prove_decisions(way)
        prove_errors(way)
    measure()
