"""Screened matrices over an archive: estimates beside exact rows, and advice on both."""

import asyncio
import json
from dataclasses import replace

import pytest

from mindscore.archive.advise import archive_advice
from mindscore.archive.pass_record import settings_digest
from mindscore.config.settings import parse_settings
from mindscore.store import Store, rows_of

CONVERSATIONS, IDLE = 2, 40
HELPERS = {
    "tea": ("What do I drink?", "Jasmine tea from Fujian, brewed lightly in porcelain."),
    "dog": ("Who barks?", "Rex the terrier barks, mostly at postmen and hedgehogs."),
    "pay": ("How do they pay?", "Invoices are settled quarterly through the Zurich branch."),
}


def write_talks(folder):
    """Conversations of three helping memories and many idle ones, with a response for each helper.

    Each idle memory has words of its own, so that it makes no response likelier.
    """
    folder.mkdir()
    for number in range(CONVERSATIONS):
        lines = [
            {"role": "memory", "key": f"idle-{at}", "content": f"Memo {at}: {at * 7919} {at * 31}."}
            for at in range(IDLE)
        ]
        for at, (key, (_, answer)) in enumerate(HELPERS.items()):
            # At other places in each conversation.
            place = (number * 17 + at * 13) % IDLE
            lines.insert(place, {"role": "memory", "key": key, "content": answer})
        for turn, (asked, answer) in enumerate(HELPERS.values()):
            lines.append({"role": "user", "content": f"{asked} ({number})", "id": f"u{turn}"})
            lines.append({"role": "assistant", "content": answer, "id": f"a{turn}"})
        file = folder / f"talk-{number}.jsonl"
        file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    return folder


@pytest.fixture
def talks(tmp_path):
    return write_talks(tmp_path / "talks")


def store_of(tmp_path, store):
    return {"store": {"url": f"sqlite:///{tmp_path}/{store}"}}


def advice_of(tmp_path, store):
    found, _ = asyncio.run(archive_advice(parse_settings(store_of(tmp_path, store))))
    return found


def evidence_of(tmp_path, store):
    async def read():
        found = Store(parse_settings(store_of(tmp_path, store)).store).evidence()
        return [row async for batch in found for row in rows_of(batch)]

    return asyncio.run(read())


def test_a_screened_pass_keeps_exact_rows_and_estimates_of_the_others(talks, tmp_path, mindscore):
    ran = mindscore("score", talks, "--full", "--screen", "--json", store="screened")
    assert ran.status == 0, ran.err
    receipts = {it["conversation"]: it["screen"] for it in ran.documents}
    found = evidence_of(tmp_path, "screened")
    counts = {mode: sum(it.mode == mode for it in found) for mode in ("full", "estimate")}
    told = f"{counts['full']} measured, {counts['estimate']} estimated (≈)"
    assert f"effects {len(found)} {told}" in " ".join(ran.err.split())
    for conversation, receipt in receipts.items():
        keys = {
            mode: {it.key for it in found if (it.conversation, it.mode) == (conversation, mode)}
            for mode in ("full", "estimate")
        }
        assert keys == {"full": set(receipt["exact"]), "estimate": set(receipt["estimated"])}
        assert HELPERS.keys() <= keys["full"]
        assert len(keys["estimate"]) > IDLE / 2
        estimates = [
            it for it in found if it.conversation == conversation and it.mode == "estimate"
        ]
        assert {it.noise for it in estimates} == {receipt["error_p95"]}
        told = {
            (it["key"], int(entry)): nats
            for it in receipt["estimates"]
            for entry, nats in it["entries"].items()
        }
        assert {(it.key, it.entry_idx): it.signed for it in estimates} == told
        assert all(it.text_hash and it.tokens for it in estimates)
    # Of a memory that nothing was measured of, the advice has the text all the same.
    assert advice_of(tmp_path, "screened").texts.keys() >= {f"idle-{at}" for at in range(IDLE)}


def test_advice_says_how_many_effects_are_estimates(talks, tmp_path, mindscore, capsys):
    mindscore("score", talks, "--full", "--screen", store="screened")
    found, advice = evidence_of(tmp_path, "screened"), advice_of(tmp_path, "screened")
    estimated = sum(it.mode == "estimate" for it in found)
    assert advice.estimated == estimated > 0
    assert advice.mode == "full"
    # Cells before which a memory does not stand count for nothing, estimates of 0 do.
    of = estimated + sum(it.mode == "full" and it.signed != 0 for it in found)
    [remark] = [it for it in advice.remarks if "estimate" in it]
    assert remark.startswith(f"{estimated:,} effects of {of:,} were not measured")
    document = json.loads(mindscore("advise", "--json", store="screened").out)
    assert document["estimated"] == estimated
    by_key = {it["key"]: it["estimated"] for it in document["memories"]}
    assert sum(by_key.values()) == estimated
    assert not any(by_key[key] for key in HELPERS)
    shown = " ".join(mindscore("advise", store="screened").out.split())
    assert "are estimates (≈), not measured" in shown
    keep = {it["key"] for it in document["memories"] if it["verdict"] == "keep"}
    assert keep == HELPERS.keys()


def test_advice_says_of_how_many_estimates_the_error_is_not_known(talks, tmp_path, mindscore):
    mindscore("score", talks, "--full", "--screen", store="screened")
    found = evidence_of(tmp_path, "screened")
    some = [it for it in found if it.mode == "estimate"][:3]
    newer = [replace(it, noise=None, scored_at=it.scored_at + 1) for it in some]
    store = Store(parse_settings(store_of(tmp_path, "screened")).store)
    asyncio.run(store.add_evidence(newer))
    [remark] = [it for it in advice_of(tmp_path, "screened").remarks if "estimate" in it]
    assert remark.endswith("as its noise; that of 3 is not known")


def test_what_is_measured_later_takes_the_place_of_an_estimate(talks, tmp_path, mindscore):
    mindscore("score", talks, "--full", "--screen", store="both")
    before = advice_of(tmp_path, "both")
    again = mindscore("score", talks, "--full", "--screen", "--json", store="both")
    assert again.documents == []
    whole = mindscore("score", talks, "--full", "--json", store="both")
    assert len(whole.documents) == CONVERSATIONS
    mindscore("score", talks, "--full", store="exact")
    after, exact = advice_of(tmp_path, "both"), advice_of(tmp_path, "exact")
    assert before.estimated > after.estimated == 0
    assert [(it.key, it.verdict, it.evidence) for it in after.advice] == [
        (it.key, it.verdict, replace(it.evidence, version=mine.evidence.version))
        for it, mine in zip(exact.advice, after.advice, strict=True)
    ]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({}, {"screen": "off"}, True),
        ({}, {"screen": "on"}, False),
        ({"screen": "on"}, {"screen": "auto"}, False),
        ({"screen": "auto"}, {"screen": "auto", "screen_from": 50}, False),
        ({"screen": "on"}, {"screen": "on", "screen_from": 50}, True),
        ({"screen": "on"}, {"screen": "on", "screen_sample": 9}, False),
        ({"screen": "on"}, {"screen": "on", "screen_confirm_nats": 0.4}, False),
        ({"screen_sample": 9}, {}, True),
    ],
)
def test_a_screen_is_part_of_what_makes_a_conversation_unchanged(one, other, is_same):
    digests = {settings_digest({"memory": it}, "score-full") for it in (one, other)}
    assert len(digests) == 2 - is_same
    # Of what is scored as it falls due, nothing is screened.
    assert len({settings_digest({"memory": it}, "score") for it in (one, other)}) == 1


def test_the_option_and_the_setting_screen_alike():
    option = {"plugins": {"settings": {"memory-scoring": {"screen": True}}}}
    by = [settings_digest(it, "score-full") for it in (option, {"memory": {"screen": "on"}})]
    assert by[0] == by[1]


def test_with_ray_a_screened_pass_finds_the_same(talks, tmp_path, mindscore, pipeline):
    mindscore("score", talks, "--full", "--screen", store="here")
    ran = mindscore("score", talks, "--full", "--screen", "--engine", "ray", store="there")
    assert ran.status == 0, ran.err
    here, there = (
        [replace(it, scored_at=0.0) for it in evidence_of(tmp_path, it)] for it in ("here", "there")
    )
    assert any(it.mode == "estimate" for it in here)
    assert here == there
    assert advice_of(tmp_path, "there").texts == advice_of(tmp_path, "here").texts


def test_a_plan_of_a_screened_archive_is_the_most_that_it_takes(talks, mindscore):
    plan, exact = (mindscore("plan", talks, "--full", *more) for more in (["--screen"], []))
    assert "at most: a screen takes no more than measuring every memory" in plan.out
    assert "at most: a screen" not in exact.out
    tokens = [
        json.loads(mindscore("plan", talks, "--full", "--json", *more).out)["prompt_tokens"]
        for more in (["--screen"], [])
    ]
    assert tokens[0] == tokens[1] > 0


def test_a_control_of_the_places_is_refused_for_archives(talks, mindscore):
    ran = mindscore("score", talks, "--full", "--placebo")
    assert ran.status == 2
    assert "--placebo goes with one conversation" in ran.err
