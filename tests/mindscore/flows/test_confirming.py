"""Memories that may hide or need each other are removed together, wherever they are printed."""

import json
import logging

import pytest

from mindhooks import MindCommand, RangeScore, ScoreResult
from mindscore.config.settings import MemoryScoringOptions, parse_settings
from mindscore.conversation.native import read_transcript
from mindscore.flows import confirming
from mindscore.measure.interactions import MOST_GROUPS, MOST_PAIRS, Interaction, RedundantGroup
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.session.session import Session
from mindscore.store import Store

FULL = MindCommand.SCORE_FULL
SAME = {f"tea-{n}": "Jasmine tea from Fujian." for n in range(6)}
OTHERS = {f"note-{n}": f"Note {n} says nothing." for n in range(8)}
MEMORIES = {**SAME, **OTHERS}


@pytest.fixture
def printed(tmp_path):
    """Makes a conversation of which one message prints ``memories``, ``before`` those apart."""

    def make(memories, before=()):
        system = [{"text": "You know:\n"}]
        system += [{"text": f"- {MEMORIES[key]}\n", "key": key} for key in memories]
        lines = [{"role": "system", "content": system}]
        lines += [{"role": "memory", "key": key, "content": MEMORIES[key]} for key in before]
        lines += [
            {"role": "user", "content": "What do I drink?"},
            {"role": "assistant", "content": "Jasmine tea from Fujian.", "id": "answer"},
        ]
        file = tmp_path / "talk.jsonl"
        file.write_text("".join(json.dumps(it) + "\n" for it in lines))
        return read_transcript(file)

    return make


@pytest.fixture
def open_session(tmp_path):
    """Opens a session with the toy, or another scorer, and ``hold``."""

    def open_session(transcript, hear=lambda _: None, **server):
        tables = {
            "server": {"scorer": "toy", "self_test": False, "concurrency": 1, **server},
            "store": {"url": f"sqlite:///{tmp_path}/store"},
            "plugins": {"settings": {"memory-scoring": {"hold": True}}},
        }
        return Session(transcript, hear=hear).open(tables)

    return open_session


@pytest.mark.parametrize(
    ("within", "before"),
    [
        (list(MEMORIES), []),
        ([*list(SAME)[:3], *OTHERS], list(SAME)[3:]),
        (list(SAME), list(OTHERS)),
        ([], list(MEMORIES)),
    ],
    ids=["one-message", "in-part", "few", "apart"],
)
async def test_a_group_is_named_wherever_its_memories_are_printed(
    printed, open_session, probe, caplog, within, before
):
    async with open_session(printed(within, before), scorer="probe") as session:
        result = await session.run(MindCommand.SCORE_FULL)
    [group] = result.redundant
    assert set(group.keys) == set(SAME)
    assert group.node_ids == ("answer",)
    assert caplog.text == ""
    # No prompt is asked for twice: what was printed anew is found in the cache.
    assert len({it.tokens for it in probe.asked}) == len(probe.asked) == result.stats.calls


async def test_the_group_is_left_out_of_the_prompt_as_the_session_prints_it(
    printed, open_session, probe
):
    async with open_session(printed(list(MEMORIES)), scorer="probe") as session:
        await session.run(MindCommand.SCORE_FULL)
        without = await session.context_without([frozenset(SAME)])
        expected = without.wire_prompt(range(2), SAME.__contains__)
    [body] = [node.body for node in without.conversation if node.id == "answer"]
    asked = probe.asked[-1]
    assert asked.tokens == expected.tokens[: len(asked.tokens)]
    assert asked.ranges == expected.ranges
    assert body[1] - body[0] == asked.ranges[0][1] - asked.ranges[0][0]


async def test_a_conversation_that_has_gone_on_meanwhile_names_no_group_and_keeps_the_rest(
    printed, open_session, caplog
):
    transcript = printed(list(MEMORIES))
    later = printed(list(MEMORIES)[1:])

    def hear(_):
        session.transcript = later

    async with open_session(transcript, hear) as session:
        with caplog.at_level(logging.WARNING, "mindscore"):
            result = await session.run(MindCommand.SCORE_FULL)
    assert result.redundant == ()
    assert "the conversation has changed meanwhile" in caplog.text
    assert len(result.scores) == 14
    assert result.error is None


async def test_a_run_that_does_not_look_for_groups_keeps_none_of_the_run_before(
    printed, open_session
):
    async with open_session(printed([], list(MEMORIES))) as session:
        stash = session.registry.stash
        await session.run(MindCommand.SCORE_FULL)
        [group] = stash[RedundantGroup]
        store = Store(parse_settings(session.registry.settings).store)
        [notes] = (await store.notes("toy")).values()
        assert notes.interactions.redundant == (group,)
        # As a host does that keeps its registry, and forgets nothing.
        stash[MemoryScoringOptions] = MemoryScoringOptions()
        session.registry.dispatch(MindCommand.SCORE_FULL)
        await session.registry.wait_idle()
        assert RedundantGroup not in stash


async def test_a_run_that_cannot_remove_a_group_keeps_what_was_found_of_it(
    printed, open_session, monkeypatch
):
    async with open_session(printed(list(MEMORIES))) as session:
        store = Store(parse_settings(session.registry.settings).store)

        async def groups():
            assert (await session.run(MindCommand.SCORE_FULL)).error is None
            [notes] = (await store.notes("toy")).values()
            return notes.interactions.redundant

        [group] = await groups()
        render = session.context_without
        monkeypatch.setattr(session, "context_without", None, raising=False)
        assert await groups() == (group,)
        # Removed together, they are not missed any more.
        monkeypatch.setattr(session, "context_without", render)
        monkeypatch.setattr(confirming, "find_interactions", lambda *_: ())
        assert await groups() == ()


async def test_a_host_that_cannot_print_it_anew_names_no_group_and_keeps_the_rest(
    printed, open_session, caplog, monkeypatch
):
    async with open_session(printed(list(MEMORIES))) as session:
        await session.context()
        monkeypatch.setattr(session, "context_without", None, raising=False)
        with caplog.at_level(logging.WARNING, "mindscore"):
            result = await session.run(MindCommand.SCORE_FULL)
    assert result.redundant == ()
    assert "the host cannot print its messages without them" in caplog.text
    assert len(result.scores) == 14
    assert result.error is None


# -- through the flow, with effects that are known ------------------------------------------------


def options(**own):
    return {"settings": {"memory-scoring": {"hold": True, **own}}}


@pytest.fixture
def known(probe, monkeypatch):
    """Has ``probe`` give each response what ``worth`` says, by the memories before it.

    A memory is a token from 1000 on.
    """

    def install(worth):
        async def score(prompts):
            probe.asked += prompts
            await probe._pass(prompts)
            answers = []
            for prompt in prompts:
                its = zip(prompt.node_ids, prompt.ranges, strict=True)
                before = [(id_, frozenset(prompt.tokens[:start])) for id_, (start, _) in its]
                answers.append([RangeScore(-100.0 + worth(id_, there)) for id_, there in before])
            return ScoreResult(answers, sum(len(prompt.tokens) for prompt in prompts))

        monkeypatch.setattr(probe, "score", score)

    return install


def talk_of(say, memories, replies=2, asked=1):
    """A conversation of ``memories``, of one token each: m0 is 1000."""
    nodes = [say.memory(f"m{number}", 1000 + number) for number in range(memories)]
    turns = [it for _ in range(replies) for it in (say.user(*[9] * asked), say.reply(1))]
    return say.talk(*turns, identity=nodes)


def either(*tokens, nats=12.0):
    return lambda id_, there: nats * (id_ == "c1" and not there.isdisjoint(tokens))


def every(*tokens, nats=12.0):
    return lambda id_, there: nats * (id_ == "c1" and there.issuperset(tokens))


def each(*tokens, nats=12.0):
    return lambda id_, there: nats * (id_ == "c1") * len(there.intersection(tokens))


async def interactions(it):
    await it.run(FULL)
    return [(found.kind, found.keys, found.node_ids) for found in it.registry.stash[Interaction]]


@pytest.mark.parametrize(
    ("worth", "found", "more"),
    [
        (either(1000, 1001), [("hide", ("m0", "m1"), ("c1",))], 1),
        (either(1000, 1001, 1002), [("hide", ("m0", "m1", "m2"), ("c1",))], 1),
        (every(1000, 1001), [("need", ("m0", "m1"), ("c1",))], 1),
        (
            every(1000, 1001, 1002),
            [("need", pair, ("c1",)) for pair in [("m0", "m1"), ("m0", "m2"), ("m1", "m2")]],
            3,
        ),
        # Nothing points at them, so that nothing is asked for.
        (each(1000, 1001, 1002), [], 0),
        (lambda _id, _there: 0.0, [], 0),
    ],
    ids=["copies", "three-copies", "split", "split-in-three", "independent", "idle"],
)
async def test_what_does_not_add_up_is_named_for_a_prompt_each(
    worth, found, more, say, host, probe, known
):
    known(worth)
    async with host(talk_of(say, 7), "probe", plugins=options()) as it:
        assert sorted(await interactions(it)) == found
        groups = [(group.keys, group.node_ids) for group in it.registry.stash[RedundantGroup]]
        assert it.state.memory_last_run.error is None
    assert groups == [its[1:] for its in found if its[0] == "hide"]
    assert len(probe.asked) == 2 * (7 + 1) + more


async def test_a_pair_has_what_it_costs_together_and_apart(say, host, known):
    known(every(1000, 1001))
    async with host(talk_of(say, 3), "probe", plugins=options()) as it:
        await it.run(FULL)
        [found] = it.registry.stash[Interaction]
    [entry] = found.entries
    assert (entry.entry_idx, entry.node_id) == (1, "c1")
    assert (entry.together, entry.apart, entry.interaction) == (12.0, 24.0, -12.0)


async def test_both_kinds_are_found_in_one_run(say, host, known):
    hidden, split = either(1000, 1001), every(1002, 1003)

    def worth(id_, there):
        return hidden(id_, there) if id_ == "c1" else split("c1", there)

    known(worth)
    async with host(talk_of(say, 5), "probe", plugins=options()) as it:
        assert await interactions(it) == [
            ("hide", ("m0", "m1"), ("c1",)),
            ("need", ("m2", "m3"), ("c3",)),
        ]


async def test_the_response_without_any_memory_is_used_only_where_it_is_known(
    say, host, known, tmp_path
):
    # Either does much alone, so that only what all do together tells that they do not add up.
    def worth(id_, there):
        return (0.0, 5.0, 12.0)[len(there & {1000, 1001})] * (id_ == "c1")

    known(worth)
    file = tmp_path / "one.sqlite3"
    async with host(talk_of(say, 5), "probe", file, plugins=options()) as it:
        # What they do is limited, and neither needs the other.
        assert await interactions(it) == []
        assert it.state.memory_last_run.calls == 2 * (5 + 1) + 1
    async with host(talk_of(say, 5), "probe", file, plugins=options(resume=True)) as it:
        assert await interactions(it) == []
        assert it.state.memory_last_run.calls == 0


async def test_a_matrix_without_holds_has_no_call_more_than_memories_and_one(
    say, host, probe, known
):
    known(every(1000, 1001))
    async with host(talk_of(say, 4), "probe", plugins=options(hold=False)) as it:
        await it.run(FULL)
        assert it.registry.stash.get(Interaction, ()) == ()
    assert len(probe.asked) == 4 + 1


async def test_no_more_are_removed_together_than_the_plan_says(say, host, probe, known):
    many = [f"c{2 * number + 1}" for number in range(30)]

    def worth(id_, there):
        at = many.index(id_)
        first = 1000 + 2 * at
        split = there >= {first, first + 1}
        return 12.0 * (split if at < 15 else bool(there & {first, first + 1}))

    known(worth)
    async with host(talk_of(say, 60, replies=30), "probe", plugins=options()) as it:
        found = await interactions(it)
    assert [kind for kind, _, _ in found] == ["hide"] * MOST_GROUPS + ["need"] * MOST_PAIRS
    assert len(probe.asked) == 2 * (60 + 1) + MOST_GROUPS + MOST_PAIRS


@pytest.mark.parametrize("rooms", [0, 1, 2])
async def test_tokens_that_end_leave_what_was_removed_before(rooms, say, host, probe, known):
    known(every(1000, 1001, 1002))
    talk = talk_of(say, 5, asked=200)
    async with host(talk, "probe", plugins=options()) as it:
        await it.run(FULL)
    # A row counts as long as the conversation; a pair takes as much, and leaves that much.
    limit = (2 * (5 + 1) + rooms + 1) * len(probe.asked[0].tokens)
    probe.asked.clear()
    async with host(talk, "probe", plugins=options(max_tokens=limit)) as it:
        found = await interactions(it)
        assert set(it.outcomes.values()) == {"scored"}
        assert it.state.memory_last_run.error is None
    assert len(found) == rooms
    assert sum(len(prompt.tokens) for prompt in probe.asked) <= limit


async def test_a_failure_leaves_what_was_removed_before(say, host, probe, known, caplog):
    known(every(1000, 1001, 1002))
    probe.refuses = lambda _: len(probe.asked) > 2 * (5 + 1) + 1
    async with host(talk_of(say, 5), "probe", plugins=options()) as it:
        with caplog.at_level(logging.WARNING, "mindscore"):
            found = await interactions(it)
        assert set(it.outcomes.values()) == {"scored"}
        assert it.state.memory_last_run.error is None
    assert len(found) == 1
    assert "memories removed together: the probe refuses" in caplog.text


@pytest.mark.parametrize("hold", [False, True])
async def test_of_a_screened_matrix_the_exact_rows_are_looked_at_within_its_cost(
    hold, say, host, probe, known
):
    split = every(1000, 1001)
    known(lambda id_, there: split("c1" if id_ == "c41" else "", there))
    talk = talk_of(say, 150, replies=30)
    async with host(talk, "probe", plugins=options(hold=hold, screen=True)) as it:
        found = await interactions(it)
        receipt = it.registry.stash[ScreenReceipt]
        sent = it.state.memory_last_run.prompt_tokens
    assert found == [("need", ("m0", "m1"), ("c41",))]
    assert receipt.estimated
    assert receipt.spent_tokens == sent == sum(len(prompt.tokens) for prompt in probe.asked)
    assert sent < receipt.exact_tokens


async def test_a_failure_leaves_the_tokens_of_a_screen_as_they_were(
    say, host, probe, known, monkeypatch
):
    split = every(1000, 1001)
    known(lambda id_, there: split("c1" if id_ == "c41" else "", there))
    monkeypatch.setattr(probe, "reuses_prefixes", True, raising=False)
    async with host(talk_of(say, 150, replies=30), "probe", plugins=options(screen=True)) as it:
        probe.refuses = lambda _: it.registry.stash.get(ScreenReceipt) is not None
        await it.run(FULL)
        receipt = it.registry.stash[ScreenReceipt]
        assert it.state.memory_last_run.computed_tokens is None
    assert receipt.unit == "computed"
    assert receipt.spent_tokens > receipt.screen_tokens > 0


async def test_a_screened_matrix_without_holds_spends_little_on_pairs(say, host, probe, known):
    # Any two of these need each other, for another response each.
    def worth(id_, there):
        first = 1000 + 2 * (int(id_[1:]) // 8)
        return 12.0 * (there >= {first, first + 1})

    known(worth)
    talk = talk_of(say, 150, replies=40)
    async with host(talk, "probe", plugins=options(hold=False, screen=True)) as it:
        found = await interactions(it)
        receipt = it.registry.stash[ScreenReceipt]
    assert 0 < len(found) < 10
    assert receipt.spent_tokens == sum(len(prompt.tokens) for prompt in probe.asked)


@pytest.mark.model
async def test_two_notes_of_one_code_hide_each_other_for_the_real_model(tmp_path, open_session):
    lines = [
        {"role": "memory", "key": "code", "content": "The code of the bicycle shed is 7294."},
        {"role": "memory", "key": "shed", "content": "Bicycle shed: the code is 7294."},
        {"role": "memory", "key": "dog", "content": "Rex is a dog and sleeps in the hall."},
        {"role": "user", "content": "What is the code of the bicycle shed?"},
        {"role": "assistant", "content": "The code of the bicycle shed is 7294.", "id": "answer"},
    ]
    file = tmp_path / "codes.jsonl"
    file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    async with open_session(read_transcript(file), scorer="local", device="cpu") as session:
        result = await session.run(FULL)
    [hide] = result.interactions
    assert (hide.keys, hide.kind, hide.node_ids) == (("code", "shed"), "hide", ("answer",))
    [entry] = hide.entries
    assert entry.together > 5 * entry.apart
    assert [group.keys for group in result.redundant] == [hide.keys]
