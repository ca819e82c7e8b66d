"""Reuse of vLLM's prefix cache: right values whatever the server does, and true counts."""

import asyncio
import logging
import random
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.remote import prefix_reuse, vllm
from mindscore.scorers.remote.auto import AutoScorer
from mindscore.scorers.remote.vllm import VLLMScorer
from mindscore.scorers.toy import ToyScorer

from ...imitations import RefusedError, VLLMImitation

GENERATE = "/inference/v1/generate"
RUNNERS = ("on", "v1-runner")


def scorer(url, kind=VLLMScorer, **settings):
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 1, "model": "m"}
    return aclosing(kind({"base_url": url, **limits, **settings}))


def prompts(seed=1, *, length=200, memories=5, size=10):
    """A baseline, and prompts that lack ``size`` tokens each; what follows those is asked for."""
    chance = random.Random(seed)
    ids = [chance.randrange(100) for _ in range(length)]
    places = sorted(chance.sample(range(20, length - 40, size + 1), memories))
    whole = WirePrompt(tuple(ids), (), ((places[0] + size + 8, length),), ("r",))
    without = []
    for place in reversed(places):
        left = (*ids[:place], *ids[place + size :])
        without.append(WirePrompt(left, (), ((place + 8, len(left)),), ("r",)))
    return [whole, *without]


async def exact(asked):
    found = (await ToyScorer().score(asked)).ranges
    return [pytest.approx([it.total for it in each], abs=1e-4) for each in found]


async def scored(it, asked, *, at_once=False):
    """The totals of each prompt, and the tokens computed, which may not be known."""
    if at_once:
        results = await asyncio.gather(*(it.score([prompt]) for prompt in asked))
    else:
        results = [await it.score([prompt]) for prompt in asked]
    computed = [result.computed_tokens for result in results]
    known = None if None in computed else sum(computed)
    return [[score.total for score in result.ranges[0]] for result in results], known


def reading(server):
    """The requests that may read the cache."""
    sent = [it.body for it in server.requests if it.path == GENERATE]
    return [it for it in sent if it["sampling_params"]["skip_reading_prefix_cache"] is False]


@pytest.mark.parametrize("kind", [VLLMScorer, AutoScorer])
@pytest.mark.parametrize("junk", ["ids", "right"])
@pytest.mark.parametrize("block", [8, 16, 32])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("runner", RUNNERS)
async def test_what_prompts_share_is_computed_once(runner, at_once, block, junk, kind):
    asked = prompts()
    server = VLLMImitation(generate=runner, block=block, junk=junk)
    async with server, scorer(server.url, kind) as it:
        assert it.reuses_prefixes is None
        totals, computed = await scored(it, asked, at_once=at_once)
        assert it.reuses_prefixes is True
    assert totals == await exact(asked)
    shared = [(it.ranges[0][0] - 8) // block * block for it in asked[1:]]
    assert computed == server.computed == sum(len(it.tokens) for it in asked) - sum(shared)


@pytest.mark.parametrize("how", [{}, {"drops": 1}, {"drops": 16}, {"block": 1, "drops": 1}])
async def test_without_numpy_the_v2_runners_entries_do_as_well(how, monkeypatch, caplog):
    monkeypatch.setattr(vllm, "_has_numpy", lambda: False)
    asked = prompts(length=300)
    async with VLLMImitation(generate="on", **how) as server, scorer(server.url) as it:
        totals, computed = await scored(it, asked)
        assert it.reuses_prefixes is ("drops" not in how)
        assert computed == server.computed
    assert totals == await exact(asked)
    assert ("did not fit" in caplog.text) is ("drops" in how)


@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_prompt_that_is_asked_again_reads_nothing_of_itself(runner):
    # For the second time under a salt of their own, where they share as much.
    asked = prompts()[:2] * 2
    async with VLLMImitation(generate=runner) as server, scorer(server.url) as it:
        totals, computed = await scored(it, asked)
        assert len(reading(server)) == 2
        assert computed == server.computed
        assert it.reuses_prefixes
    assert totals == await exact(asked)


@pytest.mark.parametrize("runner", RUNNERS)
async def test_each_scorer_has_a_salt_of_its_own_which_is_never_shown(runner, caplog):
    caplog.set_level(logging.DEBUG)
    asked = prompts()
    async with VLLMImitation(generate=runner) as server:
        async with scorer(server.url) as one, scorer(server.url) as other:
            both = await asyncio.gather(scored(one, asked), scored(other, asked))
        salts = {it.body["cache_salt"] for it in server.requests if it.path == GENERATE}

        async def echo(body):
            raise RefusedError(400, f"{body['cache_salt']!r} is not a salt")

        server.generate_ = server.completions = echo
        async with scorer(server.url) as it:
            with pytest.raises(ScorerError) as caught:
                await it.score(asked[:1])
        secret = server.requests[-2].body["cache_salt"].split(".")[0]
    assert [totals for totals, _ in both] == [await exact(asked)] * 2
    assert sum(computed for _, computed in both) == server.computed
    # One for what is sent twice too, if anything is.
    assert 2 <= len(salts) <= 4
    for salt in (secret, *salts):
        assert salt.split(".")[0] not in caplog.text + str(caught.value)


HOSTILE = {
    "says less": {"says": lambda hit: 0},
    "says a bit less": {"says": lambda hit: max(0, hit - 16)},
    "says more": {"says": lambda hit: hit + 64},
    "says far more": {"says": lambda hit: 10**6},
    "says something below 0": {"says": lambda hit: -1},
    "says nothing": {"says": lambda hit: None},
    "drops entries": {"drops": 1},
    "drops all": {"drops": 10**6},
    "evicts": {"evicts": 3},
    "fails at what it does not compute": {"junk": "nan"},
    "ignores the salt": {"salts": False},
    "has no details": {"details": False},
    "has no metrics": {"metrics": False},
    "does not cache": {"caching": False},
    "does not cache, has no details": {"caching": False, "details": False},
    "does not cache, has no metrics": {"caching": False, "metrics": False},
}
TRUE = {
    *("drops entries", "drops all", "evicts", "has no details", "has no metrics"),
    *("does not cache", "does not cache, has no details", "does not cache, has no metrics"),
    "ignores the salt",
}
"""Where the server tells no lies about what it computes, and tells it."""


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("junk", ["ids", "right"])
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("how", HOSTILE)
async def test_values_are_right_whatever_the_server_does(how, runner, junk, others):
    asked = prompts(length=300)
    server = VLLMImitation(**{"generate": runner, "junk": junk, **HOSTILE[how]})
    async with server, scorer(server.url) as it:
        if others:
            # Another has the same conversation scored.
            async with scorer(server.url) as other:
                await scored(other, asked)
        before = server.computed
        totals, computed = await scored(it, [*asked, *asked])
    assert totals == await exact(asked) * 2
    if how in TRUE:
        assert computed == server.computed - before
    assert computed is None or computed > 0


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("ignores the salt", "cache_salt is not honoured"),
        ("says far more", "cache_salt is not honoured"),
        ("says nothing", "does not say any more"),
        ("has no details", "--enable-prompt-tokens-details"),
        ("does not cache", "--enable-prefix-caching"),
    ],
)
async def test_reuse_ends_for_good_which_is_said_once(how, said, runner, caplog):
    caplog.set_level(logging.INFO, "mindscore")
    asked = prompts(length=300)
    server = VLLMImitation(**{"generate": runner, "junk": "right", **HOSTILE[how]})
    async with server, scorer(server.url) as it, scorer(server.url) as other:
        await scored(other, asked)
        caplog.clear()
        # Below the first block nothing can be taken from the cache.
        await scored(it, asked)
        count = len(reading(server))
        assert it.reuses_prefixes is False
        await scored(it, prompts(2))
        assert len(reading(server)) == count
    assert [record.getMessage().count(said) for record in caplog.records] == [1]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_server_that_was_restarted_computes_anew(runner):
    asked = prompts()
    async with VLLMImitation(generate=runner) as server, scorer(server.url) as it:
        first, computed = await scored(it, asked[:3])
        server.blocks.clear()
        rest, more = await scored(it, asked[3:])
        assert it.reuses_prefixes
    assert first + rest == await exact(asked)
    assert computed + more == server.computed


async def test_a_server_that_reads_its_cache_when_told_not_to_is_an_error():
    asked = prompts()
    async with VLLMImitation(generate="v1-runner", junk="right") as server:
        server._hit = lambda ids, salt, most: len(ids) // 2
        async with scorer(server.url) as it:
            with pytest.raises(ScorerError, match="asked not to read its prefix cache"):
                await scored(it, [WirePrompt(asked[0].tokens, (), ((1, 150),), ("r",))])


@pytest.mark.parametrize("runner", RUNNERS)
async def test_where_much_was_sent_a_new_salt_begins(runner, monkeypatch):
    monkeypatch.setattr(prefix_reuse, "MOST_BYTES", 8 * 500)
    asked = prompts()
    async with VLLMImitation(generate=runner) as server, scorer(server.url) as it:
        totals, computed = await scored(it, asked)
    assert totals == await exact(asked)
    assert computed == server.computed < sum(len(it.tokens) for it in asked)
    salts = {it.body["cache_salt"] for it in server.requests if it.path == GENERATE}
    # The first is that of the rows, which the V1 runner refuses.
    assert len(salts) == 2 + (runner == "v1-runner")


@pytest.mark.parametrize("runner", RUNNERS)
async def test_one_that_fails_or_is_cancelled_holds_up_nobody(runner):
    baseline, *without = prompts()
    async with VLLMImitation(generate=runner) as server, scorer(server.url) as it:
        await it.score([prompts(7)[0]])
        server.max_model_len = 195
        server.delay_s = 0.1
        # The first, which all others wait for, is refused; the next is cancelled.
        first = asyncio.create_task(it.score([baseline]))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(it.score([without[0]]))
        await asyncio.sleep(0.01)
        others = asyncio.create_task(scored(it, without[1:], at_once=True))
        with pytest.raises(ScorerError, match="maximum context length"):
            await first
        second.cancel()
        totals, _ = await asyncio.wait_for(others, 10)
    assert second.cancelled() or second.cancelling()
    assert totals == await exact(without[1:])


@pytest.mark.parametrize("runner", RUNNERS)
async def test_an_answer_is_not_used_if_more_came_to_be_cached_meanwhile(runner):
    baseline, early, *_ = prompts()
    # It agrees with the other beyond the first token that that one wants.
    later = WirePrompt((*early.tokens[:-10], *[3] * 9), (), ((185, 189),), ("r",))
    # In whole blocks it shares no more with it than with the baseline, so it does not wait.
    server = VLLMImitation(generate=runner, junk="right", block=128)
    async with server, scorer(server.url) as it:
        await it.score([baseline])
        whole = server._entries, server._rows

        async def late(ids, *more):
            if len(ids) == len(early.tokens):
                await asyncio.sleep(0.05)
            return await whole[runner == "on"](ids, *more)

        server._entries = server._rows = late
        first = asyncio.create_task(it.score([early]))
        while not reading(server):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        totals, _ = await scored(it, [later])
        [[score]] = (await first).ranges
    assert totals == await exact([later])
    assert [score.total] == (await exact([early]))[0]
    again = [it.body for it in server.requests if it.path == GENERATE]
    assert [len(it["token_ids"]) for it in again].count(len(early.tokens)) == 2


@pytest.mark.parametrize("runner", RUNNERS)
async def test_what_was_cached_before_it_was_known_how_to_ask_is_under_another_salt(runner):
    baseline, *without = prompts()
    other = WirePrompt((*baseline.tokens[:40], *[3] * 60), (), ((60, 100),), ("r",))
    async with VLLMImitation(generate=runner) as server, scorer(server.url, timeout_s=90) as it:
        server._npy = server.logprobs = hangs
        first = asyncio.create_task(it.score([baseline]))
        while not server.blocks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.wait([first])
        del server._npy, server.logprobs
        totals, _ = await scored(it, [other, *without])
        assert it.reuses_prefixes
    assert totals == await exact([other, *without])


async def hangs(*_):
    await asyncio.Event().wait()


@pytest.mark.parametrize("runner", RUNNERS)
async def test_prompts_that_are_refused_for_their_own_sake_do_not_end_the_reuse(runner):
    baseline, *without = prompts()
    tokens = [(*baseline.tokens, it, *range(9)) for it in range(5)]
    long = [WirePrompt(it, (), ((205, 210),), ("r",)) for it in tokens]
    async with VLLMImitation(generate=runner) as server, scorer(server.url) as it:
        await it.score([baseline])
        server.max_model_len = 200
        for each in long:
            with pytest.raises(ScorerError, match="maximum context length"):
                await it.score([each])
        totals, _ = await scored(it, without)
        assert it.reuses_prefixes
    assert totals == await exact(without)


async def test_within_two_self_tests_at_once_nothing_is_reused():
    baseline, *without = prompts()
    async with VLLMImitation(generate="on") as server, scorer(server.url) as it:
        await it.score([baseline])
        with it.prefix_reuse.set_aside():
            with it.prefix_reuse.set_aside():
                pass
            await it.score(without)
        assert not reading(server)
        await it.score(without[:1])
        assert len(reading(server)) == 1


@st.composite
def conversations(draw):
    """Prompts without some memory each, of a conversation of few different tokens."""
    messages = draw(
        st.lists(
            st.tuples(st.sampled_from("mur"), st.lists(st.integers(1, 5), min_size=1, max_size=40)),
            min_size=3,
            max_size=8,
        )
    )
    messages.append(("r", [1, 2, 3]))
    memories = [index for index, (role, _) in enumerate(messages) if role == "m"]
    found = []
    for left_out in [None, *draw(st.lists(st.sampled_from(memories or [99]), max_size=6))]:
        tokens, ranges = [0], []
        for index, (role, ids) in enumerate(messages):
            if index == left_out:
                continue
            start = len(tokens)
            tokens += ids
            if role == "r" and (left_out is None or index > left_out):
                ranges.append((start, len(tokens)))
        names = tuple(str(index) for index in range(len(ranges)))
        found.append(WirePrompt(tuple(tokens), (), tuple(ranges), names))
    return found


@settings(max_examples=40, deadline=None)
@given(
    asked=conversations(),
    runner=st.sampled_from(RUNNERS),
    block=st.sampled_from([1, 4, 16]),
    at_once=st.booleans(),
    junk=st.sampled_from(["ids", "right"]),
    evicts=st.sampled_from([2, 10**9]),
    metrics=st.booleans(),
)
def test_values_are_those_of_prompts_in_full(asked, runner, block, at_once, junk, evicts, metrics):
    async def run():
        options = {"block": block, "junk": junk, "evicts": evicts, "metrics": metrics}
        async with VLLMImitation(generate=runner, **options) as server:
            async with scorer(server.url) as it:
                totals, computed = await scored(it, asked, at_once=at_once)
            assert totals == await exact(asked)
            assert computed == server.computed

    asyncio.run(run())
