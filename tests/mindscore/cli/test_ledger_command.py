"""``mindscore ledger``: the rounds as a table, as JSON, and measured anew."""

import asyncio

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.measure.internalisation import LedgerEntry, MemoryVersion, Round
from mindscore.store import Ledger

FRAME = "Remind me: {}"
UNRELATED = ((-10.0, 4), (-20.0, 16))


def entry(key, with_, without, reworded):
    frames = {} if reworded is None else {FRAME: reworded}
    return LedgerEntry(MemoryVersion(key, "h"), 1, key, 4, with_, without, frames)


@pytest.fixture
def ledger(tmp_path):
    """The user's own ledger of model ``m``, with a round for each of what is given."""
    found = Ledger(StoreSettings(f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3"))

    def keep(*rounds, model="m"):
        for number, (name, entries) in enumerate(rounds):
            unrelated = tuple((total - 0.1 * number, tokens) for total, tokens in UNRELATED)
            round_ = Round(name, "", float(number), unrelated, entries)
            asyncio.run(found.record(model, round_))

    return keep


BEFORE = (entry("tea", -10.0, -30.0, -32.0), entry("dog", -5.0, -25.0, -25.0))
AFTER = (entry("tea", -9.0, -12.0, -14.0), entry("dog", -5.0, -7.0, -24.0))


def test_each_memory_has_a_row_and_each_round_a_column(cli, ledger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    ledger(("base", BEFORE), ("3f0c", AFTER))
    ran = cli("ledger")
    assert (ran.status, ran.err) == (0, "")
    lines = [" ".join(it.split()) for it in ran.out.splitlines()]
    assert lines[:3] == [
        "without memories, as asked with base 3f0c state",
        "dog -5.0 -25.0 -7.0 90% as asked",
        "tea -10.0 -30.0 -12.0 90% internalised",
    ]
    assert lines[4:7] == [
        "without memories, in other frames base 3f0c",
        "dog -25.0 -24.0 5%",
        "tea -32.0 -14.0 90%",
    ]
    assert lines[8:11] == [
        "unrelated answers base 3f0c",
        "nats per token -1.500 -1.510",
        "drift 0.00 0.04",
    ]


def test_long_names_of_rounds_leave_room_for_the_memories(cli, ledger):
    names = ["mindscore-919e8646d777", "mindscore-d1d839799b68"]
    ledger(("base", BEFORE), *((name, AFTER) for name in names))
    out = cli("ledger").out
    assert "mindsc…646d777" in out
    assert " tea " in out
    assert out.count("internalised") == 1
    assert max(map(len, out.splitlines())) <= 80


def test_the_document(cli, ledger):
    ledger(("base", BEFORE), ("3f0c", AFTER[:1]))
    ran = cli("ledger", "--json")
    document = ran.document
    assert (document["command"], document["model"]) == ("ledger", "m")
    assert [it["round"] for it in document["rounds"]] == ["base", "3f0c"]
    assert document["rounds"][1]["unrelated_loss"] == pytest.approx(1.51)
    dog, tea = document["memories"]
    assert (dog["key"], dog["state"], dog["rounds"][1]) == ("dog", "first", None)
    assert (tea["key"], tea["state"]) == ("tea", "internalised")
    assert tea["rounds"][1]["share"] == pytest.approx(0.9)
    assert tea["rounds"][1]["without_memories"] == -12.0


def test_an_empty_ledger_says_what_fills_it(cli):
    ran = cli("ledger")
    assert (ran.status, ran.out.startswith("The ledger is empty: mindscore train")) == (0, True)
    assert cli("ledger", "--json").document["rounds"] == []


def test_of_several_models_one_has_to_be_chosen(cli, ledger):
    ledger(("base", BEFORE))
    ledger(("base", BEFORE), model="n")
    ran = cli("ledger", "--set", "server.scorer=toy")
    assert (ran.status, ran.error) == (
        2,
        "rounds of several models are kept: choose one of m, n with --model",
    )
    assert cli("ledger", "--model", "n", "--json").document["model"] == "n"


def test_rounds_of_weights_that_were_replaced_are_named_below_those_of_now(
    cli, ledger, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    ledger(("base", BEFORE))
    earlier = "m (before 2026-11-27T20:00:00+00:00)"
    ledger(("base", AFTER), ("3f0c", AFTER), model=earlier)
    ran = cli("ledger")
    assert ran.status == 0
    assert ran.out.splitlines()[-1] == (
        f"rounds of weights that were replaced: mindscore ledger --model '{earlier}'"
    )
    assert "3f0c" not in ran.out
    document = cli("ledger", "--json").document
    assert (document["replaced"], len(document["rounds"])) == ([earlier], 1)
    document = cli("ledger", "--model", earlier, "--json").document
    assert [it["round"] for it in document["rounds"]] == ["base", "3f0c"]
    assert "replaced" not in document


def test_a_round_is_measured_with_the_model_as_it_is(cli, score, talk):
    """Before a training and after it: the toy learns nothing."""
    assert score(talk, "--full").status == 0
    assert score(talk, "--finetune", "--set", "finetune.window_fraction=1.0").status == 0
    refused = cli("ledger", "--measure", "before", "--set", "server.scorer=toy")
    assert (refused.status, "were accepted yet" in refused.error) == (1, True)
    sent = ["--unreviewed", "--set", "train.sink=jsonl", "--set", "server.scorer=toy"]
    assert cli("train", *sent).status == 0
    for name in ("before", "after"):
        ran = cli("ledger", "--measure", name, "--set", "server.scorer=toy", "--json")
        assert ran.status == 0
        assert "without other frames" in ran.err
    document = ran.document
    assert [it["round"] for it in document["rounds"]] == ["before", "after"]
    assert {it["key"] for it in document["memories"]} == {"tea", "dog"}
    assert {it["state"] for it in document["memories"]} == {"no"}
    assert {it["rounds"][1]["share"] for it in document["memories"]} == {0.0}
