"""The tokens of an hour, where several processes send for one store."""

import asyncio
import json
import subprocess
import sys
import threading
import time

import pytest

from mindhooks import MindCommand, ScorerError, ScorerUnavailable
from mindscore.config.settings import StoreSettings
from mindscore.session import hourly_tokens
from mindscore.session.hourly_tokens import LAPSE_S, HourlyTokens
from mindscore.store import Grant, History, Reservation, Reservations

from ..living import PATIENCE_S, Agent

HOUR_S = 3600.0
LIMIT = 400


def stored(tmp_path):
    return StoreSettings(url=f"sqlite:///{tmp_path}/store.sqlite3")


def sent(tmp_path):
    """The tokens of all runs that the store has."""
    return sum(it for _, it in asyncio.run(History(stored(tmp_path)).tokens_sent(time.time())))


def reserve_elsewhere(tmp_path, tokens):
    """Reserve as another process does, whose run goes on."""
    reservations = Reservations(stored(tmp_path))
    return asyncio.run(reservations.reserve("elsewhere", lambda *_: Grant(tokens)))


def many(count=8):
    return {f"m{it}": f"Fact {it} is about tea of kind {it}." for it in range(count)}


def limited(folder, **tables):
    live = {"tokens_per_hour": LIMIT} | tables.pop("live", {})
    memory = {"token_cutoff": 1.0, "interval_s": 7200}
    return Agent(folder, memories=many(), live=live, memory=memory, **tables)


AGENT = """
import json, sys
sys.path.insert(0, sys.argv[2])
from mindscore.session.attach import attach
memories = {f"m{it}": f"Fact {it} is about tea of kind {it}." for it in range(8)}
head = "You help.\\n- " + "\\n- ".join(memories.values())
said = [("system", head), ("user", f"Which tea, {sys.argv[3]}?"), ("assistant", "Fact 3, tea.")]
messages = [{"role": role, "content": text} for role, text in said]
with attach(lambda: messages, memories, settings=json.loads(sys.argv[1]), idle_s=0) as mind:
    print("ready", flush=True)
    sys.stdin.readline()
    mind.turn_ended()
    mind._under_way.result(60)
    mind.registry.wait_idle(60)
"""


def test_processes_that_begin_at_once_stay_within_the_hour_together(tmp_path):
    tables = {
        "server": {"scorer": "toy"},
        "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
        "memory": {"token_cutoff": 1.0, "interval_s": 7200},
        "live": {"tokens_per_hour": LIMIT},
    }
    command = [sys.executable, "-c", AGENT, json.dumps(tables), "."]
    started = [
        subprocess.Popen(
            [*command, str(it)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for it in range(3)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=120)
    assert [it.returncode for it in started] == [0] * 3
    assert 0 < sent(tmp_path) <= LIMIT


def test_what_another_process_has_reserved_is_not_sent(tmp_path):
    assert reserve_elsewhere(tmp_path, LIMIT - 10) == LIMIT - 10
    with limited(tmp_path) as agent:
        agent.turn("Which tea?", "Tea of kind 3, fact 3.")
        assert sent(tmp_path) <= 10
        asyncio.run(Reservations(stored(tmp_path)).release("elsewhere"))
        agent.turn("And?", "So.")
        assert 10 < sent(tmp_path) <= LIMIT


def reserved(tmp_path):
    """What is reserved in the store."""
    found = []

    def look(_, reservations):
        found.extend(reservations)
        return Grant(0)

    asyncio.run(Reservations(stored(tmp_path)).reserve("nobody", look))
    return found


def test_an_agent_that_is_closed_while_it_scores_leaves_nothing_reserved(tmp_path):
    with limited(tmp_path) as agent:
        asked = asyncio.Event()
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)

        async def hang(prompts):
            asked.set()
            await asyncio.Event().wait()

        scorer.score = hang
        agent.say("Which tea?", "Tea of kind 3, fact 3.")
        agent.mind.turn_ended()
        limit = time.monotonic() + PATIENCE_S
        while not asked.is_set():
            assert time.monotonic() < limit
            time.sleep(0.01)
        [mine] = reserved(tmp_path)
        assert 0 < mine.tokens <= LIMIT
    assert reserved(tmp_path) == []


def test_a_run_that_nobody_waits_for_any_more_keeps_what_it_has_reserved(tmp_path):
    with limited(tmp_path) as agent:
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)
        score, asked, goes_on = scorer.score, threading.Event(), threading.Event()

        async def wait(prompts):
            asked.set()
            await asyncio.to_thread(goes_on.wait, PATIENCE_S)
            return await score(prompts)

        scorer.score = wait
        agent.say("Which tea?", "Tea of kind 3, fact 3.")
        scoring = agent.mind.score_within_hour(MindCommand.SCORE)
        assert asked.wait(PATIENCE_S)
        scoring.cancel()
        # After the cancellation.
        agent.mind.registry.submit(asyncio.sleep(0.1)).result(PATIENCE_S)
        [mine] = reserved(tmp_path)
        goes_on.set()
        # It comes after that run.
        agent.mind.score_within_hour(MindCommand.SCORE).result(PATIENCE_S)
        assert 0 < sent(tmp_path) <= mine.tokens
        assert reserved(tmp_path) == []


def test_a_run_gives_back_what_it_needs_no_more_before_it_sends_anything(tmp_path):
    with limited(tmp_path, live={"tokens_per_hour": 100_000}) as agent:
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)
        score, seen = scorer.score, []

        async def noted(prompts):
            seen.extend(it.tokens for it in await asyncio.to_thread(reserved, tmp_path))
            return await score(prompts)

        scorer.score = noted
        agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    assert sent(tmp_path) <= max(seen) <= 2 * sent(tmp_path)


# -- what a process that died has reserved --------------------------------------------------------


@pytest.fixture
def clocks(monkeypatch):
    """``clocks(seconds, awake)``: let time pass, of which the machine is awake for so long."""
    now = {"time": 1.7e9, "monotonic": 500.0}

    class Time:
        time = staticmethod(lambda: now["time"])
        monotonic = staticmethod(lambda: now["monotonic"])

    monkeypatch.setattr(hourly_tokens, "time", Time)

    def clocks(seconds=0.0, awake=None):
        now["time"] += seconds
        now["monotonic"] += max(0.0, seconds) if awake is None else awake
        return now["time"]

    return clocks


def left(tokens, *reservations):
    """What is left beside reservations, and which have lapsed."""
    grant = tokens.reserve("mine", 100, 0.0, (), reservations)
    tokens.settle("mine", 0.0, 0, ())
    return grant.tokens, [it.id for it in grant.lapsed]


def test_what_a_process_that_died_reserved_counts_for_an_hour_and_frees_itself(clocks):
    tokens, dead = HourlyTokens(), Reservation("dead", 70, clocks())
    assert left(tokens, dead) == (30, [])
    clocks(HOUR_S - 1)
    assert left(tokens, dead) == (30, [])
    clocks(2)
    assert left(tokens, dead) == (100, ["dead"])


def test_a_new_process_soon_frees_what_one_reserved_that_died_long_ago(clocks):
    dead = Reservation("dead", 70, clocks() - 5 * HOUR_S)
    tokens = HourlyTokens()
    assert left(tokens, dead) == (30, [])
    clocks(LAPSE_S)
    assert left(tokens, dead) == (100, ["dead"])


def test_processes_that_live_shortly_free_it_after_a_day(clocks):
    dead = Reservation("dead", 70, clocks())
    clocks(23 * HOUR_S)
    assert left(HourlyTokens(), dead) == (30, [])
    clocks(HOUR_S)
    assert left(HourlyTokens(), dead) == (100, ["dead"])


def test_a_run_that_sleeps_with_the_machine_keeps_what_it_has_reserved(clocks):
    tokens, before = HourlyTokens(), Reservation("asleep", 70, clocks())
    assert left(tokens, before) == (30, [])
    clocks(8 * HOUR_S, awake=20.0)
    assert left(tokens, before) == (30, [])
    clocks(60.0)
    renewed = Reservation("asleep", 70, clocks())
    assert left(tokens, renewed) == (30, [])
    clocks(600.0)
    assert left(tokens, renewed) == (30, [])


def test_a_clock_that_is_set_back_holds_nothing_back_for_ever(clocks):
    tokens, dead = HourlyTokens(), Reservation("dead", 70, clocks() + 365 * 24 * HOUR_S)
    assert left(tokens, dead) == (30, [])
    clocks(HOUR_S)
    assert left(tokens, dead) == (100, ["dead"])


def test_a_run_that_goes_on_renews_what_it_has_reserved(tmp_path, monkeypatch):
    monkeypatch.setattr(hourly_tokens, "RENEWED_S", 0.001)
    with limited(tmp_path) as agent:
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)
        score, seen = scorer.score, []

        async def slow(prompts):
            limit = time.monotonic() + PATIENCE_S
            while len(set(seen)) < 3:
                assert time.monotonic() < limit
                seen.extend(it.renewed_at for it in await asyncio.to_thread(reserved, tmp_path))
                await asyncio.sleep(0.01)
            return await score(prompts)

        scorer.score = slow
        agent.turn("Which tea?", "Tea of kind 3, fact 3.")
        assert agent.mind.state.memory_scores
        assert seen == sorted(seen)


# -- what was really sent -------------------------------------------------------------------------


def test_requests_that_are_made_again_count(tmp_path):
    with limited(tmp_path, server={"scorer": "toy"}) as agent:
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)
        score, asked = scorer.score, []

        async def often(prompts):
            asked.append(sum(len(it.tokens) for it in prompts))
            if len(asked) % 2:
                raise ScorerUnavailable("busy", retry_after=0.0)
            return await score(prompts)

        scorer.score = often
        agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    assert agent.mind.state.memory_last_run.error is None
    assert sent(tmp_path) == sum(asked) == 2 * agent.mind.state.memory_last_run.prompt_tokens


def test_requests_that_reached_no_model_do_not_count(tmp_path):
    with limited(tmp_path) as agent:
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)

        async def refuse(prompts):
            error = ScorerError("no such address")
            error.arrived = False
            raise error

        scorer.score = refuse
        agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    assert agent.mind.state.memory_last_run.error is not None
    assert sent(tmp_path) == 0


def test_a_search_that_cannot_be_counted_is_not_run_and_says_why(tmp_path):
    with limited(tmp_path) as agent:
        scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(30)
        tokenize, score, failed, asked = scorer.tokenize, scorer.score, [], []

        async def fail_once(text):
            if not failed:
                failed.append(text)
                raise ScorerError("no tokenizer today")
            return await tokenize(text)

        async def noted(prompts):
            asked.append(prompts)
            return await score(prompts)

        scorer.tokenize, scorer.score = fail_once, noted
        agent.say("Which tea?", "Tea of kind 3, fact 3.")
        search = agent.mind.score_within_hour
        assert search(MindCommand.SCORE_FINETUNE).result(30).result.error == "no tokenizer today"
        assert asked == []
        assert search(MindCommand.SCORE_FINETUNE).result(30).result.error is None
        assert asked != []
