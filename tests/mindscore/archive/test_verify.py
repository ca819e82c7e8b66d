"""The receipt: what is proposed to go, removed together and measured."""

import math

import pytest
from tests.mindscore.archive.archives import (
    MEMORIES,
    Archive,
    chance,
    joint_ablation,
    totals,
)

from mindhooks import ScorerError
from mindscore._util.errors import UsageError
from mindscore.scorers.toy import ToyScorer


@pytest.fixture
async def archive(tmp_path):
    """Forty conversations, of which nobody has found an effect."""
    made = Archive(tmp_path, 40)
    await made.plant(chance)
    return made


def spread(effects, limit):
    lost = [it for it in effects.values() if it > limit]
    gained = [-it for it in effects.values() if it < -limit]
    return math.fsum(lost), len(lost), math.fsum(gained), len(gained)


@pytest.mark.parametrize("gone", [("idle-1",), ("dog", "idle-0"), ("tea-1", "tea-2", "idle-2")])
async def test_the_first_round_is_the_joint_ablation_measured_naively(archive, gone):
    receipt = await archive.receipt(*gone)
    naive = await joint_ablation(archive.transcripts(), gone)
    assert set(receipt.proposed) == set(gone)
    first = receipt.first
    assert first.responses == len(naive) == 80
    assert first.net == pytest.approx(math.fsum(naive.values()), abs=1e-9)
    for effect in (*first.worst, *first.best):
        place = effect.place
        assert effect.signed == pytest.approx(naive[place.conversation, place.node_id])
    limit = max((it.limit for it in (*first.worst, *first.best)), default=0.0)
    assert limit < 0.5
    parts = (first.lost, first.missed, first.gained, first.freed)
    assert parts == pytest.approx(spread(naive, 0.3), abs=1e-6)


async def test_of_two_that_say_the_same_one_is_kept(archive):
    receipt = await archive.receipt("tea-1", "tea-2", "idle-0", "idle-1")
    assert receipt.first.missed == 40
    assert receipt.first.worst[0].place.node_id == "drink"
    [kept] = receipt.kept
    assert kept in ("tea-1", "tea-2")
    assert receipt.kept_for[kept].signed > 10
    left = set(receipt.proposed) - {kept}
    assert set(receipt.last.keys) == left
    naive = await joint_ablation(archive.transcripts(), left)
    assert receipt.last.net == pytest.approx(math.fsum(naive.values()), abs=1e-9)
    assert receipt.last.lost < receipt.first.lost / 5
    assert receipt.is_complete
    assert receipt.unmeasured == ()


async def test_what_is_missed_in_its_own_way_in_each_conversation_is_put_back(tmp_path):
    made = Archive(
        tmp_path,
        30,
        keys=lambda number: (
            "tea-1" if number % 2 else "tea-2",
            "dog",
            "idle-0",
            "idle-1",
            "idle-2",
        ),
    )
    await made.plant(chance)
    receipt = await made.receipt("tea-1", "tea-2", "dog", "idle-0")
    assert set(receipt.kept) == {"tea-1", "tea-2", "dog"}
    assert receipt.last.keys == ("idle-0",)
    assert receipt.last.missed == 0


async def test_harm_that_goes_is_told_from_help_that_is_lost(tmp_path):
    long = " ".join(f"word{n}" for n in range(300))
    memories = {"dog": "The dog is called Rex.", "long": long, "idle-0": "Note.", "idle-1": "Ha."}
    made = Archive(tmp_path, 6, memories | {"idle-2": "Oh.", "idle-3": "Hm."})
    await made.plant(chance)
    receipt = await made.receipt("long", "idle-0")
    assert receipt.first.freed == 12
    assert receipt.first.missed == receipt.first.lost == 0
    assert receipt.first.gained > 12
    assert receipt.kept == ()
    assert receipt.first.tokens_a_turn > 300


async def test_tokens_saved_are_those_that_the_prompts_are_shorter_by(archive):
    receipt = await archive.receipt("idle-0")
    [first, *_] = archive.transcripts()
    context = await first.context(ToyScorer().tokenize)
    [gone] = [it for it in context.identity if it.memory_key == "idle-0"]
    assert receipt.last.tokens_a_turn == len(gone.token_ids)


async def test_an_earlier_text_of_a_memory_stays(archive):
    edited = archive.folder / "talk-003.jsonl"
    edited.write_text(edited.read_text().replace("archive number 0.", "archive number one."))
    receipt = await archive.receipt("idle-0", "idle-1")
    assert "earlier texts of 1 memory were left where they stand" in receipt.unmeasured
    assert receipt.conversations == 40


async def test_a_merged_copy_stays_where_the_memory_to_merge_with_is_not(tmp_path):
    made = Archive(
        tmp_path,
        30,
        keys=lambda number: (
            ("tea-2", "dog", "idle-0", "idle-1", "idle-2") + (("tea-1",) if number % 3 else ())
        ),
    )
    await made.plant(chance, hold=lambda key, id_: 9.0 * (key[:3] == "tea" and id_ == "drink"))
    advice = await made.advise()
    [merged] = [it for it in advice.advice if it.merge_with]
    assert (merged.key, merged.merge_with) == ("tea-2", "tea-1")
    receipt = await made.receipt()
    lone = {f"talk-{number:03}" for number in range(30) if number % 3 == 0}
    [line] = [it for it in receipt.unmeasured if "to merge" in it]
    assert (
        line
        == f"1 copy to merge stayed in {len(lone)} conversations without the memory to merge with"
    )
    assert "tea-2" not in receipt.kept


async def test_no_more_tokens_are_sent_than_allowed(archive):
    whole = await archive.receipt("idle-0", "idle-1")
    assert whole.prompt_tokens > 0
    for most in (whole.prompt_tokens, whole.prompt_tokens // 2):
        receipt = await archive.receipt("idle-0", "idle-1", max_tokens=most)
        assert receipt.prompt_tokens <= most
        assert receipt.is_complete is (most == whole.prompt_tokens)
    assert receipt.conversations < 40
    [line] = [it for it in receipt.unmeasured if "--max-tokens" in it]
    assert line.startswith(f"{40 - receipt.conversations} conversations not measured")
    with pytest.raises(ScorerError, match="not one conversation fits in --max-tokens"):
        await archive.receipt("idle-0", max_tokens=5)


async def test_a_conversation_that_fails_stops_no_other(archive, probe):
    probe.model = "toy"
    told = []
    probe.refuses = lambda prompt: not told and bool(told.append(prompt) or True)
    tables = {**archive.tables, "server": {"scorer": "probe", "concurrency": 1}}
    receipt = await archive.receipt("idle-0", tables=tables)
    assert receipt.conversations == 39
    [line] = [it for it in receipt.unmeasured if "failed" in it]
    assert "the probe refuses" in line
    assert not receipt.is_complete


async def test_another_model_than_the_advice_is_by_is_refused(archive, probe):
    probe.model = "other"
    with pytest.raises(UsageError, match="the advice is by toy, and the scorer is other"):
        await archive.receipt("idle-0", tables={**archive.tables, "server": {"scorer": "probe"}})


async def test_without_proposals_there_is_nothing_to_measure(tmp_path):
    made = Archive(tmp_path, 3)
    await made.plant(chance)
    with pytest.raises(UsageError, match="nothing is proposed"):
        await made.receipt()


async def test_a_message_that_prints_many_memories_loses_any_set_of_them(tmp_path):
    """Flows leave out one of more than six, or all but one, and have only these rendered."""
    made = Archive(tmp_path, 2, printed=True)
    await made.plant(chance)
    gone = ("tea-1", "tea-2", "idle-3")
    receipt = await made.receipt(*gone)
    (tmp_path / "left").mkdir()
    left = {key: text for key, text in MEMORIES.items() if key not in gone}
    shorter = Archive(tmp_path / "left", 2, left, printed=True)
    expected = 0.0
    for with_, without in zip(made.transcripts(), shorter.transcripts(), strict=True):
        before, after = (
            totals((*it.system, *it.conversation))
            for it in [await each.context(ToyScorer().tokenize) for each in (with_, without)]
        )
        expected += sum(before[id_] - after[id_] for id_ in before)
    assert receipt.first.net == pytest.approx(expected)
    assert receipt.first.missed == 2
