"""Advice from what a store has: whose evidence counts, and what is said of the rest."""

import pytest
from tests.mindscore.archive.archives import DAY_S, MEMORIES, SCORED_AT, Archive, chance

from mindscore._util.errors import UsageError
from mindscore.measure.verdicts import Verdict


def planted(key, node_id, number):
    """Help by the dog for its response, harm by the first idle one, chance by the others."""
    effect = chance(key, node_id, number)
    if key == "dog" and node_id == "pet":
        return 6.0 + effect
    if key == "idle-0" and number % 2:
        return -5.0 + effect
    return effect


def verdicts(advice):
    return {it.key: it.verdict for it in advice.advice}


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path, 40)


async def test_planted_kinds_are_found(archive):
    await archive.plant(planted, hold=lambda key, id_: 9.0 * (key[:3] == "tea" and id_ == "drink"))
    advice = await archive.advise()
    found = verdicts(advice)
    assert found["dog"] is Verdict.KEEP
    assert found["idle-0"] is Verdict.HARMFUL
    assert {found["tea-1"], found["tea-2"]} == {Verdict.KEEP, Verdict.MERGE}
    assert {found[f"idle-{n}"] for n in (1, 2, 3)} == {Verdict.DROP}
    assert (advice.model, advice.mode) == ("toy", "full")
    assert (advice.conversations, advice.responses, advice.cells) == (40, 80, 80 * len(MEMORIES))
    assert advice.first_scored == advice.last_scored == SCORED_AT
    assert advice.remarks == ()
    [first, *_] = advice.advice
    assert first.verdict is Verdict.HARMFUL
    for effect in first.evidence.worst:
        place = advice.places[effect.response]
        assert place.node_id in ("drink", "pet")
        assert place.entry_idx in (1, 3)
    assert advice.texts["dog"] == MEMORIES["dog"]
    assert advice.tokens_a_turn(first) == 8
    assert {it.key for it in advice.removable} == {
        key for key, it in found.items() if it in (Verdict.DROP, Verdict.MERGE)
    }


async def test_few_conversations_are_not_enough(tmp_path):
    made = Archive(tmp_path, 6)
    await made.plant(chance)
    advice = await made.advise()
    assert set(verdicts(advice).values()) == {Verdict.NOT_ENOUGH_EVIDENCE}
    assert all((it.more_conversations or 0) >= 24 for it in advice.advice)


async def test_an_empty_store_has_no_advice(archive):
    advice = await archive.advise()
    assert advice.advice == ()
    assert "mindscore score PATH --full" in advice.remarks[0]


async def test_of_several_models_the_one_with_most_evidence_counts_unless_another_is_asked(archive):
    await archive.plant(planted)
    for file in sorted(archive.folder.iterdir())[5:]:
        file.unlink()
    await archive.plant(chance, model="other")
    advice = await archive.advise()
    assert advice.model == "toy"
    assert "70 effects by other are not used: --model chooses" in advice.remarks[0]
    asked = await archive.advise(model="other")
    assert (asked.model, asked.conversations) == ("other", 5)
    assert not any("--model" in it for it in asked.remarks)
    with pytest.raises(UsageError, match="no evidence of model 'third' is kept; there is some of"):
        await archive.advise(model="third")


async def test_whole_conversations_count_rather_than_windows(archive):
    await archive.plant(lambda *_: 9.0, mode="incremental")
    windows = await archive.advise()
    assert windows.mode == "incremental"
    assert any("only windows after each memory" in it for it in windows.remarks)
    await archive.plant(planted)
    advice = await archive.advise()
    assert advice.mode == "full"
    assert verdicts(advice)["idle-1"] is Verdict.DROP
    assert any("560 effects within windows" in it for it in advice.remarks)


async def test_what_an_earlier_version_left_is_said(archive):
    await archive.plant(planted)
    await archive.plant(lambda *_: 9.0, conversation="", text_hash="")
    advice = await archive.advise()
    assert verdicts(advice)["idle-1"] is Verdict.DROP
    [line] = [it for it in advice.remarks if "earlier version name no conversation" in it]
    assert line.startswith("14 effects")


async def test_missing_texts_lengths_times_and_noise_are_said(tmp_path):
    made = Archive(tmp_path, 3, {"tea": "Tea.", "dog": "A dog."})
    await made.plant(chance, responded_at=None, text_hash="0" * 32)
    advice = await made.advise()
    said = "\n".join(advice.remarks)
    assert "the noise of 6 responses of 6 is not known" in said
    assert "6 responses of 6 have no time of their own" in said
    assert "the text of 2 memories is not kept" in said
    assert "the length of 2 memories is not known" in said
    assert "2 memories were never scored alone" in said
    assert advice.tokens_a_turn(advice.advice[0]) is None


async def test_since_counts_only_later_responses(archive):
    await archive.plant(planted)
    advice = await archive.advise(since=SCORED_AT + 30 * DAY_S)
    assert advice.conversations == 10
    assert any(it.startswith("420 effects before --since") for it in advice.remarks)


async def test_an_edited_memory_is_judged_by_its_newest_text(archive):
    await archive.plant(planted)
    await archive.store.record_texts([])
    later = {"text_hash": "f" * 32, "scored_at": SCORED_AT + DAY_S}
    await archive.plant(
        lambda key, id_, n: 7.0 if key == "idle-1" else chance(key, id_, n), **later
    )
    advice = await archive.advise()
    [it] = [it for it in advice.advice if it.key == "idle-1"]
    assert it.verdict is Verdict.KEEP
    assert it.evidence.version.text_hash == "f" * 32
    [older] = it.older
    assert older.responses == 80


async def test_time_is_shown_in_weeks_of_a_memorys_own_responses(archive):
    await archive.plant(planted)
    advice = await archive.advise()
    assert advice.period == "week"
    periods = advice.timeline["dog"]
    assert sum(it.judged for it in periods) == 80
    assert sum(it.helped for it in periods) == 40
    assert [it.begins for it in periods] == sorted(it.begins for it in periods)
    [evidence] = [it.evidence for it in advice.advice if it.key == "dog"]
    assert sum(it.nats for it in periods) == pytest.approx(evidence.nats)
