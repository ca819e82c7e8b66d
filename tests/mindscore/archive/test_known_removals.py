"""A verification that was cut off goes on, and what it rests on is the same or measured anew."""

import json
import logging
from dataclasses import replace

import pytest
from tests.mindscore.archive.archives import MEMORIES, Archive, chance

from mindscore._util.errors import StoreError
from mindscore.config.file import merge
from mindscore.scorers.toy import ToyScorer
from mindscore.store import Verifications

# The teas are missed: something is put back, and measured again without.
GONE = ("tea-1", "tea-2", "idle-0", "idle-1")
# Without concurrency, what was begun and not kept is one prompt at most.
ONE_AT_A_TIME = {"server": {"concurrency": 1}}


@pytest.fixture
async def archive(tmp_path):
    made = Archive(tmp_path, 8)
    await made.plant(chance)
    made.tables = merge(made.tables, ONE_AT_A_TIME)
    return made


@pytest.fixture
def asked(monkeypatch):
    """The prompts that the toy is asked for; it is cut off before that of ``asked.last``."""

    class Asked(list):
        last = None

    asked, well = Asked(), ToyScorer.score

    async def noting(self, prompts):
        if len(asked) == asked.last:
            raise CutOffError
        asked.extend(prompts)
        return await well(self, prompts)

    monkeypatch.setattr(ToyScorer, "score", noting)
    return asked


class CutOffError(BaseException):
    """The process ends here."""


def untimed(receipt):
    return replace(receipt, verified_at=0.0, drops=dict(receipt.drops))


async def cut_off(archive, asked, after, *gone, **options):
    """Verify until so many prompts have been asked for."""
    asked.clear()
    asked.last = after
    with pytest.raises(CutOffError):
        await archive.receipt(*(gone or GONE), **options)
    asked.last = None
    asked.clear()


async def test_whenever_it_is_cut_off_it_goes_on_and_says_the_same(archive, asked):
    whole = await archive.receipt(*GONE)
    prompts = len(asked)
    assert whole.kept
    for after in (1, 2, 7, 16, 19, 24, prompts - 1):
        await cut_off(archive, asked, after)
        again = await archive.receipt(*GONE)
        assert (again.rounds, again.kept, again.kept_for) == (
            whole.rounds,
            whole.kept,
            whole.kept_for,
        )
        assert (again.unmeasured, again.is_complete) == (whole.unmeasured, True)
        # At most the prompt under way, and the baseline of its conversation, are asked for twice.
        assert prompts - after <= len(asked) <= prompts - after + 2


async def test_what_it_took_counts_both_parts(archive, asked):
    whole = await archive.receipt("idle-0", "idle-1")
    await cut_off(archive, asked, 6, "idle-0", "idle-1")
    assert untimed(await archive.receipt("idle-0", "idle-1")) == untimed(whole)


async def test_one_that_is_complete_is_measured_anew_when_asked_for_again(archive, asked):
    await archive.receipt("idle-0")
    first = len(asked)
    await archive.receipt("idle-0")
    assert len(asked) == 2 * first == 32


async def test_one_that_ended_at_max_tokens_goes_on(archive, asked):
    whole = await archive.receipt("idle-0")
    most = whole.prompt_tokens // 2
    half = await archive.receipt("idle-0", max_tokens=most)
    assert not half.is_complete
    asked.clear()
    rest = await archive.receipt("idle-0", max_tokens=most + 200)
    assert (rest.is_complete, rest.rounds) == (True, whole.rounds)
    assert len(asked) == 2 * (8 - half.conversations)


def other_drops(archive):
    return ("idle-0",), {}


def an_edited_memory(archive):
    for file in archive.folder.iterdir():
        file.write_text(file.read_text().replace("The dog is called Rex.", "The dog is Rex.", 1))
    return GONE, {}


def another_question(archive):
    for file in archive.folder.iterdir():
        file.write_text(file.read_text().replace("in talk", "of talk"))
    return GONE, {}


def another_template(archive):
    return GONE, {"tables": merge(archive.tables, {"server": {"chat_template": "chatml"}})}


def noise_is_measured(archive):
    return GONE, {"tables": merge(archive.tables, {"memory": {"noise_repeats": 1}})}


def another_server(archive):
    return GONE, {"tables": merge(archive.tables, {"server": {"base_url": "http://localhost:1"}})}


CHANGES = [
    other_drops,
    an_edited_memory,
    another_question,
    another_template,
    noise_is_measured,
    another_server,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda it: it.__name__)
async def test_nothing_is_reused_once_something_has_changed(archive, asked, change, tmp_path):
    await cut_off(archive, asked, 9)
    gone, options = change(archive)
    again = await archive.receipt(*gone, **options)
    found = list(asked)
    store = {"store": {"url": f"sqlite:///{tmp_path}/fresh.sqlite3"}}
    asked.clear()
    options["tables"] = merge(options.get("tables", archive.tables), store)
    fresh = await archive.receipt(*gone, **options)
    assert found == list(asked)
    assert untimed(again) == untimed(fresh)


async def test_conversations_that_came_later_are_measured_beside_those_that_are_known(
    archive, asked
):
    await cut_off(archive, asked, 8, "idle-0")
    archive.write(8, MEMORIES)
    receipt = await archive.receipt("idle-0")
    assert receipt.conversations == 9
    assert len(asked) == 18 - 8


async def test_a_store_that_cannot_be_written_costs_a_warning(archive, monkeypatch, caplog):
    async def fail(*_):
        raise StoreError("the disk is full")

    whole = await archive.receipt(*GONE)
    monkeypatch.setattr(Verifications, "record_removal", fail)
    with caplog.at_level(logging.WARNING, "mindscore"):
        assert untimed(await archive.receipt(*GONE)).rounds == whole.rounds
    assert caplog.text.count("the disk is full") == 1


async def test_weights_that_are_replaced_meanwhile_fail_what_is_left(archive, probe):
    probe.model = "toy"
    told = []

    async def fingerprint():
        told.append(1)
        return "one" if len(told) < 8 else "two"

    probe.fingerprint = fingerprint
    tables = merge(archive.tables, {"server": {"scorer": "probe"}})
    receipt = await archive.receipt("idle-0", tables=tables)
    assert not receipt.is_complete
    assert 0 < receipt.conversations < 8
    assert any("weights were replaced" in it for it in receipt.unmeasured)


async def test_of_weights_that_are_not_known_nothing_is_kept(archive, probe):
    probe.model = "toy"
    probe.swaps_adapters = True
    tables = merge(archive.tables, {"server": {"scorer": "probe"}})
    kept = []
    await archive.receipt("idle-0", tables=tables, kept=lambda: kept.append(1))
    assert kept == []
    await archive.receipt("idle-0", kept=lambda: kept.append(1))
    assert len(kept) == 8


async def test_titles_that_a_store_cannot_hold_are_kept_with_a_mark(archive):
    lines = [json.loads(it) for it in (archive.folder / "talk-000.jsonl").read_text().splitlines()]
    for line in lines:
        line["content"] = line["content"].replace("drink in", "drink\ud800\0in")
    text = "".join(json.dumps(it) + "\n" for it in lines)
    (archive.folder / "talk-000.jsonl").write_text(text)
    await archive.receipt(*GONE)
    assert (await archive.advise()).receipt is not None
