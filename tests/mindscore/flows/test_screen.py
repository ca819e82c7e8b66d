"""``score-full`` with a screen: few rows are exact, the others are estimated, and that is said."""

import asyncio
import random
from dataclasses import replace

import pytest

from mindhooks import MindCommand, ScorerError, ScoreResult
from mindscore._util.errors import StoreError
from mindscore.flows import placebo, screen
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.plain import in_words
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.measure.screening.spans import find_spans
from mindscore.scorers.toy import ToyScorer
from mindscore.store import Store, rows_of

FULL = MindCommand.SCORE_FULL
COMMON = range(200, 260)


def options(**own):
    return {"settings": {"memory-scoring": {"screen": True, **own}}}


def long_talk(say, *, memories=80, responses=14, matter=4, place="start", seed=0):
    """Memories of which few share a rare token with responses, and the keys of these."""
    chance = random.Random(seed)
    keys = [f"m{n:03}" for n in range(memories)]
    chosen = chance.sample(keys, matter)
    first = 0 if place == "start" else responses // 2
    needs = dict(zip(chance.sample(range(first, responses), matter), chosen, strict=True))

    def common(count):
        return [chance.choice(COMMON) for _ in range(count)]

    rare = {key: 1000 + response for response, key in needs.items()}
    nodes = [
        say.memory(key, *common(8), *([rare[key]] if key in rare else []), id=f"n{key}")
        for key in keys
    ]
    turns = []
    for response in range(responses):
        if place == "middle" and response == first:
            turns += nodes
        turns.append(say.user(*common(4)))
        said = [rare[needs[response]]] if response in needs else []
        turns.append(say.reply(*common(4), *said))
    # No common token is one memory's alone.
    system = [say.plain("system", *COMMON, *COMMON, *COMMON)]
    identity = nodes if place == "start" else []
    return say.talk(*turns, system=system, identity=identity), set(chosen)


class Hiding(ToyScorer):
    """The toy, which can hide tokens: exactly as if they were removed, but for some noise."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.noise = noise
        self.hidden = 0
        self.fails = False
        self.stops = None
        """Set by the third call, which never returns; the first was asked for values, too."""
        self.calls = 0
        self.blind = None
        """The first token of a memory that matters no less when it is hidden."""

    async def knock_out(self, prompt, hidden):
        if self.fails:
            raise ScorerError("this model sees everything")
        self.calls += 1
        if self.stops and self.calls > 2:
            self.stops.set()
            await asyncio.Event().wait()
        rows, computed = [], 0
        for spans in hidden:
            self.hidden += 1
            gone = {at for start, end in spans for at in range(start, end)}
            if prompt.tokens[min(spans)[0]] == self.blind:
                gone = set()
            left = [at for at in range(len(prompt.tokens)) if at not in gone]
            moved = {at: new for new, at in enumerate(left)}
            ranges = tuple((moved[start], moved[end - 1] + 1) for start, end in prompt.ranges)
            tokens = tuple(prompt.tokens[at] for at in left)
            short = type(prompt)(tokens, (), ranges, prompt.node_ids)
            [scores] = (await super().score([short])).ranges
            chance = random.Random(f"{spans}")
            rows.append(
                [type(it)(min(0.0, it.total + chance.gauss(0, self.noise))) for it in scores]
            )
            first = min(spans)[0]
            computed += sum(end - start for start, end in prompt.ranges if start >= first)
        return ScoreResult(rows, computed)


@pytest.fixture
def hiding(probe, monkeypatch):
    """A scorer, installed as ``probe``, that can hide tokens."""
    scorer = Hiding()
    monkeypatch.setattr(probe, "knock_out", scorer.knock_out, raising=False)
    return scorer


async def run(it, receipt=True):
    await it.run(FULL)
    found = it.registry.stash.get(ScreenReceipt)
    assert (found is not None) == receipt
    return found


@pytest.mark.parametrize("place", ["start", "middle"])
async def test_what_matters_is_found_by_groups_for_less_than_exact_rows_take(
    place, say, host, probe
):
    talk, matter = long_talk(say, place=place)
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        stats, exact = it.state.memory_last_run, {score.key for score in it.heard.scores}
    assert receipt.method == "groups"
    assert matter <= exact == set(receipt.exact)
    assert receipt.spent_tokens == stats.prompt_tokens == sum(len(p.tokens) for p in probe.asked)
    assert receipt.spent_tokens < 0.6 * receipt.exact_tokens
    assert receipt.exact_tokens == await exact_tokens(talk, host)
    assert [bound.nats for bound in receipt.missed] == [1.0, 3.0]


async def test_memories_that_matter_to_the_same_responses_are_found_by_their_words(
    say, host, monkeypatch
):
    talk, _ = long_talk(say, memories=200, matter=1)
    keys = [f"m{n:03}" for n in range(5, 200, 35)]
    # A token of its own for each memory in each of the responses.
    rare = {key: [5000 + 10 * number + it for it in range(3)] for number, key in enumerate(keys)}

    def telling(said, *more):
        [(ids, key)] = said.stretches
        return replace(said, stretches=(((*ids, *more), key),))

    identity = [telling(it, *rare.get(it.key, ())) for it in talk.identity]
    answers = {3: 0, 9: 1, 15: 2}
    turns = [
        replace(say.reply(*(rare[key][answers[number]] for key in keys)), id=it.id)
        if number in answers
        else it
        for number, it in enumerate(talk.conversation)
    ]
    shared = replace(talk, identity=tuple(identity), conversation=tuple(turns))
    spent = []
    for count in (0, screen.FIRST_SUSPECTS):
        monkeypatch.setattr(screen, "FIRST_SUSPECTS", count)
        async with host(shared, plugins=options()) as it:
            receipt = await run(it)
        assert set(keys) <= set(receipt.exact)
        spent.append(receipt.spent_tokens)
    # Without, each group is divided by prompts of its own.
    assert spent[1] < 0.9 * spent[0]


async def exact_tokens(talk, host):
    async with host(talk) as it:
        await it.run(FULL)
        return it.state.memory_last_run.prompt_tokens


async def test_exact_rows_are_those_of_the_matrix_and_estimates_are_nowhere_but_in_the_receipt(
    say, host
):
    talk, matter = long_talk(say)
    async with host(talk, plugins=options()) as it:
        receipt = await run(it)
        screened = {score.key: score.divergences for score in it.heard.scores}
        kept, shown = await it.store.rows("toy"), it.state.response_scores
        outcomes = it.outcomes
        scores = it.state.memory_scores
    async with host(talk) as whole:
        await whole.run(FULL)
        exact = {score.key: score.divergences for score in whole.heard.scores}
    assert screened == {key: exact[key] for key in screened}
    assert kept.keys() == screened.keys() == set(receipt.exact)
    assert {key for column in shown.values() for key in column} <= screened.keys()
    assert scores == {}
    assert {key for key, status in outcomes.items() if status == "scored"} == screened.keys()
    estimated = {key for key, status in outcomes.items() if status == "estimated"}
    assert estimated == set(receipt.estimated) == {it.key for it in receipt.estimates}
    assert estimated | screened.keys() == outcomes.keys()
    assert matter <= screened.keys()
    # Every response that an estimated memory precedes has an estimate.
    assert len(receipt.estimates) == 14 * len(estimated)


async def test_a_scorer_that_hides_tokens_is_asked_for_groups_and_for_members_of_those_that_matter(
    say, host, probe, hiding
):
    talk, matter = long_talk(say)
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        stats = it.state.memory_last_run
    assert receipt.method == "knock-out"
    assert 12 < hiding.hidden < 80
    assert matter <= set(receipt.exact)
    assert receipt.spent_tokens == stats.prompt_tokens
    assert receipt.error_p95 < 0.2
    assert receipt.rank_correlation > 0.2
    assert len(receipt.exact) <= 4 + 8 + 8


async def test_what_was_estimated_before_a_screen_is_cancelled_goes_into_its_receipt(
    say, host, probe, hiding
):
    hiding.stops = asyncio.Event()
    talk, _ = long_talk(say)
    async with host(talk, "probe", plugins=options()) as it:
        it.registry.dispatch(FULL)
        await hiding.stops.wait()
        await it.registry.task_handle("memory-scoring").cancel()
        receipt = it.registry.stash.get(ScreenReceipt)
    assert receipt.exact == receipt.not_looked_at == ()
    assert len(receipt.estimated) == 80
    assert {it.key for it in receipt.estimates} == set(receipt.estimated)
    assert receipt.screen_tokens > 0
    assert "the screen was cut off before its end: nothing is said of the rest" in receipt.remarks


async def test_hiding_leaves_some_of_max_tokens_for_what_it_points_at(say, host, probe, hiding):
    talk, _ = long_talk(say)
    limit = int(0.04 * await exact_tokens(talk, host))
    async with host(talk, "probe", plugins=options(max_tokens=limit)) as it:
        receipt = await run(it)
        assert it.state.memory_last_run.prompt_tokens <= limit
    assert receipt.method == "knock-out"
    assert receipt.exact
    assert receipt.estimated
    assert receipt.not_looked_at


async def test_noisy_estimates_are_confirmed_until_they_prove_to_be_nothing(
    say, host, probe, hiding
):
    hiding.noise = 0.5
    talk, matter = long_talk(say)
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
    assert matter <= set(receipt.exact)
    assert receipt.spent_tokens < receipt.exact_tokens
    assert "and not measured: others like that do less" in receipt.remarks[0]
    assert receipt.error_p95 > 0.2


async def test_a_model_that_cannot_hide_tokens_after_all_is_screened_by_groups(
    say, host, probe, hiding
):
    hiding.fails = True
    talk, matter = long_talk(say)
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        assert it.state.memory_last_run.error is None
    assert receipt.method == "groups"
    assert receipt.remarks == (
        "memories cannot be hidden from responses: this model sees everything",
    )
    assert matter <= set(receipt.exact)


@pytest.mark.parametrize("memories", [1, 3, 12])
async def test_few_memories_are_all_measured_and_that_is_said(memories, say, host):
    talk, _ = long_talk(say, memories=memories, responses=6, matter=1)
    async with host(talk, plugins=options()) as it:
        receipt = await run(it)
        outcomes = it.outcomes
    assert set(outcomes.values()) == {"scored"}
    assert receipt.method == "exact"
    assert receipt.spent_tokens == receipt.exact_tokens == await exact_tokens(talk, host)
    assert receipt.remarks == ("screening would not have been cheaper: every memory was measured",)


async def test_where_every_memory_matters_no_more_is_sent_than_exact_rows_take(say, host):
    talk, _ = long_talk(say, memories=50, responses=50, matter=50)
    async with host(talk, plugins=options()) as it:
        receipt = await run(it)
        sent = it.state.memory_last_run.prompt_tokens
    assert sent <= receipt.exact_tokens == await exact_tokens(talk, host)
    assert len(receipt.exact) > 25


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.7])
async def test_no_more_is_sent_than_max_tokens_and_what_was_not_looked_at_is_said(share, say, host):
    talk, matter = long_talk(say)
    limit = int(share * await exact_tokens(talk, host))
    async with host(talk, plugins=options(max_tokens=limit)) as it:
        receipt = await run(it)
        sent, outcomes = it.state.memory_last_run.prompt_tokens, it.outcomes
    assert sent <= limit
    left = {key for key, status in outcomes.items() if status == "left-out"}
    assert left == set(receipt.not_looked_at)
    assert any("not looked at: --max-tokens" in it for it in receipt.remarks) == bool(left)
    assert (receipt.method == "words") == bool(left) == (share < 0.3)
    if share >= 0.3:
        assert matter <= set(receipt.exact)


async def test_nothing_is_measured_where_max_tokens_do_not_allow_for_a_baseline(say, host, probe):
    talk, _ = long_talk(say)
    async with host(talk, "probe", plugins=options(max_tokens=5)) as it:
        await run(it, receipt=False)
        assert set(it.outcomes.values()) == {"left-out"}
    assert probe.asked == []


async def test_rows_that_are_kept_are_used_and_are_no_part_of_the_sample(say, host, tmp_path):
    talk, matter = long_talk(say)
    file = tmp_path / "one.sqlite3"
    known = sorted(matter)[:2] + [f"m{n:03}" for n in range(10)]
    async with host(talk, "toy", file, plugins=options(screen=False, only=known)) as it:
        await it.run(FULL)
    async with host(talk, "toy", file, plugins=options(resume=True)) as it:
        receipt = await run(it)
    assert set(known) | matter <= set(receipt.exact)
    assert not set(known) & set(receipt.sampled)
    async with host(talk, "toy", file, plugins=options(resume=True)) as it:
        again = await run(it)
    assert set(receipt.exact) <= set(again.exact)
    assert not set(receipt.exact) & set(again.sampled)


async def test_only_what_is_measured_is_measured_alone(say, host):
    talk, matter = long_talk(say)
    async with host(talk, plugins=options(hold=True)) as it:
        receipt = await run(it)
        holds = {score.key for score in it.heard.scores if score.hold is not None}
        sent = it.state.memory_last_run.prompt_tokens
    assert matter <= holds == set(receipt.exact)
    async with host(talk, plugins=options(hold=True, screen=False)) as it:
        await it.run(FULL)
        assert sent < receipt.exact_tokens == it.state.memory_last_run.prompt_tokens


def few_turns(say, *, memories=60, responses=5, matter=3):
    """Many memories, few short turns: the last tokens of some responses are one memory's."""
    keys = random.Random(0).sample(range(memories), matter)
    identity = [say.memory(f"m{n:02}", *[100 + n] * 8) for n in range(memories)]
    turns = []
    for response in range(responses):
        said = [100 + keys[response]] * 2 if response < matter else []
        turns += [say.user(9, 8), say.reply(3, 4, 5, *said)]
    system = [say.plain("system", *range(3, 10))]
    return say.talk(*turns, identity=identity, system=system), {f"m{n:02}" for n in keys}


async def test_memories_are_held_alone_where_that_ranks_best_and_costs_little(say, host, probe):
    talk, matter = few_turns(say)
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        sent = it.state.memory_last_run.prompt_tokens
    assert receipt.method == "hold"
    assert [it.method for it in receipt.trials] == ["words", "hold"]
    assert matter <= set(receipt.exact)
    assert receipt.spent_tokens == sent == sum(len(it.tokens) for it in probe.asked)
    assert receipt.screen_tokens < 0.25 * receipt.exact_tokens
    assert sent < 0.5 * receipt.exact_tokens
    turn = 2 + 5 + 8 + 3
    assert sum(len(it.tokens) <= turn for it in probe.asked) > 200


async def test_memories_are_not_held_alone_where_that_says_something_else(say, host):
    # Alone, a memory has the common tokens that the system prompt has anyway.
    talk, matter = long_talk(say, responses=4, matter=3, seed=1)
    async with host(talk, plugins=options()) as it:
        receipt = await run(it)
    assert receipt.method == "groups"
    assert [it.method for it in receipt.trials] == ["words", "hold"]
    assert matter <= set(receipt.exact)


async def test_where_there_are_no_tokens_to_hold_all_none_is_tried_alone(say, host):
    talk, _ = few_turns(say)
    limit = int(0.15 * await exact_tokens(talk, host))
    async with host(talk, plugins=options(max_tokens=limit)) as it:
        receipt = await run(it)
        assert it.state.memory_last_run.prompt_tokens <= limit
    assert [it.method for it in receipt.trials] == ["words"]


async def test_groups_are_divided_by_prompts_that_end_with_the_responses_in_question(
    say, host, probe
):
    """Every memory in question matters to early responses alone."""
    keys = random.Random(3).sample(range(80), 3)
    identity = [say.memory(f"m{n:02}", *[100 + n] * 8) for n in range(80)]
    turns = []
    for response in range(60):
        said = [100 + keys[response]] * 2 if response < 3 else [3, 4]
        turns += [say.user(*range(3, 9)), say.reply(3, 4, 5, *said)]
    talk = say.talk(*turns, identity=identity, system=[say.plain("system", *range(3, 10))])
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        sent = it.state.memory_last_run.prompt_tokens
    assert receipt.method == "groups"
    assert {f"m{n:02}" for n in keys} <= set(receipt.exact)
    whole = max(len(it.tokens) for it in probe.asked)
    divided = [it for it in probe.asked if len(it.node_ids) < 20]
    assert len(divided) >= 2
    assert all(len(it.tokens) < 0.75 * whole for it in divided)
    assert receipt.spent_tokens == sent == sum(len(it.tokens) for it in probe.asked)


async def test_the_spans_of_memories_are_found_once_for_screen_and_control(say, host, monkeypatch):
    found = []

    async def counted(*given, **named):
        found.append(given)
        return await find_spans(*given, **named)

    monkeypatch.setattr("mindscore.flows.matrix.find_spans", counted)
    talk, _ = few_turns(say)
    async with host(talk, plugins=options(placebo=True)) as it:
        await run(it)
        assert it.registry.stash[PlaceboControl].keys
    assert len(found) == 1
    assert not hasattr(placebo, "find_spans")
    assert not hasattr(screen, "find_spans")


async def test_what_a_resumed_screen_draws_does_not_lie_beside_what_was_drawn(say, host, tmp_path):
    talk, _ = long_talk(say)
    file = tmp_path / "one.sqlite3"
    drawn = []
    for _ in range(2):
        async with host(talk, "toy", file, plugins=options(resume=True)) as it:
            drawn.append((await run(it)).sampled)
    places = [[int(key[1:]) for key in its] for its in drawn]
    assert not set(drawn[0]) & set(drawn[1])
    beside = sum(min(abs(at - other) for other in places[0]) <= 2 for at in places[1])
    assert beside < len(places[1])


async def test_a_memory_that_the_screen_does_not_see_is_found_where_all_others_are_gone_too(
    say, host, probe, hiding
):
    talk, matter = long_talk(say)
    missed = min(matter)
    [node] = [it for it in talk.identity if it.key == missed]
    hidden = replace(node, stretches=(((777, *node.ids()), None),))
    identity = tuple(hidden if it is node else it for it in talk.identity)
    hiding.blind = 777
    async with host(replace(talk, identity=identity), "probe", plugins=options()) as it:
        receipt = await run(it)
    assert receipt.method == "knock-out"
    assert matter <= set(receipt.exact)
    assert missed not in receipt.sampled
    # Of those that are left: what it pointed at is measured.
    assert abs(receipt.together) < 3
    assert [bound.found for bound in receipt.missed] == [1, 1]


async def test_what_was_measured_before_the_scorer_failed_stays_and_the_receipt_says_so(
    say, host, probe
):
    talk, _ = long_talk(say)
    probe.refuses = lambda prompt: len(probe.asked) > 12
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        stats = it.state.memory_last_run
        kept = await it.store.rows("toy")
    assert stats.error == "the probe refuses"
    assert set(receipt.exact) == {score.key for score in it.heard.scores} == kept.keys()
    assert receipt.exact
    failed = {key for key, outcome in it.outcomes.items() if outcome == "failed"}
    assert failed == it.outcomes.keys() - set(receipt.exact)
    assert receipt.remarks == (
        "the screen was cut off before its end: nothing is said of the rest",
    )
    assert not any("--max-tokens" in line for line in in_words(receipt))


async def test_a_memory_that_fails_is_not_among_the_estimated(say, host, probe, hiding):
    talk, matter = long_talk(say)
    failing = min(matter)
    rare = next(it for it in talk.identity if it.key == failing).ids()[-1]
    # One of its tokens is missing from the prompt, but for the response that has it.
    probe.refuses = lambda prompt: prompt.tokens.count(rare) == 1
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        outcomes = it.outcomes
    assert outcomes[failing] == "failed"
    told = (receipt.exact, receipt.sampled, receipt.estimated, receipt.not_looked_at)
    assert failing not in {key for keys in told for key in keys}
    assert {key for key, status in outcomes.items() if status == "estimated"} == set(
        receipt.estimated
    )
    assert failing not in {guess.key for guess in receipt.estimates}


@pytest.mark.parametrize("hides", [False, True])
async def test_a_model_whose_weights_are_replaced_during_the_screen_ends_the_run(
    say, host, probe, monkeypatch, hides
):
    scorer = Hiding()
    if hides:
        monkeypatch.setattr(probe, "knock_out", scorer.knock_out, raising=False)

    async def told():
        # After the baseline and the trial: while groups are removed, or memories hidden.
        return "two" if scorer.hidden or len(probe.asked) > 7 else "one"

    probe.fingerprint = told
    talk, _ = long_talk(say)
    async with host(talk, "probe", plugins=options()) as it:
        receipt = await run(it)
        error = it.state.memory_last_run.error
    assert "the model's weights were replaced" in error
    assert receipt.remarks[-1].startswith("the screen was cut off")
    assert receipt.estimates == ()


async def test_a_screen_that_is_cancelled_leaves_what_it_has_emitted(say, host, probe):
    talk, _ = long_talk(say)
    probe.waits = lambda prompt: len(probe.asked) > 12
    async with host(talk, "probe", plugins=options()) as it:
        it.registry.dispatch(FULL)
        await asyncio.wait_for(probe.waiting.wait(), 60)
        emitted = {score.key for score in it.heard.scores}
        await it.registry.task_handle("memory-scoring").cancel()
        kept = await it.store.rows("toy")
        assert it.state.memory_last_run.error == "cancelled"
    assert emitted == kept.keys()
    assert emitted


@pytest.mark.parametrize(
    ("memory", "screened"),
    [
        ({}, False),
        ({"screen": "off"}, False),
        ({"screen": "on"}, True),
        ({"screen": "auto", "screen_from": 79}, True),
        ({"screen": "auto", "screen_from": 80}, False),
    ],
)
async def test_the_settings_say_whether_a_matrix_is_screened(memory, screened, say, host):
    talk, _ = long_talk(say, responses=4, matter=2)
    async with host(talk, memory=memory) as it:
        await run(it, receipt=screened)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("place", ["start", "middle"])
async def test_twelve_of_500_memories_are_found_for_a_tenth(seed, place, say, host):
    talk, matter = long_talk(say, memories=500, responses=400, matter=12, place=place, seed=seed)
    async with host(talk, plugins=options()) as it:
        receipt = await run(it)
    assert matter <= set(receipt.exact)
    assert receipt.spent_tokens <= 0.1 * receipt.exact_tokens


async def kept_estimates(it):
    batches = it.store.evidence(mode="estimate")
    return [row async for batch in batches for row in rows_of(batch)]


async def test_estimates_are_kept_as_evidence_with_their_error_as_noise(say, host):
    talk, _ = long_talk(say)
    async with host(talk, plugins=options()) as it:
        receipt = await run(it)
        kept = {(row.key, row.node_id): row for row in await kept_estimates(it)}
        texts = {text.key for text in await it.store.memory_texts()}
    told = {(guess.key, guess.node_id): guess.nats for guess in receipt.estimates}
    assert {name: row.signed for name, row in kept.items()} == told
    assert {row.noise for row in kept.values()} == {receipt.error_p95}
    assert all(row.divergence == max(0.0, row.signed) for row in kept.values())
    assert texts >= {*receipt.exact, *receipt.estimated}


async def test_a_run_keeps_no_other_run_s_estimates(say, host):
    talk, _ = long_talk(say)
    async with host(talk, plugins=options()) as it:
        await run(it)
        before = await kept_estimates(it)
        await it.run(MindCommand.SCORE)
        assert it.registry.stash.get(ScreenReceipt) is None
        assert await kept_estimates(it) == before


async def test_a_store_that_cannot_keep_estimates_is_named_and_fails_no_run(
    say, host, monkeypatch, caplog
):
    async def full(self, rows):
        raise StoreError("the store is full")

    monkeypatch.setattr(Store, "add_evidence", full)
    talk, _ = long_talk(say)
    async with host(talk, plugins=options()) as it:
        await run(it)
        assert it.mind.state.memory_last_run.error is None
    assert "estimates could not be kept: the store is full" in caplog.text
