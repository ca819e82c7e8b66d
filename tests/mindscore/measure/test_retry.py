"""Calls of a scorer, whoever's it is: repeated, paused between, bounded (section 5)."""

import asyncio
import time

import pytest

from mindhooks import Generated, MindCommand, ScorerError, ScorerUnavailable
from mindscore.config.settings import ServerSettings
from mindscore.measure.retry import BreakerError, GivenUpError, Retry, with_retries


class Flaky:
    """A call that raises ``errors`` one after the other, then returns 7; ``at`` is when."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.at = []

    async def __call__(self):
        self.at.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        return 7


def unavailable(number, retry_after=0):
    return [ScorerUnavailable("the server is busy", retry_after) for _ in range(number)]


async def given_up(call, **settings):
    with pytest.raises(GivenUpError) as caught:
        await with_retries(call, ServerSettings(**settings))
    return caught.value


async def test_what_succeeds_is_called_once():
    call = Flaky()
    assert await with_retries(call, ServerSettings()) == 7
    assert len(call.at) == 1


async def test_a_failure_that_may_pass_is_tried_again():
    call = Flaky(*unavailable(4))
    assert await with_retries(call, ServerSettings(max_attempts=5)) == 7
    assert len(call.at) == 5


async def test_a_failure_is_tried_again_without_retry_after_too():
    call = Flaky(ScorerUnavailable("busy"))
    assert await with_retries(call, ServerSettings()) == 7
    # By itself the first pause is half a second at the most.
    assert call.at[1] - call.at[0] < 1.5


async def test_pauses_differ_and_grow():
    async def length(attempts):
        call = Flaky(*(ScorerUnavailable("busy") for _ in range(attempts)))
        await with_retries(call, ServerSettings(max_attempts=9))
        return [b - a for a, b in zip(call.at, call.at[1:], strict=False)]

    both = await asyncio.gather(*(length(2) for _ in range(20)))
    assert len({round(pause, 4) for pauses in both for pause in pauses}) > 20
    assert max(pauses[0] for pauses in both) < max(pauses[1] for pauses in both)


@pytest.mark.parametrize(
    "error", [ScorerError("no such model"), ValueError("a bug"), TimeoutError("its own")]
)
async def test_any_other_error_fails_at_once(error):
    call = Flaky(error)
    with pytest.raises(type(error)) as caught:
        await with_retries(call, ServerSettings())
    assert caught.value is error
    assert len(call.at) == 1


async def test_a_call_ends_after_max_attempts_and_says_so():
    call = Flaky(*unavailable(9))
    error = await given_up(call, max_attempts=3)
    assert len(call.at) == 3
    assert str(error) == "the server is busy; given up after 3 attempts (server.max_attempts)"
    assert isinstance(error.last, ScorerUnavailable)
    assert error.__cause__ is error.last


async def test_of_one_attempt_the_error_is_as_it_was():
    [error] = unavailable(1)
    with pytest.raises(ScorerUnavailable) as caught:
        await with_retries(Flaky(error), ServerSettings(max_attempts=1))
    assert caught.value is error


async def test_retry_after_replaces_the_back_off():
    call = Flaky(*unavailable(12))
    # Without it the twelve pauses take two minutes, give or take.
    async with asyncio.timeout(5):
        await with_retries(call, ServerSettings(max_attempts=13, deadline_s=500))


async def test_an_attempt_comes_no_sooner_than_retry_after():
    call = Flaky(*unavailable(1, 0.8))
    await with_retries(call, ServerSettings())
    assert call.at[1] - call.at[0] > 0.75


@pytest.mark.parametrize("retry_after", [3600, float("inf"), float("nan")])
async def test_a_retry_after_beyond_the_deadline_is_half_of_what_is_left(retry_after):
    call = Flaky(*unavailable(1, retry_after))
    assert await with_retries(call, ServerSettings(deadline_s=2)) == 7
    assert 0.9 < call.at[1] - call.at[0] < 1.9


async def test_a_call_ends_at_the_deadline_however_many_attempts_are_left():
    call = Flaky(*unavailable(10**5, 0.01))
    async with asyncio.timeout(5):
        error = await given_up(call, deadline_s=0.3, max_attempts=10**6)
    assert len(call.at) > 1
    assert str(error) == (
        "given up after 0.3 s (server.deadline_s); the last attempt: the server is busy"
    )


async def test_the_deadline_ends_an_attempt_that_is_under_way_and_names_the_server():
    ended = []

    async def hangs():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async with asyncio.timeout(5):
        error = await given_up(hangs, deadline_s=0.1, base_url="http://h:1")
    assert str(error) == "http://h:1: given up after 0.1 s (server.deadline_s): no answer"
    assert error.last is None
    assert ended == [True]


async def test_a_call_that_is_cancelled_in_a_pause_ends():
    call = Flaky(*unavailable(1, 60))
    task = asyncio.create_task(with_retries(call, ServerSettings()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_may_not_be_repeated_is_not():
    call = Flaky(*unavailable(1))
    with pytest.raises(ScorerUnavailable):
        await with_retries(call, ServerSettings(), lambda error: error.retry_after != 0)
    assert len(call.at) == 1


async def test_the_calls_of_a_run_share_a_breaker_that_counts_calls_and_no_attempts():
    retry = Retry(ServerSettings(max_attempts=2, breaker_failures=2))
    first, second, third = (Flaky(*unavailable(9)) for _ in range(3))
    with pytest.raises(GivenUpError):
        await retry(first)
    with pytest.raises(BreakerError):
        await retry(second)
    with pytest.raises(BreakerError):
        await retry.wrap(third)()
    assert [len(it.at) for it in (first, second, third)] == [2, 2, 0]


# -- in the flows: a third party's scorer ---------------------------------------------------------


@pytest.fixture
def flaky(probe, monkeypatch):
    """The third party's scorer, of which every other call fails; counts all of them."""
    honest, said, calls = probe.score, probe.generate, {"score": 0, "generate": 0}

    async def score(prompts):
        calls["score"] += 1
        if calls["score"] % 2:
            raise ScorerUnavailable("busy", retry_after=0)
        return await honest(prompts)

    async def generate(prompt, *, max_tokens, stop):
        calls["generate"] += 1
        if calls["generate"] % 2:
            raise ScorerUnavailable("busy", retry_after=0)
        return await said(prompt, max_tokens=max_tokens, stop=stop)

    monkeypatch.setattr(probe, "score", score)
    monkeypatch.setattr(probe, "generate", generate)
    return calls


async def test_a_flaky_scorer_gives_what_it_gives_otherwise_and_retries_are_not_counted(
    two, host, flaky
):
    async with host(two, "toy") as it:
        await it.run(MindCommand.SCORE_FULL)
        expected, stats = it.heard.scores, it.state.memory_last_run
    async with host(two, "probe", server={"concurrency": 1}) as it:
        await it.run(MindCommand.SCORE_FULL)
        found = it.state.memory_last_run
        assert [score.divergences for score in it.heard.scores] == [
            score.divergences for score in expected
        ]
    assert found.error is None
    assert flaky["score"] == 2 * stats.calls
    assert (found.calls, found.prompt_tokens, found.computed_tokens) == (
        stats.calls,
        stats.prompt_tokens,
        stats.computed_tokens,
    )


async def test_alternates_are_generated_by_a_flaky_scorer_too(say, host, flaky, probe):
    talk = say.talk(say.user(9), say.reply(5, 5), identity=[say.memory("k", 5)])
    finetune = {"generate_alternates": True, "window_fraction": 1.0, "threshold": 0}
    async with host(talk, "probe", finetune=finetune) as it:
        await it.run(MindCommand.SCORE_FINETUNE)
        assert it.state.finetune_last_run.error is None
        [candidate] = it.heard.candidates
    assert candidate.alternate_ids is not None
    assert flaky["generate"] == 2


async def test_a_scorer_that_stays_away_is_an_error_that_says_how_often_it_was_asked(
    two, host, probe, monkeypatch
):
    asked = []

    async def score(prompts):
        asked.append(prompts)
        raise ScorerUnavailable("gone fishing", retry_after=0)

    monkeypatch.setattr(probe, "score", score)
    async with host(two, "probe", server={"max_attempts": 4}) as it:
        await it.run(MindCommand.SCORE_FULL)
        stats = it.state.memory_last_run
    assert "gone fishing; given up after 4 attempts (server.max_attempts)" in stats.error
    assert (len(asked), stats.calls, stats.computed_tokens) == (4, 1, None)


async def test_generated_is_what_the_scorer_said():
    call = Retry(ServerSettings()).wrap(_generate)
    assert await call("a", max_tokens=3) == Generated((3,), "a")


async def _generate(text, *, max_tokens):
    return Generated((max_tokens,), text)


async def test_a_wrapped_plain_function_is_named():
    class Acme:
        def tokenize(self, text):
            return [1]

    with pytest.raises(ScorerError, match=r"Acme\.tokenize is a plain function.*async def"):
        await Retry(ServerSettings()).wrap(Acme().tokenize)("text")
