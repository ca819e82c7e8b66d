"""``score-full`` with ``resume``: rows that the store has are not measured again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Context, Image, MindCommand
from mindscore.measure.prompts import RowFingerprints

FULL = MindCommand.SCORE_FULL


def options(**own):
    return {"settings": {"memory-scoring": own}}


RESUME = options(resume=True)


@pytest.fixture
def again(host, tmp_path):
    """Makes hosts that share a store."""
    return lambda talk, scorer, **tables: host(talk, scorer, tmp_path / "one.sqlite3", **tables)


@pytest.fixture
def three(say):
    return say.talk(
        say.memory("c", 3),
        say.user(9),
        say.reply(1, 2, 3),
        identity=[say.memory("a", 1), say.memory("b", 2)],
    )


async def test_rows_that_are_kept_are_not_paid_for_again(three, again, probe):
    async with again(three, "probe", plugins=options(only=["b", "c"])) as it:
        await it.run(FULL)
        first = {score.key: score for score in it.heard.scores}
    asked = len(probe.asked)
    async with again(three, "probe", plugins=RESUME) as it:
        await it.run(FULL)
        stats = it.state.memory_last_run
        found = {score.key: score for score in it.heard.scores}
        kept = await it.store.rows("toy")
    # The baseline, and the one memory that was left.
    assert len(probe.asked) - asked == stats.calls == 2
    assert found.keys() == {"a", "b", "c"} == kept.keys()
    assert {"b": found["b"], "c": found["c"]} == first
    assert set(it.outcomes.values()) == {"scored"}
    assert it.state.response_scores["c2"].keys() == {"a", "b", "c"}


async def test_nothing_is_asked_where_every_row_is_kept(three, again, probe):
    async with again(three, "probe") as it:
        await it.run(FULL)
        first = it.heard.scores
    asked = len(probe.asked)
    async with again(three, "probe", plugins=RESUME) as it:
        await it.run(FULL)
        assert it.heard.scores == first
        assert it.state.memory_last_run.calls == 0
        assert it.state.memory_last_run.error is None
    assert len(probe.asked) == asked


async def test_without_resume_everything_is_measured_again(three, again, probe):
    for _ in range(2):
        async with again(three, "probe") as it:
            await it.run(FULL)
            assert it.state.memory_last_run.calls == 4


async def test_a_conversation_that_went_on_is_measured_anew(say, three, again, probe):
    async with again(three, "probe") as it:
        await it.run(FULL)
    longer = say.talk(*three.conversation, say.user(9), say.reply(2), identity=three.identity)
    async with again(longer, "probe", plugins=RESUME) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == 4


async def test_rows_of_another_model_do_not_count(three, again, probe):
    async with again(three, "probe") as it:
        await it.run(FULL)
    probe.model = "another"
    async with again(three, "probe", plugins=RESUME) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == 4


async def test_a_row_without_hold_is_measured_again_where_hold_is_asked_for(three, again, probe):
    async with again(three, "probe") as it:
        await it.run(FULL)
    async with again(three, "probe", plugins=options(resume=True, hold=True)) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls > 0
        assert all(score.hold is not None for score in it.heard.scores)
    async with again(three, "probe", plugins=options(resume=True, hold=True)) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == 0
        assert all(score.hold is not None for score in it.heard.scores)
    async with again(three, "probe", plugins=RESUME) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.calls == 0
        assert all(score.hold is None for score in it.heard.scores)


async def test_a_row_whose_hold_failed_is_measured_again(three, again, probe):
    holding = options(resume=True, hold=True)
    # What a memory does alone is asked in a prompt without the others.
    probe.refuses = lambda prompt: 2 in prompt.tokens[:2] and 1 not in prompt.tokens[:1]
    async with again(three, "probe", plugins=options(hold=True)) as it:
        await it.run(FULL)
        failed = [key for key, status in it.outcomes.items() if status == "failed"]
    assert failed
    probe.refuses = lambda prompt: False
    async with again(three, "probe", plugins=holding) as it:
        await it.run(FULL)
        assert it.state.memory_last_run.error is None
        assert all(score.hold for score in it.heard.scores)
        assert it.state.memory_last_run.calls > 0


# -- what a row follows from ----------------------------------------------------------------------


def changed(context, section, index, **fields):
    """``context`` with one node's fields replaced."""
    from dataclasses import replace

    sections = {name: getattr(context, name) for name in ("system", "identity", "conversation")}
    nodes = list(sections[section])
    nodes[index] = replace(nodes[index], **fields)
    return Context(**{**sections, section: tuple(nodes)})


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"token_ids": (21, 1, 2, 4, 7, 22)},
        {"body": (2, 5)},
        {"images": (Image("image/png", b"x"),)},
        {"memory_key": "z"},
    ],
    ids=lambda it: next(iter(it)),
)
def test_every_change_of_a_message_changes_every_row(fields, three):
    before = RowFingerprints(three.context())
    after = RowFingerprints(changed(three.context(), "conversation", 2, **fields))
    assert all(before.of(key) != after.of(key) for key in "abc")


def test_what_a_message_becomes_without_the_memory_counts(say):
    talk = say.talk(say.prints("system", ((1,), None), ((2,), "k"), ((3,), "j")), say.reply(1))
    node = talk.context().conversation[0]
    before = RowFingerprints(talk.context())
    rules = lambda gone: (8, *node.render(gone)) if "k" in gone else node.render(gone)  # noqa: E731
    after = RowFingerprints(changed(talk.context(), "conversation", 0, render=rules))
    assert before.of("k") != after.of("k")
    assert before.of("j") == after.of("j")


def test_moving_a_message_to_another_section_changes_it(say):
    one = say.talk(say.user(1), say.reply(2), identity=[say.memory("k", 3, id="x")])
    other = say.talk(say.user(1), say.reply(2), system=[say.memory("k", 3, id="x")])
    assert RowFingerprints(one.context()).of("k") != RowFingerprints(other.context()).of("k")


def test_rows_of_a_model_with_an_adapter_differ_from_those_without(say):
    context = say.talk(say.user(1), say.reply(2), identity=[say.memory("k", 3)]).context()
    plain, adapted = RowFingerprints(context), RowFingerprints(context, "/adapters/one")
    assert len({plain.of("k"), adapted.of("k"), RowFingerprints(context, "/two").of("k")}) == 3


@given(st.text(), st.text())
def test_rows_of_different_memories_differ(one, other):
    fingerprints = RowFingerprints(Context((), (), ()))
    assert (fingerprints.of(one) == fingerprints.of(other)) == (one == other)


# -- which weights a row is of ---------------------------------------------------------------------


class Told:
    """A server's fingerprint, as it is asked for."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def __call__(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def calls_resumed(three, again, probe, told, **server):
    async with again(three, "probe", plugins=RESUME, **server) as it:
        probe.fingerprint = told
        await it.run(FULL)
        stats = it.state.memory_last_run
        return stats.calls, stats.error


async def test_rows_of_other_weights_are_measured_again(three, again, probe):
    first = await calls_resumed(three, again, probe, Told("one"))
    assert await calls_resumed(three, again, probe, Told("one")) == (0, None)
    assert await calls_resumed(three, again, probe, Told("two")) == first == (4, None)


async def test_where_adapters_are_swapped_untold_nothing_is_resumed(three, again, probe):
    probe.swaps_adapters = True
    for told in (None, Told(None), Told(None)):
        assert await calls_resumed(three, again, probe, told) == (4, None)


async def test_a_matrix_whose_weights_are_replaced_meanwhile_fails(three, again, probe):
    _, error = await calls_resumed(three, again, probe, Told("one", "one", "two"))
    assert "the model's weights were replaced" in error
    # What is measured of either is not mixed.
    async with again(three, "probe", plugins=RESUME) as it:
        probe.fingerprint = Told("one")
        await it.run(FULL)
        assert it.state.memory_last_run.error is None
        assert it.state.memory_last_run.calls == 4


async def test_the_conversation_is_hashed_once(three, again, probe, monkeypatch):
    made = []
    init = RowFingerprints.__init__

    def counted(self, context, weights=""):
        made.append(weights)
        init(self, context, weights)

    monkeypatch.setattr(RowFingerprints, "__init__", counted)
    for tables in ({}, {"plugins": RESUME}):
        async with again(three, "probe", **tables) as it:
            await it.run(FULL)
            assert it.state.memory_last_run.error is None
    assert len(made) == 2
