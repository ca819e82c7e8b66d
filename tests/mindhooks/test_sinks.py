"""From ``[train] sink`` to a sink: entry points of ``mindhooks.sinks``."""

import asyncio

import pytest

from mindhooks import MindhooksError, SinkError, TrainingSample, UnknownSink, load_sink

SINK = """
    class Sink:
        destination = "a drawer"
        wants_text = wants_rejected = False

        def __init__(self, train, server):
            self.train, self.server = train, server

        async def send(self, samples, key):
            return "job"

        async def aclose(self):
            pass

    def make(train, server):
        return Sink(train, server)
"""


@pytest.mark.parametrize("target", ["acme_sink:Sink", "acme_sink:make"])
async def test_the_sink_of_that_name_is_made_from_both_tables(distributions, target):
    distributions.install("acme", sinks={"mine": target, "other": "no_module"}, acme_sink=SINK)
    sink = await load_sink("mine", {"options": {"a": 1}}, {"model": "m"})
    assert (sink.train, sink.server) == ({"options": {"a": 1}}, {"model": "m"})
    assert await sink.send([], "key") == "job"


async def test_the_tables_are_deep_copies(distributions):
    distributions.install("acme", sinks={"mine": "acme_sink:Sink"}, acme_sink=SINK)
    train, server = {"options": {"a": [1]}}, {"options": {"b": [1]}}
    sink = await load_sink("mine", train, server)
    sink.train["options"]["a"].append(2)
    sink.server["options"]["b"].append(2)
    assert (train, server) == ({"options": {"a": [1]}}, {"options": {"b": [1]}})


async def test_an_unknown_name_is_an_error_that_lists_the_installed_ones(distributions):
    distributions.install("acme", sinks={"mine": "acme_sink", "alpha": "acme_sink"})
    distributions.install("other", {"a-plugin": "acme"}, sinks={"theirs": "other_sink"})
    with pytest.raises(UnknownSink, match="alpha, mine, theirs") as raised:
        await load_sink("nobody", {}, {})
    assert "train.sink: no sink is called 'nobody'" in str(raised.value)
    assert "a-plugin" not in str(raised.value)


async def test_where_none_is_installed_the_error_says_so(distributions):
    with pytest.raises(UnknownSink, match="installed: none"):
        await load_sink("http", {}, {})


BROKEN = {
    "import": ("bad_sink:Sink", "import no_such_module", "no_such_module"),
    "no attribute": ("bad_sink:Sink", "", "Sink"),
    "exits at import": ("bad_sink:Sink", "raise SystemExit(3)", "SystemExit: 3"),
    "raises": ("bad_sink:make", "def make(t, s): raise ValueError('bad\\nkey')", "bad key"),
    "takes one table": ("bad_sink:make", "def make(train): return train", "TypeError"),
    "none": ("bad_sink:make", "def make(t, s): return None", "destination, wants_text"),
    "no aclose": (
        "bad_sink:Sink",
        SINK.replace("async def aclose", "async def close").replace("\n    ", "\n"),
        "without aclose",
    ),
    "async": ("bad_sink:make", "async def make(t, s): return s", "async"),
}


@pytest.mark.parametrize(("target", "source", "said"), BROKEN.values(), ids=BROKEN)
async def test_a_sink_that_cannot_be_built_is_a_sink_error(target, source, said, distributions):
    distributions.install("bad", sinks={"mine": target}, bad_sink=source)
    with pytest.raises(SinkError) as raised:
        await load_sink("mine", {}, {})
    assert said in str(raised.value)
    assert "'mine'" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


async def test_an_error_of_its_own_reaches_the_caller_as_it_is(distributions):
    source = "from mindhooks import MindhooksError\ndef make(t, s): raise MindhooksError('no key')"
    distributions.install("bad", sinks={"mine": "bad_sink:make"}, bad_sink=source)
    with pytest.raises(MindhooksError, match=r"^no key$") as raised:
        await load_sink("mine", {}, {})
    assert type(raised.value) is MindhooksError


async def test_its_import_does_not_block_the_loop(distributions, journal):
    ticked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tick():
        loop.call_soon_threadsafe(ticked.set)
        asyncio.run_coroutine_threadsafe(ticked.wait(), loop).result(10)

    journal.append(tick)
    source = "    from journal import journal\n    journal.pop()()\n" + SINK
    distributions.install("acme", sinks={"mine": "acme_sink:Sink"}, acme_sink=source)
    assert (await load_sink("mine", {}, {})).destination == "a drawer"


def test_a_sample_cannot_be_changed(candidate):
    sample = TrainingSample((1,), (2,), None, "bare", candidate(), "m", "default")
    assert (sample.decision, sample.answer, sample.context_text) == (None, "response", None)
    with pytest.raises(AttributeError):
        sample.model = "other"
