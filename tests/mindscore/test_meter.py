"""A scorer in a flow's hands: counted, checked, and asked for nothing twice."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Image, RangeScore, Registry, ScorerError, Scores, WirePrompt
from mindhooks.testing import StubMind
from mindscore import meter as meter_module
from mindscore.meter import KnownTotals, Meter, Usage, shared_totals
from mindscore.scorers.toy import ToyScorer

FIRST = WirePrompt((1, 2, 3), (), ((1, 2), (2, 3)), ("first", "second"))
THIRD = WirePrompt((1, 2), (), ((1, 2),), ("third",))
LONGER = WirePrompt((1, 2, 3, 4, 5), (), ((1, 2), (2, 3), (4, 5)), ("first", "second", "new"))


class Recording(ToyScorer):
    """Keeps what it was asked; ``gate`` holds answers back, ``failures`` are raised first."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = []

    async def score(self, prompts):
        self.asked += prompts
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        return await super().score(prompts)


def meter_of(scorer, known=None):
    return Meter(scorer, Usage(), known or KnownTotals())


async def test_a_prompt_without_ranges_is_neither_sent_nor_counted():
    scorer = Recording()
    meter = meter_of(scorer)
    assert await meter.totals(WirePrompt((1, 2), (), (), ())) == {}
    assert await meter.measure(WirePrompt((1, 2), (), (), ())) == {}
    assert (scorer.asked, meter.usage.calls, meter.usage.prompt_tokens) == ([], 0, 0)


async def test_what_is_sent_is_counted():
    meter = meter_of(Recording())
    assert (await meter.totals(FIRST)).keys() == {"first", "second"}
    usage = meter.usage
    assert (usage.calls, usage.prompt_tokens, usage.computed_tokens) == (1, 3, 3)


async def test_computed_tokens_are_unknown_once_an_answer_does_not_say(monkeypatch):
    scorer = Recording()
    meter, honest = meter_of(scorer), scorer.score
    await meter.measure(FIRST)

    async def score(prompts):
        return list(await honest(prompts))

    monkeypatch.setattr(scorer, "score", score)
    await meter.measure(FIRST)
    assert meter.usage.computed_tokens is None
    monkeypatch.undo()
    await meter.measure(FIRST)
    assert meter.usage.computed_tokens is None
    assert (meter.usage.calls, meter.usage.prompt_tokens) == (3, 9)


async def test_what_was_asked_once_is_not_asked_again():
    scorer = Recording()
    meter = meter_of(scorer)
    once = await meter.totals(FIRST)
    assert await meter.totals(FIRST) == once
    assert await meter.totals(replace(FIRST, node_ids=("x", "y"))) == {
        "x": once["first"],
        "y": once["second"],
    }
    assert scorer.asked == [FIRST]


async def test_of_a_longer_prompt_only_what_is_not_known_is_asked():
    scorer = Recording()
    meter = meter_of(scorer)
    await meter.totals(FIRST)
    found = await meter.totals(LONGER)
    assert list(scorer.asked[1].ranges) == [(4, 5)]
    assert found == await meter_of(ToyScorer()).totals(LONGER)


@pytest.mark.parametrize(
    "other",
    [
        WirePrompt((9, 2), (), ((1, 2),), ("third",)),
        WirePrompt((1, 2), (Image("image/png", b"x"),), ((1, 2),), ("third",)),
        WirePrompt((1, 2, 3), (), ((2, 3),), ("third",)),
        WirePrompt((1, 1, 2), (), ((1, 3),), ("third",)),
    ],
)
async def test_what_differs_in_tokens_images_or_span_is_asked(other):
    scorer = Recording()
    meter = meter_of(scorer)
    await meter.totals(THIRD)
    await meter.totals(other)
    assert len(scorer.asked) == 2


async def test_a_measurement_is_made_whatever_is_known():
    scorer = Recording()
    meter = meter_of(scorer)
    await meter.totals(FIRST)
    await meter.measure(FIRST)
    assert scorer.asked == [FIRST, FIRST]


async def test_the_same_prompt_asked_for_by_two_at_once_is_sent_once():
    scorer = Recording()
    meter = meter_of(scorer)
    scorer.gate.clear()
    both = [asyncio.create_task(meter.totals(FIRST)) for _ in range(2)]
    await asyncio.sleep(0.01)
    scorer.gate.set()
    first, second = await asyncio.gather(*both)
    assert first == second
    assert scorer.asked == [FIRST]


async def test_who_waited_for_a_call_that_failed_asks_itself():
    scorer = Recording()
    meter = meter_of(scorer)
    scorer.failures.append(ScorerError("no"))
    scorer.gate.clear()
    both = [asyncio.create_task(meter.totals(FIRST)) for _ in range(2)]
    await asyncio.sleep(0.01)
    scorer.gate.set()
    failed, found = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(failed, ScorerError)
    assert found.keys() == {"first", "second"}


async def test_who_waited_for_a_call_that_was_cancelled_asks_itself():
    scorer = Recording()
    meter = meter_of(scorer)
    scorer.gate.clear()
    first, second = (asyncio.create_task(meter.totals(FIRST)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    scorer.gate.set()
    assert (await second).keys() == {"first", "second"}
    assert first.cancelled()


async def test_a_bad_answer_is_not_known_afterwards(monkeypatch):
    scorer = Recording()
    meter = meter_of(scorer)

    async def score(prompts):
        return Scores([[RangeScore(float("nan"))] * 2], 3)

    monkeypatch.setattr(scorer, "score", score)
    with pytest.raises(ScorerError):
        await meter.totals(FIRST)
    monkeypatch.undo()
    assert (await meter.totals(FIRST)).keys() == {"first", "second"}
    assert scorer.asked == [FIRST]


@given(
    prompts=st.lists(
        st.lists(st.integers(0, 2), min_size=2, max_size=6).flatmap(
            lambda tokens: st.tuples(
                st.just(tuple(tokens)),
                st.lists(st.integers(1, len(tokens)), min_size=2, max_size=5, unique=True),
            )
        ),
        max_size=8,
    )
)
async def test_what_is_shared_is_what_asking_would_have_said(prompts):
    shared = meter_of(ToyScorer())
    for tokens, cuts in prompts:
        edges = sorted(cuts)
        ranges = tuple(zip(edges, edges[1:], strict=False))
        prompt = WirePrompt(tokens, (), ranges, tuple(f"{span}" for span in ranges))
        assert await shared.totals(prompt) == await meter_of(ToyScorer()).totals(prompt)


async def test_no_more_totals_are_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(KnownTotals, "MOST", 2)
    scorer = Recording()
    meter = meter_of(scorer)
    for tokens in ((1, 2), (3, 4), (5, 6), (1, 2)):
        await meter.totals(replace(THIRD, tokens=tokens))
    assert len(scorer.asked) == 4


async def test_flows_of_one_host_share_and_one_that_runs_again_begins_anew():
    async with Registry(StubMind(), {}) as registry, Registry(StubMind(), {}) as another:
        score = shared_totals(registry, "score")
        assert shared_totals(registry, "score-full") is score
        assert shared_totals(another, "score-full") is not score
        again = shared_totals(registry, "score")
        assert again is not score
        assert shared_totals(registry, "score-full") is again


async def test_what_is_old_is_not_shared(monkeypatch):
    async with Registry(StubMind(), {}) as registry:
        old = shared_totals(registry, "score")
        monkeypatch.setattr(meter_module, "FRESH_S", -1)
        assert shared_totals(registry, "score-full") is not old
