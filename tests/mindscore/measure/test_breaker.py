"""The circuit breaker: a server that is down ends a run, not each of its calls in turn."""

import pytest

from mindhooks import Generated, MindCommand, RangeScore, ScorerError, ScorerUnavailable
from mindscore.measure.retry import Breaker, BreakerError

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE
MEMORIES = 12


def fails(breaker, error):
    with pytest.raises(ScorerError) as caught, breaker.call():
        raise error
    return caught.value


def works(breaker):
    with breaker.call():
        pass


def test_it_opens_with_the_call_that_is_one_too_many_and_stays_open():
    breaker = Breaker(3)
    down = ScorerUnavailable("the server is down")
    assert fails(breaker, down) is down
    assert fails(breaker, down) is down
    opened = fails(breaker, down)
    assert isinstance(opened, BreakerError)
    assert "3 calls" in str(opened)
    assert "server.breaker_failures" in str(opened)
    assert str(opened).endswith("the server is down")
    with pytest.raises(BreakerError):
        works(breaker)


def test_one_failure_opens_it_where_one_is_the_limit():
    assert isinstance(fails(Breaker(1), ScorerUnavailable("down")), BreakerError)


def test_an_answer_in_between_begins_the_count_anew():
    breaker = Breaker(2)
    for _ in range(5):
        assert not isinstance(fails(breaker, ScorerUnavailable("down")), BreakerError)
        works(breaker)


def test_a_refusal_shows_that_somebody_is_there():
    breaker = Breaker(2)
    for _ in range(5):
        assert not isinstance(fails(breaker, ScorerUnavailable("down")), BreakerError)
        assert not isinstance(fails(breaker, ScorerError("no such model")), BreakerError)


def test_a_call_that_is_cancelled_counts_as_nothing():
    breaker = Breaker(1)
    with pytest.raises(KeyboardInterrupt), breaker.call():
        raise KeyboardInterrupt
    works(breaker)


# -- in the flows ---------------------------------------------------------------------------------


@pytest.fixture
def many(say):
    """Memories in the conversation, each with a window, and so a baseline, of its own."""
    turns = []
    for number in range(MEMORIES):
        turns += [say.memory(f"m{number:02}", 1 + number), say.user(9), say.reply(1, 2)]
    return say.talk(*turns, say.user(9), say.reply(1))


@pytest.fixture
def down():
    """A server's address where nobody listens, one attempt a call, and one call at a time."""
    return {
        "scorer": "score",
        "base_url": "http://127.0.0.1:1",
        "max_attempts": 1,
        "concurrency": 1,
        "breaker_failures": 3,
        "self_test": False,
    }


@pytest.mark.parametrize("most", [1, 3, 5])
async def test_a_run_stops_after_that_many_calls_with_the_cause(most, many, host, down):
    server = {**down, "breaker_failures": most}
    async with host(many, server=server, memory={"token_cutoff": 1.0}) as it:
        await it.run(SCORE)
        stats = it.state.memory_last_run
    # None of them reached a server.
    assert stats.calls == stats.prompt_tokens == 0
    assert set(it.outcomes.values()) == {"failed"}
    assert len(it.outcomes) == MEMORIES
    assert "cannot connect" in stats.error
    assert f"{most} calls" in stats.error
    assert it.heard.scores == []
    assert not it.state.scoring_in_flight


async def test_a_matrix_stops_at_its_baseline(many, host, down):
    async with host(many, server=down) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == 0
        assert "cannot connect" in it.state.memory_last_run.error


async def test_what_was_scored_before_is_kept_and_shown(many, host, probe, monkeypatch):
    honest, asked = probe.score, []

    async def score(prompts):
        asked.append(prompts)
        if len(asked) > 6:
            raise ScorerUnavailable("the server went away")
        return await honest(prompts)

    monkeypatch.setattr(probe, "score", score)
    server = {"concurrency": 1, "max_attempts": 1}
    async with host(many, "probe", server=server, memory={"token_cutoff": 1.0}) as it:
        await it.run(SCORE)
        kept = {memory.key for memory in await it.store.memories()}
        stats = it.state.memory_last_run
    assert kept == {score.key for score in it.heard.scores} == {"m00", "m01", "m02"}
    # The memory that was first met by a failure has its own; those never asked have the run's.
    assert stats.calls == 6 + 3
    assert stats.error.startswith("stopped: ")
    assert list(it.outcomes.values()).count("failed") == MEMORIES - 3


async def test_the_next_run_tries_again(many, host, probe, monkeypatch):
    honest = probe.score

    async def score(prompts):
        raise ScorerUnavailable("down")

    async with host(many, "probe", server={"max_attempts": 1}, memory={"token_cutoff": 1.0}) as it:
        monkeypatch.setattr(probe, "score", score)
        await it.run(SCORE)
        assert it.heard.scores == []
        monkeypatch.setattr(probe, "score", honest)
        await it.run(SCORE)
        assert it.state.memory_last_run.error is None
        assert len(it.heard.scores) == MEMORIES


async def test_alternates_stop_and_every_candidate_still_goes_out(say, host, probe, monkeypatch):
    asked = []

    async def score(prompts):
        return [[RangeScore(-1.0 if 5 in p.tokens else -9.0) for _ in p.ranges] for p in prompts]

    async def generate(prompt, *, max_tokens, stop):
        asked.append(prompt)
        if len(asked) > 1:
            raise ScorerUnavailable("the server went away")
        return Generated((1,), "one")

    monkeypatch.setattr(probe, "score", score)
    monkeypatch.setattr(probe, "generate", generate)
    turns = [it for n in range(8) for it in (say.user(9), say.reply(10 + n))]
    talk = say.talk(*turns, identity=[say.memory("k", 5)])
    finetune = {"generate_alternates": True, "window_fraction": 1.0}
    server = {"breaker_failures": 2, "max_attempts": 1}
    async with host(talk, "probe", finetune=finetune, server=server) as it:
        await it.run(FINETUNE)
        stats = it.state.finetune_last_run
    assert len(asked) == 1 + 2
    assert [it.alternate_text for it in it.heard.candidates] == ["one"] + [None] * 7
    assert stats.error.startswith("7 alternates could not be generated: the server went away")
