"""A scorer in a flow's hands: counted, checked, and asked for nothing twice."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import (
    Generated,
    Image,
    MindCommand,
    RangeScore,
    Registry,
    ScorerError,
    ScoreResult,
    WirePrompt,
)
from mindhooks.testing import StubMind
from mindscore.config.settings import ServerSettings
from mindscore.measure import cached_scorer as module
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache, shared_cache
from mindscore.measure.prompts import common_prefix
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
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


def cached_of(scorer, known=None):
    return CachedScorer(scorer, Usage(), known or ScoreCache(), Retry(ServerSettings()))


async def test_a_prompt_without_ranges_is_neither_sent_nor_counted():
    scorer = Recording()
    cached = cached_of(scorer)
    assert await cached.score(WirePrompt((1, 2), (), (), ())) == {}
    assert await cached.score_uncached(WirePrompt((1, 2), (), (), ())) == {}
    assert (scorer.asked, cached.usage.calls, cached.usage.prompt_tokens) == ([], 0, 0)


async def test_what_is_sent_is_counted():
    cached = cached_of(Recording())
    assert (await cached.score(FIRST)).keys() == {"first", "second"}
    usage = cached.usage
    assert (usage.calls, usage.prompt_tokens, usage.computed_tokens) == (1, 3, 3)


async def test_computed_tokens_are_unknown_once_an_answer_does_not_say(monkeypatch):
    scorer = Recording()
    cached, honest = cached_of(scorer), scorer.score
    await cached.score_uncached(FIRST)

    async def score(prompts):
        return (await honest(prompts)).ranges

    monkeypatch.setattr(scorer, "score", score)
    await cached.score_uncached(FIRST)
    assert cached.usage.computed_tokens is None
    monkeypatch.undo()
    await cached.score_uncached(FIRST)
    assert cached.usage.computed_tokens is None
    assert (cached.usage.calls, cached.usage.prompt_tokens) == (3, 9)


async def test_what_was_asked_once_is_not_asked_again():
    scorer = Recording()
    cached = cached_of(scorer)
    once = await cached.score(FIRST)
    assert await cached.score(FIRST) == once
    assert await cached.score(replace(FIRST, node_ids=("x", "y"))) == {
        "x": once["first"],
        "y": once["second"],
    }
    assert scorer.asked == [FIRST]


async def test_of_a_longer_prompt_only_what_is_not_known_is_asked():
    scorer = Recording()
    cached = cached_of(scorer)
    await cached.score(FIRST)
    found = await cached.score(LONGER)
    assert list(scorer.asked[1].ranges) == [(4, 5)]
    assert found == await cached_of(ToyScorer()).score(LONGER)


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
    cached = cached_of(scorer)
    await cached.score(THIRD)
    await cached.score(other)
    assert len(scorer.asked) == 2


async def test_a_measurement_is_made_whatever_is_known():
    scorer = Recording()
    cached = cached_of(scorer)
    await cached.score(FIRST)
    await cached.score_uncached(FIRST)
    assert scorer.asked == [FIRST, FIRST]


class Hiding(ToyScorer):
    """Hides nothing; ``tells`` the values of tokens, or their totals alone."""

    def __init__(self, *, tells):
        super().__init__()
        self.tells = tells
        self.asked = []

    async def knock_out(self, prompt, hidden):
        self.asked.append(prompt.ranges)
        values = [tuple(-float(at) for at in range(start, end)) for start, end in prompt.ranges]
        row = [RangeScore(sum(its), its if self.tells else None) for its in values]
        return ScoreResult([row] * len(hidden), 7)


@pytest.mark.parametrize("tells", [True, False])
async def test_what_was_said_to_a_response_is_hidden_from_and_does_not_count(tells):
    prompt = replace(LONGER, ranges=((2, 3), (4, 5)), node_ids=("one", "other"))
    scorer = Hiding(tells=tells)
    cached = cached_of(scorer)
    for _ in range(2):
        assert await cached.knock_out(prompt, [[(0, 1)]], 9, [1, 0]) == [{"one": -2, "other": -4}]
    wide = ((1, 3), (4, 5))
    # Of totals alone, the response's cannot be told: that is asked for once.
    assert scorer.asked == ([wide] * 2 if tells else [wide, prompt.ranges, prompt.ranges])
    assert cached.usage.prompt_tokens == 7 * len(scorer.asked)


class Speaking(ToyScorer):
    """Generates what it is given, whatever that is."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    async def generate(self, prompt, *, max_tokens, stop):
        return self.said


def speak(scorer):
    return cached_of(scorer).generate(WirePrompt((1, 2), (), (), ()), max_tokens=4, stop=())


@pytest.mark.parametrize("ids", [(0, 2**31 - 1), [5], (), None])
@pytest.mark.parametrize("text", ["", "tea"])
async def test_ids_of_a_tokenizer_are_taken_from_any_scorer(ids, text):
    if text and ids == ():
        return
    expected = Generated(None if ids is None else tuple(ids), text)
    assert await speak(Speaking(Generated(ids, text))) == expected


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (Generated((1, -1), "tea"), r"token_ids\[1\]: -1"),
        (Generated((2**31,), "tea"), r"token_ids\[0\]: 2147483648"),
        (Generated((10**30,), "tea"), r"token_ids\[0\]: 1000"),
        (Generated((1.5,), "tea"), r"token_ids\[0\]: 1\.5"),
        (Generated((True,), "tea"), r"token_ids\[0\]: True"),
        (Generated(("5",), "tea"), r"token_ids\[0\]: 5"),
        (Generated("55", "tea"), "token_ids: expected a tuple"),
        (Generated((), "tea"), "token_ids is empty"),
        (Generated((5,), None), "with a text"),
        ((5,), "got a tuple"),
        (None, "got a NoneType"),
    ],
)
async def test_what_no_tokenizer_makes_is_an_error_that_names_the_scorer(said, wrong):
    with pytest.raises(ScorerError, match=rf"^Speaking, toy: generate: .*{wrong}"):
        await speak(Speaking(said))


async def test_an_alternate_of_impossible_ids_is_not_handed_out(say, host, probe, monkeypatch):
    async def generate(*_, **__):
        return Generated((2**63,), "tea")

    monkeypatch.setattr(probe, "generate", generate)
    talk = say.talk(say.user(9), say.reply(5, 5), identity=[say.memory("k", 5)])
    finetune = {"generate_alternates": True, "window_fraction": 1.0, "threshold": 0}
    async with host(talk, "probe", finetune=finetune) as it:
        await it.run(MindCommand.SCORE_FINETUNE)
        [candidate] = it.heard.candidates
        error = it.state.finetune_last_run.error
    assert (candidate.alternate_text, candidate.alternate_ids) == (None, None)
    assert error.startswith("1 alternate could not be generated: ")
    assert "generate: token_ids[0]: 9223372036854775808" in error


@pytest.mark.parametrize("answers", [None, 5, ScoreResult([1.0])])
async def test_scores_of_another_shape_are_an_error_that_says_what_is_expected(answers):
    class Shapeless(ToyScorer):
        async def score(self, prompts):
            return answers

    with pytest.raises(ScorerError, match="toy: expected a ScoreResult"):
        await cached_of(Shapeless()).score(FIRST)


class Plain(ToyScorer):
    """Has plain functions where coroutines are due."""

    def score(self, prompts):
        return [[RangeScore(-1.0) for _ in prompt.ranges] for prompt in prompts]

    def generate(self, prompt, *, max_tokens, stop):
        return Generated((1,), "tea")


class Unawaited(ToyScorer):
    """Returns the coroutine of another scorer."""

    async def score(self, prompts):
        return ToyScorer().score(prompts)

    async def generate(self, prompt, *, max_tokens, stop):
        return ToyScorer().generate(prompt, max_tokens=max_tokens, stop=stop)


@pytest.mark.parametrize(
    ("scorer", "hint"), [(Plain(), "async def"), (Unawaited(), "await that itself")]
)
async def test_a_mistake_with_async_is_named_as_such(scorer, hint):
    name = type(scorer).__name__
    with pytest.raises(ScorerError, match=rf"{name}\.score .*{hint}"):
        await cached_of(scorer).score(FIRST)
    with pytest.raises(ScorerError, match=rf"{name}\.generate .*{hint}"):
        await speak(scorer)


async def test_a_plain_function_that_returns_a_coroutine_is_as_good():
    class Delegating(ToyScorer):
        def score(self, prompts):
            return ToyScorer().score(prompts)

    assert (await cached_of(Delegating()).score(FIRST)).keys() == {"first", "second"}


async def test_the_same_prompt_asked_for_by_two_at_once_is_sent_once():
    scorer = Recording()
    cached = cached_of(scorer)
    scorer.gate.clear()
    both = [asyncio.create_task(cached.score(FIRST)) for _ in range(2)]
    await asyncio.sleep(0.01)
    scorer.gate.set()
    first, second = await asyncio.gather(*both)
    assert first == second
    assert scorer.asked == [FIRST]


async def test_who_waited_for_a_call_that_failed_asks_itself():
    scorer = Recording()
    cached = cached_of(scorer)
    scorer.failures.append(ScorerError("no"))
    scorer.gate.clear()
    both = [asyncio.create_task(cached.score(FIRST)) for _ in range(2)]
    await asyncio.sleep(0.01)
    scorer.gate.set()
    failed, found = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(failed, ScorerError)
    assert found.keys() == {"first", "second"}


async def test_who_waited_for_a_call_that_was_cancelled_asks_itself():
    scorer = Recording()
    cached = cached_of(scorer)
    scorer.gate.clear()
    first, second = (asyncio.create_task(cached.score(FIRST)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    scorer.gate.set()
    assert (await second).keys() == {"first", "second"}
    assert first.cancelled()


async def test_a_bad_answer_is_not_known_afterwards(monkeypatch):
    scorer = Recording()
    cached = cached_of(scorer)

    async def score(prompts):
        return ScoreResult([[RangeScore(float("nan"))] * 2], 3)

    monkeypatch.setattr(scorer, "score", score)
    with pytest.raises(ScorerError):
        await cached.score(FIRST)
    monkeypatch.undo()
    assert (await cached.score(FIRST)).keys() == {"first", "second"}
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
def test_what_is_shared_is_what_asking_would_have_said(prompts):
    async def go():
        shared = cached_of(ToyScorer())
        for tokens, cuts in prompts:
            ranges = tuple(pairwise(sorted(cuts)))
            prompt = WirePrompt(tokens, (), ranges, tuple(f"{span}" for span in ranges))
            assert await shared.score(prompt) == await cached_of(ToyScorer()).score(prompt)

    asyncio.run(go())


async def test_no_more_totals_are_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(ScoreCache, "MAX_ENTRIES", 2)
    scorer = Recording()
    cached = cached_of(scorer)
    for tokens in ((1, 2), (3, 4), (5, 6), (1, 2)):
        await cached.score(replace(THIRD, tokens=tokens))
    assert len(scorer.asked) == 4


async def test_flows_of_one_host_share_and_one_that_runs_again_begins_anew():
    async with Registry(StubMind(), {}) as registry, Registry(StubMind(), {}) as another:
        score = shared_cache(registry, "score", ToyScorer())
        assert shared_cache(registry, "score-full", ToyScorer()) is score
        assert shared_cache(another, "score-full", ToyScorer()) is not score
        again = shared_cache(registry, "score", ToyScorer())
        assert again is not score
        assert shared_cache(registry, "score-full", ToyScorer()) is again


async def test_what_a_model_with_another_adapter_said_is_not_shared():
    scorer = ToyScorer()
    async with Registry(StubMind(), {}) as registry:
        plain = shared_cache(registry, "score", scorer)
        scorer.adapter = "one"
        adapted = shared_cache(registry, "score-full", scorer)
        assert adapted is not plain
        assert shared_cache(registry, "score-finetune", scorer) is adapted


async def test_after_a_server_swapped_its_adapter_every_flow_asks_anew(host, two, score_server):
    worth = {"nats": -1.0}

    async def answer(request):
        ranges = (await request.json())["score_ranges"]
        return web.json_response({"scores": [{"total_logprob": worth["nats"]} for _ in ranges]})

    score_server.always(answer)
    server = {"base_url": score_server.url, "self_test": False}
    async with host(two, "score", server=server, memory={"noise_repeats": 0}) as it:
        for command in (MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE):
            before = len(score_server.requests)
            it.registry.dispatch(command)
            await it.registry.wait_idle()
            assert len(score_server.requests) > before
            worth["nats"] -= 1


async def test_what_is_old_is_not_shared(monkeypatch):
    async with Registry(StubMind(), {}) as registry:
        old = shared_cache(registry, "score", ToyScorer())
        monkeypatch.setattr(module, "SHARED_S", -1)
        assert shared_cache(registry, "score-full", ToyScorer()) is not old


# -- in the flows ---------------------------------------------------------------------------------

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE
COUNT = 3
"""The response window of these runs: short, so that there are several windows."""


@dataclass
class Log:
    """What the toy was sent, in order, and when, in steps, it was sent and answered."""

    prompts: list = field(default_factory=list)
    sent: dict = field(default_factory=dict)
    answered: dict = field(default_factory=dict)
    steps: int = 0

    def note(self, prompt, when):
        self.steps += 1
        when.update(dict.fromkeys(responses_of(prompt), self.steps))


def responses_of(prompt):
    """What determines each of its answers: the ids up to the response's end, and its start."""
    return [(prompt.tokens[:end], start) for start, end in prompt.ranges]


def wanted(plain, indexes, gone, ids):
    """The same of the responses ``ids`` in the prompt that the contract has, by hand."""
    tokens = plain.tokens(indexes, gone)
    found = []
    for id_ in ids:
        own = [index for index, (_, owner) in enumerate(tokens) if owner == id_]
        found.append((tuple(token for token, _ in tokens[: own[-1] + 1]), own[0]))
    return found


def comparisons(plain, command, keys, fraction):
    """With and without, one pair for each response that each of ``keys`` is judged by."""
    found = []
    everything = range(plain.length)
    if command == FINETUNE:
        runs = [(plain.finetune_window(fraction), plain.everything())]
    elif command == FULL:
        runs = [(everything, {key}) for key in keys]
    else:
        runs = [(plain.window(plain.positions()[key], COUNT), {key}) for key in keys]
    for window, gone in runs:
        ids = plain.after_removal(window, gone)
        with_, without = (wanted(plain, window, skipped, ids) for skipped in (set(), gone))
        found += zip(with_, without, strict=True)
    return found


@pytest.fixture(scope="module")
def logged(host):
    """Runs ``commands`` one after the other in one host; a log and what was heard, for each."""

    async def go(talk, commands, tables):
        logs = []
        honest = ToyScorer.score

        async def score(scorer, prompts):
            for prompt in prompts:
                logs[-1].prompts.append(prompt)
                logs[-1].note(prompt, logs[-1].sent)
            for _ in range(3):
                await asyncio.sleep(0)
            answers = await honest(scorer, prompts)
            for prompt in prompts:
                logs[-1].note(prompt, logs[-1].answered)
            return answers

        heard = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ToyScorer, "score", score)
            async with host(talk, **tables) as it:
                for command in commands:
                    logs.append(Log())
                    it.heard.scores, it.heard.candidates = [], []
                    await it.run(command)
                    heard.append((it.heard.scores, it.heard.candidates))
        return logs, heard

    def run(talk, commands, fraction=1.0, concurrency=4):
        tables = {
            "memory": {"response_window": COUNT, "token_cutoff": 1.0, "interval_s": 0},
            "finetune": {"window_fraction": fraction, "threshold": 0.0},
            "server": {"concurrency": concurrency},
        }
        return asyncio.run(go(talk, commands, tables))

    return run


fractions = st.sampled_from([0.5, 1.0])
concurrencies = st.sampled_from([1, 2, 4])


@given(
    data=st.data(),
    command=st.sampled_from([SCORE, FULL, FINETUNE]),
    fraction=fractions,
    concurrency=concurrencies,
)
def test_exactly_what_is_compared_is_sent_once_and_the_baseline_is_answered_first(
    logged, talks, naive, data, command, fraction, concurrency
):
    talk = data.draw(talks)
    plain = naive(talk)
    [log], [(scores, _)] = logged(talk, [command], fraction, concurrency)
    compared = comparisons(plain, command, [score.key for score in scores], fraction)
    asked = [response for prompt in log.prompts for response in responses_of(prompt)]
    assert Counter(asked) == Counter(set().union(*compared))
    for prompt in log.prompts:
        assert prompt.ranges
        assert len(prompt.tokens) == prompt.ranges[-1][1]
        assert prompt.ranges == tuple(sorted(prompt.ranges))
    # One prompt for all that a window's memories need to be compared with, and one for each.
    positions = {plain.positions()[score.key] for score in scores}
    windows = {SCORE: len(positions), FULL: 1, FINETUNE: 1}[command]
    assert len(log.prompts) <= windows + (1 if command == FINETUNE else len(scores))
    # What is without a memory may be another window's baseline.
    baselines = {with_ for with_, _ in compared}
    earliest = {}
    for with_, without in compared:
        earliest[without] = min(earliest.get(without, log.steps), log.answered[with_])
    for without, answered in earliest.items():
        assert without in baselines or answered < log.sent[without]


@given(
    data=st.data(),
    commands=st.permutations([SCORE, FULL, FINETUNE]),
    fraction=fractions,
    concurrency=concurrencies,
)
def test_what_one_flow_has_asked_no_other_asks_and_each_finds_what_it_finds_alone(
    logged, talks, naive, data, commands, fraction, concurrency
):
    talk = data.draw(talks)
    plain = naive(talk)
    logs, heard = logged(talk, commands, fraction, concurrency)
    prompts = [prompt for log in logs for prompt in log.prompts]
    asked = Counter(response for prompt in prompts for response in responses_of(prompt))
    needed = set()
    for command, (scores, candidates) in zip(commands, heard, strict=True):
        needed.update(*comparisons(plain, command, [score.key for score in scores], fraction))
        for score in scores:
            window = plain.window(plain.positions()[score.key], COUNT)
            row = plain.row(window if command == SCORE else range(plain.length), {score.key})
            assert [cell.signed for cell in score.divergences] == pytest.approx(
                [signed for _, _, signed in row], abs=1e-6
            )
        if command == FINETUNE:
            expected = plain.candidates(fraction, 0.0, set(), set())
            found = {candidate.entry_idx: candidate.divergence for candidate in candidates}
            assert found == {
                index: pytest.approx(value, abs=1e-6) for index, value in expected.items()
            }
    assert asked == Counter(needed)
    assert all(len(prompt.tokens) == prompt.ranges[-1][1] for prompt in prompts)


@given(data=st.data(), command=st.sampled_from([SCORE, FULL, FINETUNE]))
def test_a_flow_that_runs_again_asks_again(logged, talks, data, command):
    first, second = logged(data.draw(talks), [command] * 2)[0]
    assert first.prompts == second.prompts


@st.composite
def different_tokens(draw, talks):
    """A conversation in which no token comes twice, and no memory is empty."""
    talk, numbers = draw(talks), iter(range(1000, 9999))

    def renumbered(said):
        stretches = [
            (tuple(next(numbers) for _ in (ids or (0,))), key) for ids, key in said.stretches
        ]
        return replace(said, stretches=tuple(stretches))

    sections = (talk.system, talk.identity, talk.conversation)
    return type(talk)(*(tuple(map(renumbered, section)) for section in sections))


@given(data=st.data())
def test_the_prompts_of_a_matrix_depart_from_the_baseline_ever_earlier(logged, talks, data):
    [log], _ = logged(data.draw(different_tokens(talks)), [FULL], concurrency=1)
    baseline, *ablations = [prompt.tokens for prompt in log.prompts] or [()]
    shared = [common_prefix(baseline, tokens) for tokens in ablations]
    assert shared == sorted(shared, reverse=True)
    # So what each has of the baseline, the one before it has too.
    for (one, other), length in zip(pairwise(ablations), shared[1:], strict=True):
        assert common_prefix(one, other) >= length
