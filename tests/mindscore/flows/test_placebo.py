"""``score-full`` with ``placebo``: the control for the place."""

from dataclasses import replace

import pytest

from mindhooks import MindCommand, ScorerError
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import ScreenReceipt

FULL = MindCommand.SCORE_FULL


def options(**own):
    return {"settings": {"memory-scoring": {"placebo": True, **own}}}


@pytest.fixture
def two(say):
    return say.talk(
        say.user(9),
        say.reply(1, 2),
        identity=[say.memory("own", *[1] * 6), say.memory("idle", *[5] * 6)],
    )


async def test_its_spread_is_what_unrelated_tokens_do_to_each_response(two, host, probe):
    async with host(two, "probe", plugins=options()) as it:
        await it.run(FULL)
        control = it.registry.stash[PlaceboControl]
    full, *_ = (call.tokens for call in probe.asked)
    filled = [call.tokens for call in probe.asked[3:]]
    assert control.keys == ("own", "idle")
    assert [len(tokens) for tokens in filled] == [len(full)] * 2
    for key, tokens in zip((1, 5), filled, strict=True):
        assert key not in tokens[: len(full) - 4]
        assert all(old == new for old, new in zip(full, tokens, strict=True) if old != key)
    assert control.spread["c1"] > 0


async def test_the_effect_of_an_unrelated_text_is_that_of_more_tokens_alone(say, host):
    talk = say.talk(say.user(9), say.reply(3), identity=[say.memory("idle", *[5] * 10)])
    async with host(talk, plugins=options()) as it:
        await it.run(FULL)
        (score,) = it.heard.scores
        control = it.registry.stash[PlaceboControl]
    # Neither has anything to do with the response, so that both only make the prompt longer.
    assert control.spread["c1"] == pytest.approx(-score.divergences[0].signed, rel=1e-9)


async def test_a_place_with_no_response_behind_it_is_none_that_was_tried(say, host):
    late = say.memory("late", *[5] * 6)
    early = say.memory("early", *[6] * 6)
    async with host(say.talk(say.user(9), say.reply(1, 2), late), plugins=options()) as it:
        await it.run(FULL)
        assert PlaceboControl not in it.registry.stash
    talk = say.talk(early, say.user(9), say.reply(1, 2), late)
    async with host(talk, plugins=options()) as it:
        await it.run(FULL)
        control = it.registry.stash[PlaceboControl]
    assert control.keys == ("early",)
    assert "1 place tried" in control.remark


async def test_it_costs_a_prompt_for_each_place(two, host):
    async with host(two) as it:
        await it.run(FULL)
        plain = it.state.memory_last_run.calls
        scores = it.heard.scores
    async with host(two, plugins=options()) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == plain + 2
        assert it.heard.scores == scores


async def test_what_was_measured_is_not_lost_where_it_fails(two, host, probe, caplog):
    score, done = probe.score, []

    async def failing(prompts):
        done.append(prompts)
        if len(done) > 3:
            raise ScorerError("out of order")
        return await score(prompts)

    probe.score = failing
    async with host(two, "probe", plugins=options()) as it:
        await it.run(FULL)
        assert PlaceboControl not in it.registry.stash
        assert len(it.heard.scores) == 2
        assert it.state.memory_last_run.error is None
    assert "the control of the place of own: " in caplog.text


async def test_a_scorer_that_cannot_tokenise_leaves_the_matrix_as_it_is(two, host, probe, caplog):
    async def tokenize(text):
        raise ScorerError("it cannot tokenise")

    probe.tokenize = tokenize
    async with host(two, "probe", plugins=options()) as it:
        await it.run(FULL)
        assert PlaceboControl not in it.registry.stash
        assert len(it.heard.scores) == 2
        assert it.state.memory_last_run.error is None
    assert "the control of the places: it cannot tokenise" in caplog.text


async def test_rows_that_are_kept_are_controlled_too(two, host, tmp_path):
    async with host(two, "toy", tmp_path / "one.sqlite3", plugins=options()) as it:
        await it.run(FULL)
        first = it.registry.stash[PlaceboControl]
    async with host(two, "toy", tmp_path / "one.sqlite3", plugins=options(resume=True)) as it:
        await it.run(FULL)
        assert it.registry.stash[PlaceboControl] == first


async def test_what_it_sends_is_in_every_count_of_a_screen(say, host):
    identity = [say.memory(f"m{n:02}", *[100 + n] * 8) for n in range(40)]
    turns = [turn for n in range(6) for turn in (say.user(9, n), say.reply(100 + 7 * n, 3, 4))]
    talk = say.talk(*turns, identity=identity)
    async with host(talk, plugins=options(screen=True, placebo=False)) as it:
        await it.run(FULL)
        plain, without = it.registry.stash[ScreenReceipt], it.state.memory_last_run
    async with host(talk, plugins=options(screen=True)) as it:
        await it.run(FULL)
        receipt, stats = it.registry.stash[ScreenReceipt], it.state.memory_last_run
    more = stats.prompt_tokens - without.prompt_tokens
    assert more > 0
    assert receipt.spent_tokens == stats.prompt_tokens == plain.spent_tokens + more
    assert receipt.exact_tokens == plain.exact_tokens + more


async def test_a_memory_with_images_is_no_place_for_a_text(say, host):
    shown = replace(say.memory("pic", 7, 7), images=("one",))
    talk = say.talk(say.user(9), say.reply(1, 2), identity=[shown, say.memory("own", *[1] * 6)])
    async with host(talk, plugins=options(), server={"require_images": False}) as it:
        await it.run(FULL)
        assert it.registry.stash[PlaceboControl].keys == ("own",)


async def test_a_single_memory_keeps_what_the_template_prints_round_it(say, host, probe):
    async def tokenize(text):
        return [50, 51, 52, 53] if text == "own" else [70, 71, 72]

    probe.tokenize = tokenize
    memory = replace(say.memory("own", 40, 41, 50, 51, 52, 53, 42), text="own")
    talk = say.talk(say.user(9), say.reply(1, 2), identity=[memory])
    async with host(talk, "probe", plugins=options()) as it:
        await it.run(FULL)
        assert not it.registry.stash[PlaceboControl].is_framed
    filled = probe.asked[-1].tokens
    assert filled[:7] == (40, 41, 70, 71, 72, 70, 42)
