"""Handing over to any sink: once for each response and sink, whatever the sink does."""

import asyncio
import importlib
import sys
from types import ModuleType

import pytest

from mindhooks import NotAccepted
from mindscore._util.errors import ConfigError, TrainError
from mindscore.store import Sends, Store
from mindscore.training.outbox import open_outbox


class Keeping:
    """A third party's sink that keeps what it is given, and first does what a test says."""

    destination = "memory"
    wants_text = wants_rejected = False

    def __init__(self):
        self.given = []
        self.fails = None
        self.closed = 0

    async def send(self, samples, key):
        self.given.append((key, list(samples)))
        if self.fails is not None:
            raise self.fails
        return f"job {len(self.given)}"

    async def aclose(self):
        self.closed += 1
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def keeping(tmp_path, monkeypatch):
    """A ``Keeping``, installed as the sinks ``keeping`` and ``other``."""
    sink, module = Keeping(), ModuleType("keeping_of_the_test")
    module.build = lambda train, server: sink
    monkeypatch.setitem(sys.modules, module.__name__, module)
    info = tmp_path / "site" / "keeping-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: keeping\nVersion: 1.0\n")
    target = f"{module.__name__}:build"
    info.joinpath("entry_points.txt").write_text(
        f"[mindhooks.sinks]\nkeeping = {target}\nother = {target}\n"
    )
    monkeypatch.syspath_prepend(info.parent)
    importlib.invalidate_caches()
    return sink


@pytest.fixture
def store(store_settings):
    return Store(store_settings)


@pytest.fixture
def sends(store_settings):
    return Sends(store_settings)


async def send(tables, *samples):
    async with open_outbox(tables) as hand_off:
        return await hand_off.send(samples)


async def divide(tables, *samples):
    async with open_outbox(tables) as hand_off:
        return await hand_off.divide(samples)


async def test_what_was_accepted_is_marked_for_that_sink_and_sent_to_it_no_more(
    keeping, tables, sample, store
):
    sent = await send(tables(sink="keeping"), sample("accepted", "alternate"), sample())
    assert (sent.job_id, sent.responses, sent.tokens) == ("job 1", 1, 4)
    assert await send(tables(sink="keeping"), sample()) is None
    assert len(keeping.given) == 1
    marks = await store.trained()
    # By the response, whatever answer was chosen for it.
    assert marks.covers(7, (3, 4), "keeping")
    assert not marks.covers(7, (5, 4), "keeping")


async def test_another_sink_takes_the_same_response_once_too(keeping, tables, sample, store):
    for _ in range(2):
        await send(tables(sink="keeping"), sample())
        await send(tables(sink="other"), sample())
    assert len(keeping.given) == 2
    marks = await store.trained()
    assert marks.covers(7, (3, 4), "keeping")
    assert marks.covers(7, (3, 4), "other")
    assert not marks.covers(7, (3, 4), "http")
    assert marks.covers(7, (3, 4))


async def test_imported_marks_are_of_every_sink(keeping, tables, sample, store):
    await store.import_trained([7])
    assert await send(tables(sink="keeping"), sample()) is None
    assert (await divide(tables(sink="other"), sample())).had == 1


async def test_what_is_certainly_not_accepted_may_be_sent_again_under_another_key(
    keeping, tables, sample, sends
):
    keeping.fails = NotAccepted("the disk is full")
    with pytest.raises(TrainError, match="nothing was marked as trained: the disk is full"):
        await send(tables(sink="keeping"), sample())
    assert await sends.unknown() == []
    keeping.fails = None
    assert await send(tables(sink="keeping"), sample()) is not None
    assert keeping.given[0][0] != keeping.given[1][0]


@pytest.mark.parametrize("error", [RuntimeError("oh\nno"), OSError(5, "broken"), KeyError("k")])
async def test_after_any_other_exception_nobody_knows(keeping, tables, sample, sends, error):
    keeping.fails = error
    with pytest.raises(TrainError, match="is not known") as caught:
        await send(tables(sink="keeping"), sample())
    assert type(error).__name__ in str(caught.value)
    [unknown] = await sends.unknown()
    assert (unknown.key, unknown.sink, unknown.responses) == (keeping.given[0][0], "keeping", 1)
    keeping.fails = None
    assert await send(tables(sink="keeping"), sample()) is None
    division = await divide(tables(sink="keeping"), sample())
    assert (division.samples, division.unknown, division.had) == ((), 1, 0)


async def test_what_is_unknown_of_one_sink_another_takes(keeping, tables, sample, sends):
    keeping.fails = RuntimeError("oh no")
    with pytest.raises(TrainError):
        await send(tables(sink="keeping"), sample())
    keeping.fails = None
    assert (await send(tables(sink="other"), sample())).responses == 1
    assert [it.sink for it in await sends.unknown()] == ["keeping"]


@pytest.mark.parametrize("refusal", [None, NotAccepted("no"), RuntimeError("no")])
async def test_what_is_unknown_is_repeated_the_same_under_its_key(
    keeping, tables, sample, sends, store, refusal
):
    keeping.fails = RuntimeError("oh no")
    samples = [sample("accepted", "edited", (6, 4), timestamp_ns=1), sample(context="full")]
    with pytest.raises(TrainError):
        await send(tables(sink="keeping"), *samples)
    keeping.fails = refusal
    async with open_outbox(tables(sink="keeping")) as hand_off:
        [unknown] = await hand_off.unknown()
        if refusal is None:
            assert (await hand_off.resend(unknown)).job_id == "job 2"
        else:
            with pytest.raises(TrainError, match="is not known"):
                await hand_off.resend(unknown)
    first, second = keeping.given
    assert first == second
    assert first[1] == samples
    assert bool(await sends.unknown()) == (refusal is not None)
    assert (await store.trained()).covers(1, (3, 4), "keeping") == (refusal is None)


async def test_what_was_settled_meanwhile_is_not_repeated(keeping, tables, sample, sends):
    keeping.fails = RuntimeError("oh no")
    with pytest.raises(TrainError):
        await send(tables(sink="keeping"), sample())
    keeping.fails = None
    async with open_outbox(tables(sink="keeping")) as hand_off:
        [unknown] = await hand_off.unknown()
        await sends.release(unknown.key)
        assert await hand_off.resend(unknown) is None
    assert len(keeping.given) == 1


async def test_a_sink_that_wants_another_answer_gets_no_sample_without(
    keeping, tables, sample, store
):
    keeping.wants_rejected = True
    samples = [sample(timestamp_ns=1), sample(timestamp_ns=2, alternate_ids=None)]
    division = await divide(tables(sink="keeping"), *samples)
    assert (len(division.samples), division.without_other) == (1, 1)
    assert (await send(tables(sink="keeping"), *samples)).responses == 1
    marks = await store.trained()
    assert marks.covers(1, (3, 4))
    assert not marks.covers(2, (3, 4))


async def test_a_sink_that_wants_texts_gets_them_and_one_that_does_not_gets_none(
    keeping, tables, sample, tokenizer_file
):
    server = {"tokenizer": str(tokenizer_file)}
    ids = {"bare_context_ids": (10, 11), "continuation_ids": (12, 13), "alternate_ids": None}
    await send(tables(server, sink="keeping"), sample(**ids))
    keeping.wants_text = True
    await send(tables(server, sink="other"), sample(**ids))
    [(_, [without]), (_, [with_])] = keeping.given
    assert (without.context_text, without.continuation_text) == (None, None)
    assert len(with_.context_text) == len(with_.continuation_text) == 2


async def test_without_a_tokenizer_nothing_is_noted_as_sent(keeping, tables, sample, sends):
    keeping.wants_text = True
    with pytest.raises(ConfigError, match="input_ids"):
        await send(tables(sink="keeping"), sample())
    assert keeping.given == []
    assert await sends.unknown() == []


async def test_a_sink_is_closed_and_one_that_does_not_close_is_logged(
    keeping, tables, sample, caplog
):
    async with open_outbox(tables(sink="keeping")) as hand_off:
        assert hand_off.destination == "memory"
        await hand_off.send([sample()])
        keeping.fails = RuntimeError("stuck")
    assert keeping.closed == 1
    [record] = caplog.records
    assert (record.levelname, "RuntimeError: stuck" in record.getMessage()) == ("WARNING", True)


async def test_a_sink_that_is_not_installed_is_an_error_of_the_configuration(tables):
    with pytest.raises(ConfigError, match=r"train\.sink: .*'nobody'.*http, jsonl"):
        await send(tables(sink="nobody"))


async def test_of_many_at_once_one_has_each_response(keeping, tables, sample):
    every = [sample(timestamp_ns=stamp) for stamp in range(20)]
    done = await asyncio.gather(*(send(tables(sink="keeping"), *every) for _ in range(8)))
    assert sum(it is not None for it in done) == 1
    assert [len(samples) for _, samples in keeping.given] == [20]
