"""Verdicts on the memories of archives whose memories' kinds are known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from tests.mindscore.measure.planted import KINDS, archive, columns

from mindscore.config.settings import AdviseSettings
from mindscore.measure.duplicates import Basis
from mindscore.measure.evidence import EvidenceColumns, MemoryVersion
from mindscore.measure.verdicts import Verdict, advise

DEFAULTS = AdviseSettings()
RIGHT = {
    "steady": {Verdict.KEEP},
    "rare": {Verdict.KEEP},
    "copy": {Verdict.KEEP, Verdict.MERGE},
    "misleading": {Verdict.HARMFUL},
    "idle": {Verdict.DROP},
}


def judged(evidence, **changes):
    return advise(evidence, AdviseSettings(**changes))


def by_key(advice):
    return {it.key: it for it in advice}


def kind(it):
    return it.key.partition("-")[0]


def verdicts(conversations, seeds, **options):
    """How often each kind of memory got each verdict, in as many archives."""
    return Counter(
        (kind(it), it.verdict)
        for seed in seeds
        for it in advise(archive(conversations, seed, **options), DEFAULTS)
    )


def recall(found, name):
    mine = {verdict: count for (each, verdict), count in found.items() if each == name}
    return sum(mine.get(it, 0) for it in RIGHT[name]) / sum(mine.values())


def precision(found, verdict):
    named = {each: count for (each, it), count in found.items() if it is verdict}
    return sum(named.get(each, 0) for each in RIGHT if verdict in RIGHT[each]) / sum(named.values())


def reordered(it, order):
    names = ("memory", "conversation", "response", "signed", "hold", "noise", "time")
    return replace(it, **{name: getattr(it, name)[order] for name in names})


# -- planted archives -----------------------------------------------------------------------------


def test_of_10_conversations_what_is_plain_is_said_and_nothing_is_dropped(capsys):
    found = verdicts(10, range(8))
    report(capsys, 10, found)
    assert not any(verdict is Verdict.DROP for _, verdict in found)
    assert found["idle", Verdict.NOT_ENOUGH_EVIDENCE] >= 0.97 * 8 * KINDS.count("idle")
    assert recall(found, "steady") >= 0.7
    assert recall(found, "copy") >= 0.5
    assert precision(found, Verdict.KEEP) >= 0.9
    assert precision(found, Verdict.HARMFUL) >= 0.9


def test_of_100_conversations_most_is_known(capsys):
    found = verdicts(100, range(8))
    report(capsys, 100, found)
    assert recall(found, "steady") == 1.0
    assert recall(found, "rare") >= 0.6
    assert recall(found, "copy") >= 0.95
    assert recall(found, "misleading") >= 0.9
    assert recall(found, "idle") >= 0.85
    assert all(precision(found, it) >= 0.95 for it in (Verdict.KEEP, Verdict.MERGE, Verdict.DROP))
    assert precision(found, Verdict.HARMFUL) >= 0.9


def test_of_1000_conversations_nearly_all_is_known(capsys):
    found = verdicts(1000, range(4))
    report(capsys, 1000, found)
    assert all(recall(found, it) == 1.0 for it in ("steady", "rare", "misleading"))
    assert recall(found, "copy") >= 0.9
    assert recall(found, "idle") >= 0.95
    assert precision(found, Verdict.MERGE) == precision(found, Verdict.DROP) == 1.0
    # The two that a false discovery rate of 0.05 bounds.
    assert precision(found, Verdict.KEEP) >= 0.95
    assert precision(found, Verdict.HARMFUL) >= 0.85


def report(capsys, conversations, found):
    with capsys.disabled():
        said = {verdict for _, verdict in found}
        named = [it for it in Verdict if it in said and it is not Verdict.NOT_ENOUGH_EVIDENCE]
        precisions = ", ".join(f"{it} {precision(found, it):.2f}" for it in named)
        recalls = ", ".join(f"{it} {recall(found, it):.2f}" for it in RIGHT)
        print(  # noqa: T201
            f"\n{conversations} conversations: precision: {precisions}; recall: {recalls}"
        )


def test_of_copies_one_is_kept_and_the_others_are_merged_with_it():
    given = advise(archive(100, 1), DEFAULTS)
    assert not any(it.duplicates for it in given if kind(it) != "copy")
    copies = [it for it in given if kind(it) == "copy"]
    assert Counter(it.verdict for it in copies) == {Verdict.KEEP: 1, Verdict.MERGE: 4}
    kept = next(it.key for it in copies if it.verdict is Verdict.KEEP)
    assert {it.merge_with for it in copies if it.verdict is Verdict.MERGE} == {kept}
    assert all(it.duplicates[0].basis is Basis.HOLD for it in copies)


@pytest.mark.parametrize("tails", [4, 30])
@pytest.mark.parametrize("conversations", [8, 40])
def test_among_memories_that_do_nothing_hardly_any_is_said_to_do_something(tails, conversations):
    """At 0.95, help and harm are each found in 5 of 100 such archives at most."""
    wrong = 0
    for seed in range(100):
        evidence = archive(conversations, seed, kinds=["idle"] * 20, tails=tails)
        given = {it.verdict for it in advise(evidence, DEFAULTS)}
        wrong += bool(given & {Verdict.KEEP, Verdict.HARMFUL, Verdict.MERGE})
    assert wrong <= 10


def test_as_many_more_conversations_as_are_named_mostly_do():
    idle = ["idle"] * 20
    short = [it for it in advise(archive(12, 3, idle), DEFAULTS) if it.more_conversations]
    assert len(short) >= 18
    more = int(np.median([it.more_conversations for it in short]))
    assert 20 <= more <= 200
    assert all(it.more_responses > it.more_conversations for it in short)
    # A memory is in 0.8 of them.
    enough = advise(archive(12 + round(more / 0.8), 4, idle), DEFAULTS)
    assert sum(it.verdict is Verdict.DROP for it in enough) >= 12


# -- what changes nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "shift"), [(1, 0), (2, 7), (3, -(10**9)), (4, 2**40)])
def test_neither_the_order_of_rows_nor_the_numbers_of_ids_change_the_advice(seed, shift):
    evidence = archive(25, 2)
    moved = replace(
        evidence, conversation=evidence.conversation + shift, response=evidence.response - shift
    )
    order = np.random.default_rng(seed).permutation(len(evidence.memory))
    assert [summary(it) for it in advise(reordered(moved, order), DEFAULTS)] == [
        summary(it) for it in advise(evidence, DEFAULTS)
    ]


def summary(it):
    """All that the advice says, but for the columns' own numbers."""
    known = replace(it.evidence, largest=None, worst=())
    return replace(it, evidence=known), [effect.signed for effect in it.evidence.worst]


def test_the_order_of_memories_changes_no_verdict():
    evidence = archive(60, 5)
    number = len(evidence.versions)
    back = replace(evidence, versions=evidence.versions[::-1], memory=number - 1 - evidence.memory)
    assert {it.key: summary(it) for it in advise(back, DEFAULTS)} == {
        it.key: summary(it) for it in advise(evidence, DEFAULTS)
    }


# -- one memory at a time -------------------------------------------------------------------------


def beside(effects, number=6, response=lambda at: at, **version):
    """Columns of one memory's effects, and of idle ones beside it, a conversation for each."""
    random = np.random.default_rng(1)
    rows = []
    for at, effect in enumerate(effects):
        rows.append((0, at, response(at), effect, np.nan, np.nan, 100.0 + at))
        rows += [(other, at, response(at), 0.3 * random.normal()) for other in range(1, number)]
    versions = [MemoryVersion("mine", "h", **version)]
    return columns([*versions, *(MemoryVersion(f"idle-{at}") for at in range(1, number))], rows)


def quiet(number):
    return 0.3 * np.random.default_rng(2).normal(size=number)


def test_a_memory_that_helped_once_and_much_is_not_dropped():
    effects = quiet(200)
    assert by_key(judged(beside(effects)))["mine"].verdict is Verdict.DROP
    effects[17] = 25.0
    it = by_key(judged(beside(effects)))["mine"]
    assert it.verdict is Verdict.KEEP
    assert (it.evidence.largest.response, it.evidence.largest.signed) == (17, 25.0)
    assert "25.0 nats" in it.reason


def test_a_single_help_that_may_be_no_chance_is_named():
    effects = quiet(200)
    effects[17] = 4.2
    # So strict a confidence that it is no help yet, and so loose that it may be one.
    it = by_key(judged(beside(effects, number=60), confidence=0.95))["mine"]
    assert it.verdict in (Verdict.KEEP, Verdict.NOT_ENOUGH_EVIDENCE)
    assert "4.2 nats" in it.reason


def test_a_memory_seen_in_few_conversations_is_not_dropped_however_quiet():
    few, enough = (by_key(judged(beside(0.01 * quiet(number))))["mine"] for number in (29, 30))
    assert (few.verdict, few.more_conversations) == (Verdict.NOT_ENOUGH_EVIDENCE, 1)
    assert enough.verdict is Verdict.DROP
    less = by_key(judged(beside(0.01 * quiet(29)), min_conversations=10))["mine"]
    assert less.verdict is Verdict.DROP


def test_a_memory_seen_in_one_conversation_is_judged_by_what_is_beyond_doubt_alone():
    idle = by_key(judged(beside([0.1])))["mine"]
    assert (idle.verdict, idle.more_conversations) == (Verdict.NOT_ENOUGH_EVIDENCE, 29)
    assert idle.evidence.interval is None
    assert by_key(judged(beside([30.0])))["mine"].verdict is Verdict.KEEP


def test_a_memory_that_harms_in_few_conversations_takes_no_more_than_one_that_helps_as_much():
    effects = np.array([0.2, 2.4, 0.3, 2.2, 0.9, 1.2])
    helps, harms = (by_key(judged(beside(it * effects)))["mine"] for it in (1, -1))
    assert {helps.verdict, harms.verdict} == {Verdict.NOT_ENOUGH_EVIDENCE}
    assert helps.more_conversations == harms.more_conversations == 24


def test_a_memory_that_was_never_judged_says_how_much_it_takes():
    made = beside(quiet(40))
    unseen = replace(made, versions=[*made.versions, MemoryVersion("unseen")])
    it = by_key(judged(unseen))["unseen"]
    assert it.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert (it.evidence.responses, it.more_conversations) == (0, 30)
    assert it.more_responses == 30


def test_no_evidence_at_all_is_not_enough():
    nothing = columns([MemoryVersion("mine")], [])
    assert [it.verdict for it in judged(nothing)] == [Verdict.NOT_ENOUGH_EVIDENCE]
    assert judged(columns([], [])) == []


def test_a_harmful_memory_comes_with_the_responses_the_worst_first():
    effects = quiet(60)
    effects[[5, 20, 41, 42]] = -6.0, -9.0, -4.0, -7.0
    it = by_key(judged(beside(effects, response=lambda at: 1000 + at)))["mine"]
    assert it.verdict is Verdict.HARMFUL
    assert [each.response for each in it.evidence.worst[:4]] == [1020, 1042, 1005, 1041]
    assert it.evidence.harmed >= 4
    assert "9.0 nats" in it.reason


def test_a_memory_that_harms_here_and_helps_more_there_is_kept_and_the_harm_is_told():
    effects = quiet(60)
    effects[::6], effects[1::20] = 12.0, -5.0
    it = by_key(judged(beside(effects)))["mine"]
    assert it.verdict is Verdict.KEEP
    assert len([each for each in it.evidence.worst if each.signed < -4]) == 3


def test_a_small_help_everywhere_is_kept_if_it_is_surely_above_the_threshold():
    it = by_key(judged(beside(quiet(60) + 1.0)))["mine"]
    assert it.verdict is Verdict.KEEP
    assert it.evidence.interval.low > DEFAULTS.drop_below_nats
    assert (
        by_key(judged(beside(quiet(60) + 1.0), drop_below_nats=2.0))["mine"].verdict is Verdict.DROP
    )


def test_counts_sums_and_costs_are_those_of_the_cells():
    effects = [20.0, -8.0, *[0.01] * 6]
    made = beside(effects, tokens=25, contexts=40)
    it = by_key(judged(made))["mine"].evidence
    assert (it.conversations, it.responses, it.helped, it.harmed) == (8, 8, 1, 1)
    typical = [np.median(made.signed[made.response == at]) for at in range(8)]
    assert it.nats == pytest.approx(sum(effects) - sum(typical))
    assert it.mean == pytest.approx(it.nats / 8)
    assert it.nats_interval.low == pytest.approx(8 * it.interval.low)
    assert (it.last_helped, it.context_tokens) == (100.0, 1000)
    assert it.nats_per_1000_tokens == pytest.approx(it.nats)
    other = by_key(judged(made))["idle-1"].evidence
    assert (other.context_tokens, other.nats_per_1000_tokens) == (None, None)


def test_where_any_text_does_harm_to_do_less_of_it_is_no_help():
    """As with ``toy``: a short memory dilutes less than the typical one."""
    random = np.random.default_rng(3)
    rows = [
        (memory, at, at, -0.5 - 0.05 * memory + 0.01 * random.normal())
        for at in range(60)
        for memory in range(12)
    ]
    found = judged(columns([MemoryVersion(f"m{at}") for at in range(12)], rows))
    assert {it.verdict for it in found} == {Verdict.DROP}


# -- versions, and memories that say the same -----------------------------------------------------


def test_an_edited_memory_is_judged_by_its_current_text_and_the_older_ones_stand_apart():
    made = beside([25.0] * 40 + [0.01] * 40, last_seen=1.0)
    memory = made.memory.copy()
    memory[(made.memory == 0) & (made.conversation >= 40)] = len(made.versions)
    edited = replace(
        made, memory=memory, versions=[*made.versions, MemoryVersion("mine", "new", last_seen=2.0)]
    )
    it = by_key(judged(edited))["mine"]
    assert it.verdict is Verdict.DROP
    assert (it.evidence.version.text_hash, it.evidence.responses) == ("new", 40)
    assert [(old.version.text_hash, old.helped) for old in it.older] == [("h", 40)]
    assert len(judged(edited)) == len(made.versions)


def twins(texts, hold=False):
    """Two memories of like words, and four others, none of which is missed."""
    random = np.random.default_rng(4)
    rows = [
        (memory, at, at, 0.3 * random.normal(), (10.0 if memory < 2 else 0.2) if hold else np.nan)
        for at in range(100)
        for memory in range(6)
    ]
    names = ["long", "short", "c", "d", "e", "f"]
    return columns(
        [
            MemoryVersion(name, "h", 10 - at, text=text)
            for at, (name, text) in enumerate(zip(names, texts, strict=True))
        ],
        rows,
    )


TEXTS = ["My dentist is Dr. Okafor.", "Dentist: Dr. Okafor.", "Red wine", "A dog", "Ski", "Tea"]


def test_without_hold_memories_of_like_words_are_merged_not_both_dropped():
    found = by_key(judged(twins(TEXTS)))
    assert (found["long"].verdict, found["long"].merge_with) == (Verdict.MERGE, "short")
    assert "not measured" in found["long"].reason
    assert found["short"].verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert (found["short"].more_conversations, found["short"].reason) == (
        None, "long may hide what it does: score with --hold",
    )  # fmt: skip
    assert found["c"].verdict is Verdict.DROP
    assert "--hold" in found["c"].reason


def test_with_hold_words_do_not_matter():
    found = by_key(judged(twins([f"Text {at}" for at in range(6)], hold=True)))
    assert (found["long"].verdict, found["short"].verdict) == (Verdict.MERGE, Verdict.KEEP)
    assert found["long"].duplicates[0].shared == 100
    assert found["short"].reason == "it does the work of long, too, which can go"
    assert "--hold" not in found["c"].reason


def test_a_confirmed_group_is_said_to_be_confirmed():
    plain = twins([None] * 6)
    found = by_key(advise(plain, DEFAULTS, [("long", "short")]))
    assert found["long"].verdict is Verdict.MERGE
    assert found["long"].reason == "short does its work; they were removed together, and missed"
    held = by_key(advise(twins([None] * 6, hold=True), DEFAULTS, [("long", "short")]))
    assert held["long"].duplicates[0].basis is Basis.CONFIRMED
    assert "100 of the 100 responses" in held["long"].reason


def test_columns_of_small_integers_serve():
    made = beside(quiet(40))
    narrow = EvidenceColumns(
        made.versions,
        made.memory.astype(np.int32),
        made.conversation.astype(np.int32),
        made.response.astype(np.int32),
        made.signed,
        made.hold,
        made.noise,
        made.time,
    )
    assert judged(narrow) == judged(made)
