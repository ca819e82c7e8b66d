"""The order in which listeners are told: section 3.1, *Order*."""

import asyncio
import threading
from types import SimpleNamespace

import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import MindhooksError, Registry, Trigger, hookimpl
from mindhooks.testing import StubMind

LIMIT = {"plugins": {"listener_timeout_s": 0.05}}


def notes(events, name):
    """An async listener's body that notes its beginning and, after some time, its end."""

    async def hear(label):
        events.append(f"{name} {label} begins")
        for _ in range(5):
            await asyncio.sleep(0)
        events.append(f"{name} {label} ends")

    return hear


# -- async tryfirst ---------------------------------------------------------------------------


async def test_an_async_tryfirst_listener_is_awaited_before_any_other_is_told(
    emit, plain, asynchronous
):
    events = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(notes(events, "queued")), name="queued")
        registry.register(plain(events.append), name="plain")
        registry.register(asynchronous(notes(events, "awaited"), tryfirst=True), name="awaited")
        registry.register(plain(events.append, tryfirst=True), name="plain tryfirst")
        await emit(registry, "a")
        await registry.wait_idle()
    awaited, queued = ([f"{name} a begins", f"{name} a ends"] for name in ("awaited", "queued"))
    assert events == [*awaited, "a", "a", *queued]


async def test_async_tryfirst_listeners_are_awaited_one_after_the_other_in_pluggys_order(
    emit, asynchronous
):
    events = []
    async with Registry(StubMind(), {}) as registry:
        for name in ("a", "b", "c"):
            registry.register(asynchronous(notes(events, name), tryfirst=True), name=name)
        await emit(registry, "1")
    assert events == [f"{name} 1 {what}" for name in "cba" for what in ("begins", "ends")]


async def test_a_flow_waits_for_an_async_tryfirst_listener(emit, asynchronous, settle):
    gate = asyncio.Event()
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(lambda label: gate.wait(), tryfirst=True))
        emission = asyncio.create_task(emit(registry, "a"))
        await settle()
        assert not emission.done()
        gate.set()
        await emission


async def test_the_failure_of_an_async_tryfirst_listener_is_logged_before_others_are_told(
    emit, plain, asynchronous, complaints
):
    known = []

    async def fail(label):
        await asyncio.sleep(0)
        raise OSError("disk full")

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(fail, tryfirst=True), name="store")
        registry.register(plain(lambda label: known.extend(complaints())), name="plain")
        await emit(registry, "a")
    (line,) = known
    assert "disk full" in line


# -- plain ------------------------------------------------------------------------------------


def in_pluggys_order(plugins):
    """The labels of listeners in the order in which pluggy itself calls them.

    ``plugins`` are lists of pairs, label and options.
    """
    marker, spec = pluggy.HookimplMarker("plain"), pluggy.HookspecMarker("plain")
    manager, called = pluggy.PluginManager("plain"), []
    manager.add_hookspecs(SimpleNamespace(on_score=spec(lambda score: None)))
    for plugin in plugins:
        manager.register(listeners(plugin, called, marker))
    manager.hook.on_score(score=None)
    return called


class Plugin:
    """Bears what a test gives it; not equal to another, unlike a SimpleNamespace."""


def listeners(pairs, called, marker):
    def listener(label):
        return lambda score: called.append(label)

    plugin = Plugin()
    for label, options in pairs:
        setattr(plugin, label, marker(specname="on_score", **options)(listener(label)))
    return plugin


async def in_our_order(plugins, score):
    called = []
    async with Registry(StubMind(), {}) as registry:
        for number, plugin in enumerate(plugins):
            registry.register(listeners(plugin, called, hookimpl), name=str(number))
        await registry.emit_score(score)
    return called


options = st.sampled_from([{}, {"tryfirst": True}, {"trylast": True}])


@given(st.lists(st.lists(options, max_size=4), max_size=5))
def test_plain_listeners_are_called_in_pluggys_order(plugins):
    named = [
        [(f"listener_{number}_{place}", marks) for place, marks in enumerate(plugin)]
        for number, plugin in enumerate(plugins)
    ]
    assert asyncio.run(in_our_order(named, None)) == in_pluggys_order(named)


async def test_the_many_plain_listeners_of_one_plugin_are_called_in_pluggys_order(score):
    plugin = [(f"listener_{letter}", {}) for letter in "abcdefghijklmno"]
    assert await in_our_order([plugin], score()) == in_pluggys_order([plugin])


async def test_plain_listeners_run_on_the_loops_thread(emit, plain):
    threads = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(lambda label: threads.append(threading.get_ident())))
        await asyncio.create_task(emit(registry, "a"))
    assert threads == [threading.get_ident()]


async def test_on_trigger_is_called_in_pluggys_order():
    called = []

    def plugin(name, **options):
        @hookimpl(**options)
        def on_trigger():
            called.append(name)
            return Trigger.STARTED

        return SimpleNamespace(on_trigger=on_trigger)

    async with Registry(StubMind(), {}) as registry:
        registry.register(plugin("a", trylast=True), name="a")
        registry.register(plugin("b", tryfirst=True), name="b")
        registry.register(plugin("c"), name="c")
        registry.register(plugin("d"), name="d")
        registry.dispatch("go")
    assert called == ["b", "d", "c", "a"]


# -- queued -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"trylast": True}], ids=["unmarked", "trylast"])
async def test_a_queue_is_first_in_first_out_and_tells_one_thing_at_a_time(
    options, emit, asynchronous
):
    events = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(notes(events, "it"), **options))
        for label in "abc":
            await emit(registry, label)
        await registry.wait_idle()
    assert events == [f"it {label} {what}" for label in "abc" for what in ("begins", "ends")]


async def test_a_queue_takes_up_again_what_comes_after_it_was_empty(emit, asynchronous):
    events = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(notes(events, "it")))
        for label in "ab":
            await emit(registry, label)
            await registry.wait_idle()
    assert events == [f"it {label} {what}" for label in "ab" for what in ("begins", "ends")]


@pytest.mark.parametrize("options", [{}, {"trylast": True}], ids=["unmarked", "trylast"])
async def test_a_flow_does_not_wait_for_a_queued_listener_but_wait_idle_does(
    options, emit, asynchronous, settle
):
    gate, told = asyncio.Event(), []

    async def hear(label):
        await gate.wait()
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear, **options))
        await emit(registry, "a")
        await emit(registry, "b")
        idle = asyncio.create_task(registry.wait_idle())
        await settle()
        assert told == []
        assert not idle.done()
        gate.set()
        await idle
        assert told == ["a", "b"]


async def test_a_slow_queued_listener_delays_no_other_listener(emit, plain, asynchronous, settle):
    gate, events = asyncio.Event(), []

    async def note(label):
        events.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(lambda label: gate.wait()), name="slow")
        registry.register(asynchronous(note), name="quick")
        registry.register(asynchronous(note, tryfirst=True), name="awaited")
        registry.register(plain(events.append), name="plain")
        for label in "ab":
            await emit(registry, label)
        await settle()
        assert sorted(events) == ["a"] * 3 + ["b"] * 3
        gate.set()


@pytest.mark.parametrize("began", [False, True], ids=["at once", "amid"])
async def test_a_queue_whose_task_is_cancelled_goes_on_with_what_comes_next(
    began, emit, asynchronous, settle, complaints
):
    told, before = [], asyncio.all_tasks()
    gate = asyncio.Event()

    async def hear(label):
        await gate.wait()
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear))
        for label in "ab":
            await emit(registry, label)
        if began:
            await settle()
        # As a host does that ends all its tasks.
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.wait_for(registry.wait_idle(), 10)
        gate.set()
        await emit(registry, "c")
        await asyncio.wait_for(registry.wait_idle(), 10)
    assert told == (["b", "c"] if began else ["a", "b", "c"])
    assert not any("undelivered" in line for line in complaints())


async def test_every_async_implementation_has_a_queue_of_its_own(score, candidate, settle):
    gate, heard = asyncio.Event(), []

    class Plugin:
        @hookimpl
        async def on_score(self, score):
            await gate.wait()

        @hookimpl(specname="on_score")
        async def another(self, score):
            heard.append(score)

        @hookimpl
        async def on_candidate(self, candidate):
            heard.append(candidate)

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin())
        await registry.emit_score(score())
        await registry.emit_candidate(candidate())
        await settle()
        assert heard == [score(), candidate()]
        gate.set()


# -- the time limit ---------------------------------------------------------------------------


@pytest.mark.parametrize("tryfirst", [False, True], ids=["queued", "awaited"])
async def test_past_the_time_limit_a_listener_is_cancelled_and_logged(
    tryfirst, emit, asynchronous, complaints
):
    events = []

    async def hear(label):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append(f"{label} cancelled")
            raise

    async with Registry(StubMind(), LIMIT) as registry:
        registry.register(asynchronous(hear, tryfirst=tryfirst), name="slow")
        await emit(registry, "a")
        await emit(registry, "b")
        await registry.wait_idle()
    assert events == ["a cancelled", "b cancelled"]
    assert len(complaints()) == 2
    for line in complaints():
        assert "plugin slow" in line
        assert "on_" in line
        assert "0.05 s" in line


@pytest.mark.parametrize("tryfirst", [False, True], ids=["queued", "awaited"])
async def test_a_listener_that_swallows_its_cancellation_is_no_longer_waited_for(
    tryfirst, emit, plain, asynchronous, complaints
):
    gate, ended, told = asyncio.Event(), asyncio.Event(), []

    async def hear(label):
        told.append(label)
        if label == "a":
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    told.append("swallowed")
            ended.set()

    async with Registry(StubMind(), LIMIT) as registry:
        registry.register(asynchronous(hear, tryfirst=tryfirst), name="stubborn")
        registry.register(plain(lambda label: told.append(f"plain {label}")), name="plain")
        await emit(registry, "a")
        await emit(registry, "b")
        await registry.wait_idle()
        assert told.index("swallowed") < told.index("b")
        assert {"plain a", "plain b"} < set(told)
        assert not ended.is_set()
        assert len(complaints()) == 1
        gate.set()
        await ended.wait()
    assert len(complaints()) == 1


async def test_after_an_awaited_listener_ran_out_of_time_the_others_are_told(
    emit, plain, asynchronous
):
    told = []
    async with Registry(StubMind(), LIMIT) as registry:
        registry.register(plain(told.append), name="plain")
        registry.register(asynchronous(notes(told, "second"), tryfirst=True), name="second")
        registry.register(
            asynchronous(lambda label: asyncio.Event().wait(), tryfirst=True), name="slow"
        )
        await emit(registry, "x")
    assert told == ["second x begins", "second x ends", "x"]


async def test_the_time_limit_does_not_bound_plain_listeners_nor_quick_ones(
    emit, plain, asynchronous, complaints
):
    async def quick(label):
        await asyncio.sleep(0)

    async with Registry(StubMind(), LIMIT) as registry:
        registry.register(asynchronous(quick), name="queued")
        registry.register(asynchronous(quick, tryfirst=True), name="awaited")
        registry.register(plain(lambda label: None), name="plain")
        for label in "abc":
            await emit(registry, label)
            await asyncio.sleep(0.03)
        await registry.wait_idle()
    assert complaints() == []


async def test_a_time_limit_that_a_host_assigns_holds_from_then_on(emit, asynchronous, complaints):
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(lambda label: asyncio.Event().wait(), tryfirst=True))
        registry.settings = LIMIT
        await emit(registry, "a")
    assert len(complaints()) == 1


class LoopWithClock(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead = 0.0

    def time(self):
        return super().time() + self.ahead


@pytest.mark.parametrize("settings", [{}, {"plugins": {}}, {"plugins": {"disabled": []}}])
def test_the_time_limit_is_thirty_seconds_unless_the_settings_say_otherwise(
    settings, emit, asynchronous, settle, complaints
):
    async def main():
        loop = asyncio.get_running_loop()
        async with Registry(StubMind(), settings) as registry:
            registry.register(asynchronous(lambda label: asyncio.Event().wait()))
            await emit(registry, "a")
            await settle()
            loop.ahead = 29.0
            await settle()
            assert complaints() == []
            loop.ahead = 31.0
            await registry.wait_idle()
            assert len(complaints()) == 1

    with asyncio.Runner(loop_factory=LoopWithClock) as runner:
        runner.run(main())


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "30", True, None])
async def test_a_time_limit_that_is_no_number_above_zero_is_refused(limit):
    wrong = {"plugins": {"listener_timeout_s": limit}}
    with pytest.raises(MindhooksError, match="listener_timeout_s"):
        Registry(StubMind(), wrong)
    registry = Registry(StubMind(), LIMIT)
    with pytest.raises(MindhooksError, match="listener_timeout_s"):
        registry.settings = wrong
    assert registry.settings == LIMIT
