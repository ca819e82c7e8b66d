"""Emissions of a run after it was voided: section 3.2."""

import asyncio
import signal
import threading

import pytest

from mindhooks import Registry, TaskHandle, Trigger, hookimpl, in_thread
from mindhooks.testing import RecordingListener, StubMind


class Go:
    """An event that tasks and threads can both wait for."""

    def __init__(self):
        self._task, self._thread = asyncio.Event(), threading.Event()

    def set(self):
        self._task.set()
        self._thread.set()

    async def wait(self):
        await self._task.wait()

    def wait_in_thread(self):
        self._thread.wait(10)


# -- from where a run emits: each awaits speak() once go is set, whatever happens meanwhile ------


async def from_the_run(speak, begun, go):
    begun.set()
    try:
        await go.wait()
    except asyncio.CancelledError:
        await go.wait()
        raise
    finally:
        await speak()


async def from_a_child_task(speak, begun, go):
    async def child():
        await go.wait()
        await speak()

    task = asyncio.create_task(child())
    begun.set()
    try:
        await asyncio.shield(task)
    finally:
        await task


async def from_a_grandchild_that_outlives_the_run(speak, begun, go):
    async def grandchild():
        begun.set()
        await go.wait()
        await speak()

    async def child():
        await asyncio.shield(asyncio.create_task(grandchild()))

    await asyncio.create_task(child())


async def from_a_thread(speak, begun, go):
    await in_thread(_thread(speak, begun, go))


async def from_a_thread_that_outlives_the_run(speak, begun, go):
    await asyncio.to_thread(_thread(speak, begun, go))


def _thread(speak, begun, go):
    loop = asyncio.get_running_loop()

    def work():
        loop.call_soon_threadsafe(begun.set)
        go.wait_in_thread()
        asyncio.run_coroutine_threadsafe(speak(), loop).result(10)

    return work


SOURCES = [
    from_the_run,
    from_a_child_task,
    from_a_grandchild_that_outlives_the_run,
    from_a_thread,
    from_a_thread_that_outlives_the_run,
]
sources = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)


# -- what voids a run: each returns when the run has ended -------------------------------------


async def by_trigger(registry, handle):
    async def nothing():
        pass

    assert handle.trigger(nothing) is Trigger.RESTARTED
    await handle.wait()


async def by_cancel(registry, handle):
    await handle.cancel()


async def by_aclose(registry, handle):
    await registry.aclose()


VOIDINGS = [by_trigger, by_cancel, by_aclose]
voidings = pytest.mark.parametrize("void", VOIDINGS, ids=lambda void: void.__name__)


@sources
async def test_what_a_run_emits_is_told(source, emit, plain):
    begun, go, told = asyncio.Event(), Go(), []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append))
        handle = registry.task_handle("flow")
        handle.trigger(lambda: source(lambda: emit(registry, "a"), begun, go))
        await begun.wait()
        go.set()
        await registry.wait_idle()
        assert handle.error is None
    assert told == ["a"]


@voidings
@sources
async def test_what_a_voided_run_emits_is_told_to_nobody(
    source, void, emit, plain, asynchronous, settle
):
    begun, go, spoken, told = asyncio.Event(), Go(), asyncio.Event(), []

    async def hear(label):
        told.append(label)

    async with Registry(StubMind(), {}) as registry:

        async def speak():
            assert await emit(registry, "late") is None
            spoken.set()

        registry.register(plain(told.append), name="plain")
        registry.register(asynchronous(hear), name="queued")
        registry.register(asynchronous(hear, tryfirst=True), name="awaited")
        handle = registry.task_handle("flow")
        handle.trigger(lambda: source(speak, begun, go))
        await begun.wait()
        ending = asyncio.create_task(void(registry, handle))
        await settle()
        go.set()
        await spoken.wait()
        await ending
        await registry.wait_idle()
        assert handle.error is None
    assert told == []


async def test_a_run_is_voided_at_once(emit, plain, settle):
    begun, go, told = asyncio.Event(), asyncio.Event(), []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append))
        handle = registry.task_handle("flow")

        async def child():
            begun.set()
            await go.wait()
            await emit(registry, "child")

        async def flow():
            task = asyncio.create_task(child())
            await asyncio.shield(task)

        async def fresh():
            await emit(registry, "fresh")

        handle.trigger(flow)
        await begun.wait()
        # The child is woken first, before the run learns that it was cancelled.
        go.set()
        handle.trigger(fresh)
        await settle()
        await handle.wait()
    assert told == ["fresh"]


async def test_a_run_that_triggers_its_successor_is_voided_at_once_itself(emit, plain):
    told = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append))
        handle = registry.task_handle("flow")

        async def successor():
            await emit(registry, "successor")

        async def flow():
            await emit(registry, "before")
            handle.trigger(successor)
            await emit(registry, "after")

        handle.trigger(flow)
        await handle.wait()
    assert told == ["before", "successor"]


# -- an emission that an awaited listener is busy with ------------------------------------------


class Busy:
    """An async tryfirst listener that takes its time."""

    def __init__(self):
        self.began, self.gate = asyncio.Event(), asyncio.Event()
        self.finished = []

    async def __call__(self, label):
        self.began.set()
        await self.gate.wait()
        self.finished.append(label)


@voidings
@sources
async def test_an_emission_with_an_awaited_listener_is_finished_for_it_before_the_run_ends(
    source, void, emit, plain, asynchronous, settle
):
    begun, go, busy, told = asyncio.Event(), Go(), Busy(), []

    async def hear(label):
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append), name="plain")
        registry.register(asynchronous(hear), name="queued")
        registry.register(asynchronous(hear, tryfirst=True), name="second")
        registry.register(asynchronous(busy, tryfirst=True), name="first")
        handle = registry.task_handle("flow")
        handle.trigger(lambda: source(lambda: emit(registry, "a"), begun, go))
        go.set()
        await busy.began.wait()
        ending = asyncio.create_task(void(registry, handle))
        await settle()
        assert handle.running
        assert not ending.done()
        assert handle.trigger_if_idle(asyncio.Event().wait) is Trigger.BUSY
        busy.gate.set()
        await ending
        assert busy.finished == ["a"]
        await registry.wait_idle()
    assert told == []


async def test_a_fresh_run_starts_after_an_awaited_listener_is_done_with_the_old_ones_emission(
    emit, plain, asynchronous, settle
):
    busy, told = Busy(), []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append), name="plain")
        registry.register(asynchronous(busy, tryfirst=True), name="busy")
        handle = registry.task_handle("flow")

        async def fresh():
            told.append("fresh run")
            await emit(registry, "fresh")

        handle.trigger(lambda: emit(registry, "old"))
        await busy.began.wait()
        for _ in range(3):
            handle.trigger(fresh)
            await settle()
        assert told == []
        busy.gate.set()
        await handle.wait()
    assert busy.finished == ["old", "fresh"]
    assert told == ["fresh run", "fresh"]


@voidings
async def test_every_emission_with_an_awaited_listener_is_finished_before_the_run_ends(
    void, score, settle
):
    keys = "abcdefgh"
    gates, finished = {key: asyncio.Event() for key in keys}, []
    all_began = asyncio.Barrier(len(keys) + 1)

    class Store:
        @hookimpl(tryfirst=True)
        async def on_score(self, score):
            await all_began.wait()
            await gates[score.key].wait()
            finished.append(score.key)

    async with Registry(StubMind(), {}) as registry:
        registry.register(Store())
        handle = registry.task_handle("flow")
        children = []

        async def flow():
            children.extend(asyncio.create_task(registry.emit_score(score(key))) for key in keys)
            await all_began.wait()

        handle.trigger(flow)
        await settle()
        ending = asyncio.create_task(void(registry, handle))
        await settle()
        for key in keys:
            assert handle.running, f"ended before {key} was delivered"
            gates[key].set()
            await settle()
        await ending
        assert finished == list(keys)
        await asyncio.gather(*children)


@voidings
async def test_the_time_limit_bounds_how_long_a_voided_run_waits_for_an_awaited_listener(
    void, emit, asynchronous, complaints
):
    busy = Busy()
    async with Registry(StubMind(), {"plugins": {"listener_timeout_s": 0.05}}) as registry:
        registry.register(asynchronous(busy, tryfirst=True), name="busy")
        handle = registry.task_handle("flow")
        handle.trigger(lambda: emit(registry, "a"))
        await busy.began.wait()
        await void(registry, handle)
        assert not handle.running
    assert busy.finished == []
    assert len(complaints()) == 1


async def test_a_run_that_stops_an_emission_itself_goes_on_once_the_listener_is_done(
    emit, asynchronous, settle
):
    busy, ended = Busy(), []
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(busy, tryfirst=True), name="busy")
        handle = registry.task_handle("flow")

        async def flow():
            emission = asyncio.create_task(emit(registry, "a"))
            await busy.began.wait()
            emission.cancel()
            await asyncio.wait({emission})
            ended.extend(busy.finished)

        handle.trigger(flow)
        await busy.began.wait()
        await settle()
        busy.gate.set()
        await handle.wait()
        assert handle.error is None
    assert ended == ["a"]


# -- what is not voided --------------------------------------------------------------------------


async def test_what_was_queued_before_the_run_was_voided_is_still_told(emit, asynchronous, settle):
    gate, told = asyncio.Event(), []

    async def hear(label):
        await gate.wait()
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear))
        handle = registry.task_handle("flow")

        async def flow():
            await emit(registry, "a")
            await emit(registry, "b")
            await asyncio.Event().wait()

        handle.trigger(flow)
        await settle()
        await handle.cancel()
        gate.set()
        await registry.wait_idle()
    assert told == ["a", "b"]


async def test_what_a_queued_listener_emits_is_not_voided_with_the_run_it_was_told_of(
    score, candidate, settle
):
    gate = asyncio.Event()

    class Follower:
        def __init__(self, registry):
            self.registry = registry

        @hookimpl
        async def on_score(self, score):
            await gate.wait()
            await self.registry.emit_candidate(candidate(score.key))

    async with Registry(StubMind(), {}) as registry:
        heard = RecordingListener()
        registry.register(heard)
        registry.register(Follower(registry))
        handle = registry.task_handle("flow")

        async def flow():
            await registry.emit_score(score("a"))
            await asyncio.Event().wait()

        handle.trigger(flow)
        await settle()
        await handle.cancel()
        gate.set()
        await registry.wait_idle()
    assert heard.candidates == [candidate("a")]


async def test_a_run_that_another_run_triggered_is_not_voided_with_it(emit, plain, settle):
    gate, told = asyncio.Event(), []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append))
        first, second = registry.task_handle("first"), registry.task_handle("second")

        async def follow():
            await gate.wait()
            await emit(registry, "second")

        async def lead():
            second.trigger(follow)
            await asyncio.Event().wait()

        first.trigger(lead)
        await settle()
        await first.cancel()
        gate.set()
        await registry.wait_idle()
    assert told == ["second"]


async def test_what_is_emitted_outside_of_the_run_is_not_voided_with_it(emit, plain, settle):
    told = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append))
        handle = registry.task_handle("flow")
        handle.trigger(asyncio.Event().wait)
        await settle()
        await handle.cancel()
        await emit(registry, "host")
    assert told == ["host"]


async def test_a_handle_that_no_registry_made_voids_its_run_too(emit, plain, settle):
    told = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append))

        async def flow():
            try:
                await asyncio.Event().wait()
            finally:
                await emit(registry, "late")

        handle = TaskHandle()
        handle.trigger(flow)
        await settle()
        await handle.cancel()
    assert told == []


# -- a run that ends in the very turn in which a listener is done ---------------------------------


@pytest.fixture
def soon():
    """Fails a test that keeps the loop from turning: no time limit of asyncio's own could."""

    def give_up(*_):
        raise TimeoutError("the event loop does not turn")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("turns", range(12))
async def test_a_run_that_is_voided_as_its_listener_ends_does_not_stop_the_loop(
    turns, emit, asynchronous, soon
):
    gate = asyncio.Event()
    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(lambda _: gate.wait(), tryfirst=True), name="awaited")
        handle = registry.task_handle("flow")
        handle.trigger(lambda: emit(registry, "a"))
        for _ in range(10):
            await asyncio.sleep(0)
        gate.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        await handle.cancel()
        assert not handle.running
