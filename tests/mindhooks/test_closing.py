"""``aclose``: section 3.3."""

import asyncio
import contextlib
import threading

import pytest

from mindhooks import MindhooksError, Registry, Trigger, UnhandledCommand, hookimpl
from mindhooks.testing import RecordingListener, StubMind

LIMIT = {"plugins": {"listener_timeout_s": 0.1}}


async def nothing():
    pass


# -- tasks ---------------------------------------------------------------------------------------


async def test_aclose_cancels_every_task_and_waits_for_its_end(settle):
    gate, events = asyncio.Event(), []

    def run(name):
        async def flow():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                events.append(f"{name} cancelled")
                raise
            finally:
                await gate.wait()
                events.append(f"{name} ends")

        return flow

    async with Registry(StubMind(), {}) as registry:
        handles = [registry.task_handle(name) for name in "ab"]
        for handle in handles:
            handle.trigger(run(handle.name))
        await settle()
        closing = asyncio.create_task(registry.aclose())
        await settle()
        assert events == ["a cancelled", "b cancelled"]
        assert not closing.done()
        gate.set()
        await closing
        assert sorted(events[2:]) == ["a ends", "b ends"]
        assert not any(handle.running for handle in handles)


async def test_aclose_drops_a_queued_run(settle):
    events = []

    async def old():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("old ends")

    async def fresh():
        events.append("fresh")

    registry = Registry(StubMind(), {})
    handle = registry.task_handle("flow")
    handle.trigger(old)
    await settle()
    handle.trigger(fresh)
    await registry.aclose()
    await settle()
    assert events == ["old ends"]
    assert not handle.running


async def test_aclose_leaves_no_task_running_that_another_triggers_as_it_ends(settle):
    registry = Registry(StubMind(), LIMIT)
    handle = registry.task_handle("flow")

    async def again():
        await asyncio.Event().wait()

    async def flow():
        try:
            await asyncio.Event().wait()
        finally:
            handle.trigger(again)

    handle.trigger(flow)
    await settle()
    await registry.aclose()
    running = handle.running
    await handle.cancel()
    assert not running


async def test_the_end_of_the_with_block_closes_the_registry(settle):
    async with Registry(StubMind(), {}) as registry:
        handle = registry.task_handle("flow")
        handle.trigger(asyncio.Event().wait)
        await settle()
    assert not handle.running
    with pytest.raises(MindhooksError):
        registry.dispatch("go")


async def test_the_with_block_lets_an_exception_pass_and_closes_all_the_same(settle):
    registry = Registry(StubMind(), {})
    handle = registry.task_handle("flow")

    async def block():
        async with registry:
            handle.trigger(asyncio.Event().wait)
            await settle()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()
    assert not handle.running


# -- queues --------------------------------------------------------------------------------------


async def test_aclose_lets_the_queues_drain(emit, asynchronous, complaints):
    told = []

    async def hear(label):
        await asyncio.sleep(0.01)
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear))
        for label in "abc":
            await emit(registry, label)
    assert told == ["a", "b", "c"]
    assert complaints() == []


async def test_aclose_cancels_and_logs_what_is_not_drained_within_the_time_limit(
    emit, asynchronous, complaints
):
    begun, events = asyncio.Event(), []

    async def hear(label):
        begun.set()
        try:
            await asyncio.sleep(0.06)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        events.append(label)

    async with Registry(StubMind(), LIMIT) as registry:
        registry.register(asynchronous(hear), name="slow")
        for _ in range(20):
            await emit(registry, "told")
        await begun.wait()
        await registry.aclose()
        await asyncio.sleep(0)
        told = events.count("told")
        assert events == ["told"] * told + ["cancelled"]
        assert 1 <= told < 20
        (line,) = complaints()
        assert "plugin slow" in line
        assert "on_" in line
        assert str(20 - told) in line
        await asyncio.sleep(0.15)
        assert events.count("told") == told


async def test_aclose_does_not_wait_for_a_queued_listener_that_swallows_its_cancellation(
    emit, asynchronous
):
    gate, ended = asyncio.Event(), asyncio.Event()

    async def hear(label):
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    registry = Registry(StubMind(), LIMIT)
    registry.register(asynchronous(hear))
    await emit(registry, "a")
    await emit(registry, "b")
    await registry.aclose()
    assert not ended.is_set()
    gate.set()
    await ended.wait()


async def test_wait_idle_returns_after_aclose_gave_a_listener_up(emit, asynchronous):
    registry = Registry(StubMind(), LIMIT)
    registry.register(asynchronous(lambda label: asyncio.Event().wait()))
    await emit(registry, "a")
    await registry.aclose()
    await registry.wait_idle()


# -- twice ---------------------------------------------------------------------------------------


async def test_aclose_twice_is_fine():
    registry = Registry(StubMind(), {})
    await registry.aclose()
    await registry.aclose()


async def test_every_concurrent_aclose_waits_for_the_end(settle):
    gate = asyncio.Event()

    async def flow():
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    registry = Registry(StubMind(), {})
    handle = registry.task_handle("flow")
    handle.trigger(flow)
    await settle()
    closings = [asyncio.create_task(registry.aclose()) for _ in range(3)]
    await settle()
    assert not any(closing.done() for closing in closings)
    # Whoever loses patience does not stop the closing for the others.
    closings[0].cancel()
    await settle()
    assert not closings[1].done()
    gate.set()
    await asyncio.gather(*closings[1:])
    assert not handle.running


async def test_a_run_may_close_the_registry(settle):
    registry = Registry(StubMind(), {})
    handle = registry.task_handle("flow")
    handle.trigger(registry.aclose)
    await handle.wait()
    await registry.aclose()
    assert not handle.running
    assert handle.error is None


# -- afterwards ----------------------------------------------------------------------------------


async def test_after_aclose_dispatch_raises_a_mindhooks_error():
    class Plugin:
        @hookimpl
        def on_trigger(self):
            raise AssertionError("closed")

    registry = Registry(StubMind(), {})
    registry.register(Plugin())
    await registry.aclose()
    with pytest.raises(MindhooksError, match="closed") as raised:
        registry.dispatch("go")
    assert not isinstance(raised.value, UnhandledCommand)


async def test_while_the_registry_closes_dispatch_raises_a_mindhooks_error(settle, complaints):
    answers = []

    class Plugin:
        @hookimpl
        def on_trigger(self, registry):
            return registry.task_handle("flow").trigger(nothing)

    async def flow():
        try:
            await asyncio.Event().wait()
        finally:
            try:
                registry.dispatch("go")
            except MindhooksError as error:
                answers.append(error)

    registry = Registry(StubMind(), {})
    registry.register(Plugin())
    assert registry.dispatch("go") == {"Plugin": Trigger.STARTED}
    await registry.wait_idle()
    registry.task_handle("flow").trigger(flow)
    await settle()
    await registry.aclose()
    assert len(answers) == 1
    assert complaints() == []


async def test_after_aclose_emissions_are_dropped(emit, plain, asynchronous, settle):
    told = []

    async def hear(label):
        told.append(label)

    registry = Registry(StubMind(), {})
    registry.register(plain(told.append), name="plain")
    registry.register(asynchronous(hear), name="queued")
    registry.register(asynchronous(hear, tryfirst=True), name="awaited")
    await emit(registry, "early")
    await registry.aclose()
    assert await emit(registry, "late") is None
    await settle()
    assert told == ["early"] * 3


async def test_after_aclose_there_are_no_new_task_handles():
    registry = Registry(StubMind(), {})
    await registry.aclose()
    with pytest.raises(MindhooksError, match="closed"):
        registry.task_handle("flow")


# -- plugins and scorer --------------------------------------------------------------------------

PLUGIN = """
    from journal import journal

    class Plugin:
        def __init__(self, table):
            self.name = table["name"]

        async def aclose(self):
            journal.append(f"{self.name} closed")
"""


def named(*names, **settings):
    return {"plugins": {"settings": {name: {"name": name} for name in names}, **settings}}


async def test_plugins_that_the_registry_made_are_closed_last_first(distributions, journal):
    distributions.install("acme", dict.fromkeys("abc", "acme_plugin:Plugin"), acme_plugin=PLUGIN)
    async with Registry(StubMind(), named(*"abc")) as registry:
        registry.load_entry_points()
        assert journal == []
    assert journal == ["c closed", "b closed", "a closed"]
    await registry.aclose()
    assert len(journal) == 3


async def test_what_was_registered_by_hand_or_as_it_is_is_its_owners(distributions, journal):
    distributions.install(
        "acme",
        {"instance": "acme_plugin:instance", "module": "acme_plugin", "made": "acme_plugin:make"},
        acme_plugin=PLUGIN
        + """
    instance = Plugin({"name": "instance"})

    def make(table):
        return Plugin(table)

    async def aclose():
        journal.append("module closed")
        """,
    )

    class Own(RecordingListener):
        async def aclose(self):
            journal.append("own closed")

    async with Registry(StubMind(), named("made")) as registry:
        registry.register(Own())
        registry.load_entry_points()
        assert [info.error for info in registry.plugins()] == [None] * 4
    assert journal == ["made closed"]


async def test_a_plugin_that_was_made_but_refused_is_closed_too(distributions, journal):
    source = (
        PLUGIN
        + """
    from mindhooks import hookimpl
    Plugin.on_tomorrow = hookimpl(lambda self: None)
"""
    )
    distributions.install("acme", {"wrong": "acme_plugin:Plugin"}, acme_plugin=source)
    async with Registry(StubMind(), named("wrong")) as registry:
        registry.load_entry_points()
        assert registry.plugins()[-1].error is not None
    assert journal == ["wrong closed"]


async def test_a_plugin_of_a_taken_name_is_not_even_imported(distributions, complaints):
    distributions.install("acme", {"taken": "acme_bomb"}, acme_bomb="raise SystemExit(3)")
    async with Registry(StubMind(), {}) as registry:
        registry.register(RecordingListener(), name="taken")
        registry.load_entry_points()
    [line] = complaints()
    assert "another plugin is already called 'taken'" in line


async def test_a_plugin_without_an_aclose_needs_none(distributions, journal, complaints):
    distributions.install(
        "acme",
        {"a": "acme_plugin:Plugin", "b": "acme_plugin:Simple"},
        acme_plugin=PLUGIN + "\n    class Simple:\n        def __init__(self, table): pass\n",
    )
    async with Registry(StubMind(), named("a")) as registry:
        registry.load_entry_points()
    assert journal == ["a closed"]
    assert complaints() == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("async def aclose(self): raise ValueError('not now')", "ValueError: not now"),
        ("async def aclose(self): raise SystemExit(3)", "SystemExit: 3"),
        ("async def aclose(self): raise asyncio.CancelledError", "CancelledError"),
        ("async def aclose(self): await asyncio.Event().wait()", "TimeoutError"),
        ("aclose = property(lambda self: 1 / 0)", "ZeroDivisionError"),
    ],
    ids=["raises", "exits", "cancels", "hangs", "property"],
)
async def test_a_plugin_that_cannot_be_closed_is_logged_and_the_others_are_closed(
    broken, said, distributions, journal, complaints
):
    source = f"import asyncio\n\nclass Broken:\n    def __init__(self, table): pass\n    {broken}\n"
    distributions.install("acme", {"a": "acme_plugin:Plugin"}, acme_plugin=PLUGIN)
    distributions.install("bad", {"broken": "bad_plugin:Broken"}, version="6", bad_plugin=source)
    distributions.install("zeta", {"z": "acme_plugin:Plugin"})
    async with Registry(StubMind(), named("a", "z", listener_timeout_s=0.1)) as registry:
        registry.load_entry_points()
    assert journal == ["z closed", "a closed"]
    (line,) = complaints()
    for word in ("plugin broken", "bad", "6", said):
        assert word in line


async def test_aclose_ends_tasks_then_drains_queues_then_closes_plugins_and_scorer(
    distributions, journal, score, settle
):
    distributions.install(
        "acme",
        {"a": "acme_plugin:Plugin"},
        scorers={"local": "acme_scorer:Scorer"},
        acme_plugin=PLUGIN,
        acme_scorer="""
            from journal import journal

            class Scorer:
                model = "m"
                score = generate = tokenize = None

                def __init__(self, server):
                    pass

                async def aclose(self):
                    journal.append("scorer closed")
        """,
    )
    gate = asyncio.Event()

    class Listener:
        @hookimpl
        async def on_score(self, score):
            await gate.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            journal.append("queue drained")

    async def flow():
        await registry.scorer()
        await registry.emit_score(score())
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            gate.set()
            for _ in range(3):
                await asyncio.sleep(0)
            journal.append("task ended")

    begun = asyncio.Event()
    async with Registry(StubMind(), named("a")) as registry:
        registry.load_entry_points()
        registry.register(Listener())
        registry.task_handle("flow").trigger(flow)
        await begun.wait()
        await settle()
        assert journal == []
    assert journal == ["task ended", "queue drained", "a closed", "scorer closed"]


def test_a_keyboard_interrupt_passes_from_the_aclose_of_a_plugin(distributions, complaints):
    source = """
        class Plugin:
            def __init__(self, table): pass

            async def aclose(self): raise KeyboardInterrupt
    """
    distributions.install("acme", {"mine": "acme_plugin:Plugin"}, acme_plugin=source)

    async def main():
        async with Registry(StubMind(), {}) as registry:
            registry.load_entry_points()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert complaints() == []


# -- it ends, whatever plugins do -----------------------------------------------------------------

BOUND_S = 5
"""Far more than twice ``LIMIT`` and the second that stragglers get, far less than for ever."""


async def deaf(release):
    """Heeds no cancellation, until ``release`` is set."""
    while not release.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await release.wait()


async def test_a_task_that_does_not_heed_its_cancellation_is_left_behind(complaints, settle):
    release = asyncio.Event()
    registry = Registry(StubMind(), LIMIT)
    handle = registry.task_handle("flow")
    handle.trigger(lambda: deaf(release))
    await settle()
    await asyncio.wait_for(registry.aclose(), BOUND_S)
    assert handle.running
    assert complaints() == ["task 'flow' does not end and was left behind"]
    release.set()
    await handle.wait()


async def test_a_listener_that_does_not_heed_its_cancellation_is_left_behind(
    emit, asynchronous, settle, complaints
):
    release = asyncio.Event()
    registry = Registry(StubMind(), LIMIT)
    registry.register(asynchronous(lambda _: deaf(release)), name="deaf")
    await emit(registry, "a")
    await settle()
    await asyncio.wait_for(registry.aclose(), BOUND_S)
    assert any("plugin deaf" in line for line in complaints())
    release.set()
    await settle()


HANGING = """
    import asyncio, contextlib
    from journal import journal

    class Plugin:
        def __init__(self, table): pass

        async def aclose(self):
            journal.append("{name}")
            while {deaf}:
                with contextlib.suppress(asyncio.CancelledError):
                    await journal[0].wait()
                    break
"""


async def test_a_plugin_whose_aclose_never_ends_costs_no_other_its_turn(
    distributions, journal, complaints, settle
):
    for name in "abc":
        source = HANGING.format(name=name, deaf=name != "a")
        distributions.install(name, {name: f"{name}_plugin:Plugin"}, **{f"{name}_plugin": source})
    registry = Registry(StubMind(), LIMIT)
    registry.load_entry_points()
    journal.append(release := asyncio.Event())
    await asyncio.wait_for(registry.aclose(), BOUND_S)
    assert journal[1:] == ["c", "b", "a"]
    assert [line.split(":")[1].strip() for line in complaints()] == ["aclose", "aclose"]
    assert all("TimeoutError" in line for line in complaints())
    release.set()
    await settle()


async def test_a_scorer_that_is_still_being_built_is_closed_when_it_is(
    distributions, journal, settle
):
    distributions.install(
        "acme",
        scorers={"slow": "acme_scorer:Scorer"},
        acme_scorer="""
            from journal import journal
            journal[0].set()
            journal[1].wait(30)

            class Scorer:
                model = "m"
                score = generate = tokenize = None
                def __init__(self, table): pass
                async def aclose(self): journal.append("closed")
        """,
    )
    importing, go_on = threading.Event(), threading.Event()
    journal += [importing, go_on]
    registry = Registry(StubMind(), {**LIMIT, "server": {"scorer": "slow"}})
    building = asyncio.create_task(registry.scorer())
    await asyncio.to_thread(importing.wait, 30)
    await asyncio.wait_for(registry.aclose(), BOUND_S)
    go_on.set()
    with pytest.raises(MindhooksError, match="closed"):
        await building
    assert journal[2:] == ["closed"]


async def test_a_plugin_may_close_the_registry_from_its_own_task_and_listener(
    emit, asynchronous, settle
):
    registry = Registry(StubMind(), LIMIT)
    registry.register(asynchronous(lambda _: registry.aclose()), name="closes")
    handle = registry.task_handle("closes")

    async def flow():
        await emit(registry, "a")
        await registry.aclose()

    handle.trigger(flow)
    await settle()
    await asyncio.wait_for(registry.aclose(), BOUND_S)
    assert not handle.running
