"""The plugin in Hermes within the tokens of an hour, and decisions on its candidates."""

import asyncio
import threading
import time

import pytest

from mindscore._util.errors import ErrorLog
from mindscore.config.settings import StoreSettings
from mindscore.integrations.hermes import plugin as hermes
from mindscore.integrations.hermes.capture import Worker
from mindscore.session import hourly_tokens
from mindscore.store import History, Review, Reviews, Store

from ...living import HandClock, eventually
from .conftest import ANSWER, HELIX, QUESTION, SYSTEM, Hermes


@pytest.fixture
def stored(tmp_path):
    return StoreSettings(url=f"sqlite:///{tmp_path}/store.sqlite3", namespace="hermes")


@pytest.fixture
def budget(configure):
    """Sets the tokens of an hour."""

    def budget(tokens, more="", idle_s=0.02):
        configure(f'[server]\nscorer = "toy"\n[live]\ntokens_per_hour = {tokens}\n{more}', idle_s)

    return budget


def sent(stored):
    return sum(it.prompt_tokens for it in asyncio.run(History(stored).runs()))


def decide(stored, text, decision):
    found = asyncio.run(Reviews(stored).queue())
    [it] = [it for it in found if it.candidate.response_text == text]
    asyncio.run(Reviews(stored).decide(it.name, Review(decision, "response", time.time())))
    return it.candidate


def restarted(agent):
    """Hermes in another process: with the same files, and nothing in memory."""
    hourly_tokens.hourly_tokens.cache_clear()
    again = Hermes(agent.folder)
    hermes.register(again)
    return again


def grown(turns):
    """The request of a session's next turn."""
    messages = [{"role": "system", "content": SYSTEM}]
    for asked, said in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return messages


def test_decisions_survive_a_restart_and_the_growth_of_a_session(agent, stored, configure, capsys):
    configure('[server]\nscorer = "toy"\n[finetune]\nwindow_fraction = 1.0\n')
    builds = "Builds last forty minutes, you said."
    agent.turn()
    agent.turn(
        [*grown([(QUESTION, ANSWER)]), {"role": "user", "content": "And the builds?"}], said=builds
    )
    agent.cli("score")
    decide(stored, ANSWER, "rejected")
    built = decide(stored, builds, "accepted")
    agent = restarted(agent)
    turns = [(QUESTION, ANSWER), ("And the builds?", builds)]
    helix = f"Once more: {HELIX}"
    agent.turn([*grown(turns), {"role": "user", "content": "In full?"}], said=helix)
    agent.cli("score")
    capsys.readouterr()
    agent.cli("candidates")
    lines = capsys.readouterr().out.splitlines()
    said = {line[25:]: line.split()[2] for line in lines}
    assert said == {ANSWER: "rejected", builds: "accepted", helix: "waiting"}
    accepted = [(built.timestamp_ns, built.continuation_ids)]
    asyncio.run(Store(stored).mark_trained(accepted, "job"))
    agent = restarted(agent)
    agent.turn([*grown([*turns, ("In full?", helix)]), {"role": "user", "content": "So?"}])
    agent.cli("score")
    capsys.readouterr()
    assert builds not in agent.chat("candidates")
    assert ANSWER in agent.chat("candidates")


def test_an_idle_agent_scores_within_the_hour_and_its_turns_wait(agent, stored, budget, capsys):
    budget(500)
    for number in range(4):
        agent.turn(session=f"s{number}")
    queue = agent.queue()
    worker = agent.commands["mind"].__self__.worker
    eventually(lambda: worker._again is not None)
    assert 0 < sent(stored) <= 500
    waiting = queue.waiting().turns
    assert waiting > 0
    assert f"Tokens of the last hour: {sent(stored)} of 500" in agent.chat("status")
    assert f"{waiting} turn" in agent.chat("status")
    # By hand it does not wait.
    agent.cli("score")
    assert queue.waiting().turns == 0
    assert sent(stored) > 500
    assert f"The last reply leaned on: {HELIX}" in capsys.readouterr().out


def test_turns_that_wait_are_scored_in_the_hours_after_it_by_another_process_too(
    agent, stored, budget, monkeypatch
):
    budget(500)
    for number in range(3):
        agent.turn(session=f"s{number}")
    worker = agent.commands["mind"].__self__.worker
    eventually(lambda: worker._again is not None)
    worker.end()
    used = sent(stored)
    agent = restarted(agent)
    agent.turn(session="s3")
    worker = agent.commands["mind"].__self__.worker
    eventually(lambda: worker._again is not None)
    # What the process before it has sent counts.
    assert sent(stored) == used <= 500
    worker.end()
    now, hours = time.time, 0
    while agent.queue().waiting().turns:
        hours += 1
        monkeypatch.setattr(time, "time", lambda: now() + 3700 * hours)  # noqa: B023
        before, agent = sent(stored), restarted(agent)
        agent.commands["mind"].__self__._score_beside(lambda: True, asked=False)
        assert sent(stored) - before <= 500
        assert hours < 12
    assert len(asyncio.run(Reviews(stored).queue())) == 1
    assert hours > 1


def test_a_session_too_large_for_any_hour_is_said_and_holds_up_no_other(
    agent, stored, budget, caplog
):
    agent.turn(session="long", messages=[
        {"role": "system", "content": SYSTEM}, {"role": "user", "content": "Well? " * 500}
    ])  # fmt: skip
    agent.turn(session="short")
    budget(650)
    commands = agent.commands["mind"].__self__
    assert commands._score_beside(lambda: True, asked=False) is None
    assert agent.queue().waiting().sessions == 1
    assert agent.queue().next().session == "long"
    assert any("more tokens than live.tokens_per_hour = 650" in it for it in caplog.messages)


def test_candidates_are_left_alone_when_idle_if_the_settings_say_so(agent, stored, budget):
    budget(0, "candidates = false\n")
    agent.turn()
    eventually(lambda: agent.queue().waiting().turns == 0)
    assert "No candidate" in agent.chat("candidates")
    agent.turn(session="s2")
    agent.cli("score")
    assert ANSWER in agent.chat("candidates")


def test_a_machine_that_slept_was_idle_and_what_waits_is_tried_again(caplog):
    clock, calls = HandClock(), []
    answers = [7200.0, None]

    def score(_):
        calls.append(clock.now())
        return answers[len(calls) - 1]

    worker = Worker(score, lambda: 60.0, lambda: None, ErrorLog("x"), clock)
    worker.turn_ended()
    eventually(lambda: not worker._is_unprepared)
    assert calls == []

    def wake():
        with worker._changed:
            worker._changed.notify()

    for seconds in (8 * 3600, 7100, 100, 9000):
        clock.pass_s(seconds)
        wake()
        threading.Event().wait(0.05)
    eventually(lambda: len(calls) == 2)
    assert calls == [1000.0 + 8 * 3600, 1000.0 + 8 * 3600 + 7200]
    worker.end()
