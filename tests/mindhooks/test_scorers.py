"""Scorers: the one that is shared, section 3.3, and what one is, section 5."""

import asyncio
import dataclasses
import inspect
import threading
from typing import get_type_hints

import pytest

from mindhooks import (
    BaseScorer,
    MindhooksError,
    RangeScore,
    Registry,
    Scorer,
    ScorerCapabilities,
    ScorerError,
    ScoreResult,
    ScorerUnavailable,
    ThreadedRegistry,
    UnknownScorer,
    WirePrompt,
    load_scorer,
)
from mindhooks.testing import StubMind

SCORER = """
    from journal import journal

    journal.append("imported")

    class Scorer:
        model = "m"

        def __init__(self, server):
            self.server = server
            journal.append("built")

        async def score(self, prompts):
            return [[] for _ in prompts]

        async def generate(self, prompt, *, max_tokens, stop):
            raise NotImplementedError

        async def tokenize(self, text):
            return []

        async def aclose(self):
            journal.append("closed")

    def make(server):
        return Scorer(server)
"""


async def test_the_scorer_that_the_settings_name_is_built_on_first_use_and_closed_at_the_end(
    distributions, journal
):
    distributions.install(
        "acme",
        scorers={"mine": "acme_scorer:Scorer", "other": "no_such_module"},
        acme_scorer=SCORER,
    )
    async with Registry(StubMind(), {"server": {"scorer": "mine"}}) as registry:
        registry.load_entry_points()
        assert journal == []
        scorer = await registry.scorer()
        assert scorer.model == "m"
        assert await registry.scorer() is scorer
        assert journal == ["imported", "built"]
    assert journal == ["imported", "built", "closed"]
    await registry.aclose()
    assert journal == ["imported", "built", "closed"]


async def test_a_scorer_that_nobody_uses_is_not_built(distributions, journal):
    distributions.install("acme", scorers={"local": "acme_scorer:Scorer"}, acme_scorer=SCORER)
    async with Registry(StubMind(), {}):
        pass
    assert journal == []


async def test_the_scorer_is_built_once_even_when_many_ask_at_once(distributions, journal):
    distributions.install("acme", scorers={"local": "acme_scorer:make"}, acme_scorer=SCORER)
    async with Registry(StubMind(), {}) as registry:
        scorers = await asyncio.gather(*(registry.scorer() for _ in range(5)))
        assert all(scorer is scorers[0] for scorer in scorers)
        assert journal.count("built") == 1


@pytest.mark.parametrize("settings", [{}, {"server": {}}, {"server": {"model": "m"}}])
async def test_without_a_setting_the_scorer_is_local(settings, distributions, journal):
    distributions.install(
        "acme",
        scorers={"local": "acme_scorer:Scorer", "another": "no_such_module"},
        acme_scorer=SCORER,
    )
    async with Registry(StubMind(), settings) as registry:
        await registry.scorer()
    assert "built" in journal


async def test_a_scorer_gets_the_server_table_as_a_dict_that_is_a_deep_copy(distributions, journal):
    distributions.install("acme", scorers={"local": "acme_scorer:Scorer"}, acme_scorer=SCORER)
    server = {"model": "m", "headers": {"a": ["b"]}}
    async with Registry(StubMind(), {"server": server, "memory": {}}) as registry:
        scorer = await registry.scorer()
        assert scorer.server == server
        assert type(scorer.server) is dict
        scorer.server["model"] = "changed"
        scorer.server["headers"]["a"].append("changed")
        assert server == {"model": "m", "headers": {"a": ["b"]}}


async def test_the_server_table_is_read_when_the_scorer_is_first_built(distributions, journal):
    distributions.install("acme", scorers={"mine": "acme_scorer:Scorer"}, acme_scorer=SCORER)
    async with Registry(StubMind(), {"server": {"scorer": "nobody"}}) as registry:
        registry.settings = {"server": {"scorer": "mine", "model": "first"}}
        scorer = await registry.scorer()
        registry.settings = {"server": {"scorer": "mine", "model": "second"}}
        assert await registry.scorer() is scorer
        assert scorer.server["model"] == "first"


async def test_an_unknown_name_is_a_scorer_error_that_lists_the_installed_ones(distributions):
    distributions.install("acme", scorers={"mine": "acme_scorer", "alpha": "acme_scorer"})
    distributions.install("other", {"a-plugin": "acme"}, scorers={"theirs": "other_scorer"})
    async with Registry(StubMind(), {"server": {"scorer": "nobody"}}) as registry:
        with pytest.raises(ScorerError) as raised:
            await registry.scorer()
    text = str(raised.value)
    assert "nobody" in text
    assert "alpha, mine, theirs" in text
    assert "a-plugin" not in text


async def test_an_unknown_name_where_none_is_installed_is_a_scorer_error(distributions):
    async with Registry(StubMind(), {}) as registry:
        with pytest.raises(ScorerError, match="local"):
            await registry.scorer()


BROKEN = {
    "import": ("bad_scorer:Scorer", "import no_such_module", "no_such_module"),
    "no attribute": ("bad_scorer:Scorer", "", "Scorer"),
    "exits at import": ("bad_scorer:Scorer", "raise SystemExit(3)", "SystemExit: 3"),
    "raises": ("bad_scorer:make", "def make(server): raise ValueError('bad\\nkey')", "bad key"),
    "exits": ("bad_scorer:make", "def make(server): raise SystemExit(3)", "SystemExit: 3"),
    "own error": (
        "bad_scorer:make",
        "from mindhooks import ScorerError\ndef make(server): raise ScorerError('no key')",
        "no key",
    ),
    "none": ("bad_scorer:make", "def make(server): return None", "aclose"),
    "no scorer": ("bad_scorer:make", "def make(server): return server", "tokenize"),
    "async": (
        "bad_scorer:make",
        "async def make(server): return server",
        "scorer 'local' is async: its callable must return the scorer itself",
    ),
}


@pytest.mark.parametrize(("target", "source", "said"), BROKEN.values(), ids=BROKEN)
async def test_a_scorer_that_cannot_be_built_is_a_scorer_error(target, source, said, distributions):
    distributions.install("bad", scorers={"local": target}, bad_scorer=source)
    async with Registry(StubMind(), {}) as registry:
        for _ in range(2):
            with pytest.raises(ScorerError) as raised:
                await registry.scorer()
            assert said in str(raised.value)
            assert len(str(raised.value).splitlines()) == 1


async def test_after_a_scorer_could_not_be_built_another_can(distributions, journal):
    distributions.install("acme", scorers={"mine": "acme_scorer:Scorer"}, acme_scorer=SCORER)
    async with Registry(StubMind(), {"server": {"scorer": "nobody"}}) as registry:
        with pytest.raises(ScorerError):
            await registry.scorer()
        registry.settings = {"server": {"scorer": "mine"}}
        assert (await registry.scorer()).model == "m"


async def test_after_aclose_there_is_no_scorer(distributions, journal):
    distributions.install("acme", scorers={"local": "acme_scorer:Scorer"}, acme_scorer=SCORER)
    registry = Registry(StubMind(), {})
    await registry.scorer()
    await registry.aclose()
    with pytest.raises(MindhooksError, match="closed"):
        await registry.scorer()


@pytest.mark.parametrize(
    "error", ["ValueError('not now')", "SystemExit(3)", "asyncio.CancelledError"]
)
async def test_a_scorer_that_cannot_be_closed_is_logged(error, distributions, journal, complaints):
    distributions.install(
        "acme",
        scorers={"local": "acme_scorer:Broken"},
        acme_scorer=SCORER
        + f"""
    import asyncio

    class Broken(Scorer):
        async def aclose(self):
            raise {error}
        """,
    )
    async with Registry(StubMind(), {}) as registry:
        await registry.scorer()
    (line,) = complaints()
    assert "scorer" in line


# -- a build that takes its time -----------------------------------------------------------------


@pytest.fixture
def slow_import(distributions, journal):
    """Installs a scorer whose import blocks: an event of its begin, and what lets it end."""
    begun, released = asyncio.Event(), threading.Event()

    def block():
        loop.call_soon_threadsafe(begun.set)
        released.wait(10)

    loop = None

    def install():
        nonlocal loop
        loop = asyncio.get_running_loop()
        journal.append(block)
        source = "    from journal import journal\n    journal.pop()()\n" + SCORER
        distributions.install("acme", scorers={"local": "acme_scorer:Scorer"}, acme_scorer=source)
        return begun, released

    return install


async def test_the_import_of_a_scorer_does_not_block_the_loop(slow_import, journal):
    begun, released = slow_import()
    async with Registry(StubMind(), {}) as registry:
        asking = asyncio.create_task(registry.scorer())
        await begun.wait()
        assert not asking.done()
        released.set()
        assert (await asking).model == "m"


async def test_whoever_asks_gets_the_scorer_although_the_one_who_asked_first_is_cancelled(
    slow_import, journal, settle
):
    begun, released = slow_import()
    async with Registry(StubMind(), {}) as registry:
        first = asyncio.create_task(registry.scorer())
        await begun.wait()
        second = asyncio.create_task(registry.scorer())
        await settle()
        first.cancel()
        released.set()
        assert (await second).model == "m"
        assert first.cancelled()
    assert journal.count("built") == journal.count("closed") == 1


async def test_a_scorer_that_is_being_built_while_the_registry_closes_is_not_left_open(
    slow_import, journal, settle
):
    begun, released = slow_import()
    registry = Registry(StubMind(), {})
    asking = asyncio.create_task(registry.scorer())
    await begun.wait()
    closing = asyncio.create_task(registry.aclose())
    await settle()
    released.set()
    await closing
    await asyncio.wait({asking})
    assert journal.count("built") == journal.count("closed")
    assert asking.exception() is None or isinstance(asking.exception(), MindhooksError)


async def test_aclose_ends_a_run_that_waits_for_the_scorer(slow_import, journal, settle):
    begun, released = slow_import()
    registry = Registry(StubMind(), {})
    handle = registry.task_handle("flow")
    handle.trigger(registry.scorer)
    await begun.wait()
    closing = asyncio.create_task(registry.aclose())
    await settle()
    assert not closing.done()
    released.set()
    await closing
    assert not handle.running
    assert journal.count("built") == journal.count("closed")


# -- a scorer that is handed in ------------------------------------------------------------------


class Own(BaseScorer):
    model = "own"
    closed = 0

    async def aclose(self):
        self.closed += 1


async def test_a_scorer_that_is_handed_in_is_used_and_not_closed(distributions):
    own = Own()
    async with Registry(StubMind(), {"server": {"scorer": "nobody"}}, scorer=own) as registry:
        assert await registry.scorer() is own
        async with registry.run("go") as run:
            assert run.model == "own"
    assert own.closed == 0
    with pytest.raises(MindhooksError, match="closed"):
        await registry.scorer()


def test_a_threaded_registry_takes_a_scorer_too():
    own = Own()
    with ThreadedRegistry(StubMind(), {}, scorer=own) as registry:
        assert registry.submit(registry.registry.scorer()).result(10) is own
    assert own.closed == 0


# -- load_scorer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "name"), [({}, "local"), ({"scorer": "mine"}, "mine")])
async def test_load_scorer_makes_the_one_that_the_table_names_from_a_copy(
    table, name, distributions, journal
):
    distributions.install("acme", scorers={name: "acme_scorer:Scorer"}, acme_scorer=SCORER)
    server = {**table, "options": {"a": [1]}}
    scorer = await load_scorer(server)
    assert scorer.server == server
    scorer.server["options"]["a"].append(2)
    assert server["options"] == {"a": [1]}
    assert "closed" not in journal


async def test_load_scorer_says_which_scorers_there_are(distributions):
    distributions.install("acme", scorers={"mine": "acme_scorer"})
    with pytest.raises(UnknownScorer, match="'nobody'; installed: mine"):
        await load_scorer({"scorer": "nobody"})
    with pytest.raises(ScorerError, match=r"server\.scorer: expected a string"):
        await load_scorer({"scorer": 3})


# -- what a scorer is ----------------------------------------------------------------------------

PROMPT = WirePrompt((1, 2), (), ((1, 2),), ("n",))


async def test_a_base_scorer_says_what_it_cannot_do():
    class Half(BaseScorer):
        model = "half"

        async def score(self, prompts):
            return ScoreResult([[RangeScore(-1.0)] for _ in prompts])

    scorer = Half()
    assert (await scorer.score([PROMPT])).ranges == [[RangeScore(-1.0)]]
    with pytest.raises(ScorerError, match="Half cannot generate"):
        await scorer.generate(PROMPT, max_tokens=1, stop=())
    with pytest.raises(ScorerError, match="Half cannot tokenize"):
        await scorer.tokenize("text")
    with pytest.raises(ScorerError, match="BaseScorer cannot score"):
        await BaseScorer().score([PROMPT])
    await scorer.aclose()


def test_a_base_scorer_has_every_method_and_capability_with_its_default():
    for name in ("score", "generate", "tokenize", "aclose"):
        assert inspect.signature(getattr(BaseScorer, name)) == inspect.signature(
            getattr(Scorer, name)
        )
    hints, base = get_type_hints(ScorerCapabilities), get_type_hints(BaseScorer)
    assert base == {"model": str, **hints}
    assert ScorerCapabilities.of(BaseScorer()) == ScorerCapabilities()
    for field in dataclasses.fields(ScorerCapabilities):
        assert f"    {field.name}: " in inspect.cleandoc(ScorerCapabilities.__doc__)


def test_the_capabilities_of_any_scorer_are_read_as_they_are_now():
    class Third:
        model = "third"
        noisy = True

        async def detokenize(self, ids):
            return "text"

    scorer = Third()
    found = ScorerCapabilities.of(scorer)
    assert (found.noisy, found.reuses_prefixes) == (True, None)
    assert (found.detokenize, found.render_chat) == (scorer.detokenize, None)
    scorer.reuses_prefixes = True
    assert ScorerCapabilities.of(scorer).reuses_prefixes is True


def test_a_score_result_is_made_of_a_plain_list_too():
    ranges = [[RangeScore(-1.0)], []]
    assert ScoreResult.of(ranges) == ScoreResult(ranges, None)
    result = ScoreResult(ranges, 7)
    assert ScoreResult.of(result) is result


def test_a_scorer_may_say_when_to_call_again():
    error = ScorerUnavailable("busy", retry_after=1.5)
    assert (str(error), error.retry_after) == ("busy", 1.5)
    assert ScorerUnavailable("down").retry_after is None
    assert isinstance(error, ScorerError)
