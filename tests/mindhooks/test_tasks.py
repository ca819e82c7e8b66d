"""``TaskHandle`` and ``in_thread``: section 3.2."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mindhooks import MindhooksError, TaskHandle, Trigger, in_thread


class OwnBase(BaseException):
    """Neither an Exception nor any of those that Python knows."""


class Runs:
    """Makes factories whose runs wait for ``gates[name]``, and notes what they do."""

    def __init__(self):
        self.events = []
        self.gates = {}

    def factory(self, name, *, unwinding=False):
        """A factory; with ``unwinding``, its run also waits for ``gates["unwind"]`` at the end."""
        gate = self.gates.setdefault(name, asyncio.Event())
        unwind = self.gates.setdefault("unwind", asyncio.Event())

        async def run():
            self.events.append(f"{name} begins")
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.events.append(f"{name} cancelled")
                raise
            finally:
                if unwinding:
                    await unwind.wait()
                self.events.append(f"{name} ends")

        def make():
            self.events.append(f"{name} made")
            return run()

        return make


@pytest.fixture
def runs():
    return Runs()


async def nothing():
    pass


# -- trigger_if_idle --------------------------------------------------------------------------


async def test_trigger_if_idle_starts_a_run(runs, settle):
    handle = TaskHandle()
    assert handle.trigger_if_idle(runs.factory("a")) is Trigger.STARTED
    assert handle.running
    await settle()
    assert runs.events == ["a made", "a begins"]
    runs.gates["a"].set()
    await handle.wait()
    assert not handle.running
    assert runs.events[-1] == "a ends"


async def test_trigger_if_idle_is_busy_while_a_run_runs(runs, settle):
    handle = TaskHandle()
    handle.trigger_if_idle(runs.factory("a"))
    assert handle.trigger_if_idle(runs.factory("b")) is Trigger.BUSY
    await settle()
    assert handle.trigger_if_idle(runs.factory("b")) is Trigger.BUSY
    runs.gates["a"].set()
    await handle.wait()
    assert runs.events == ["a made", "a begins", "a ends"]
    assert handle.trigger_if_idle(runs.factory("b")) is Trigger.STARTED
    await handle.cancel()


async def test_trigger_if_idle_is_busy_while_a_run_still_unwinds(runs, settle):
    handle = TaskHandle()
    handle.trigger_if_idle(runs.factory("a", unwinding=True))
    await settle()
    cancelled = asyncio.create_task(handle.cancel())
    await settle()
    assert runs.events[-1] == "a cancelled"
    assert handle.running
    assert handle.trigger_if_idle(runs.factory("b")) is Trigger.BUSY
    runs.gates["unwind"].set()
    await cancelled
    assert "b made" not in runs.events
    assert handle.trigger_if_idle(nothing) is Trigger.STARTED
    await handle.wait()


# -- trigger ----------------------------------------------------------------------------------


async def test_trigger_starts_a_run_when_idle(runs, settle):
    handle = TaskHandle()
    assert handle.trigger(runs.factory("a")) is Trigger.STARTED
    await settle()
    assert runs.events == ["a made", "a begins"]
    runs.gates["a"].set()
    await handle.wait()
    assert handle.trigger(nothing) is Trigger.STARTED
    await handle.wait()


async def test_trigger_cancels_the_run_in_flight_and_starts_the_fresh_one_at_its_end(runs, settle):
    handle = TaskHandle()
    handle.trigger(runs.factory("a", unwinding=True))
    await settle()
    assert handle.trigger(runs.factory("b")) is Trigger.RESTARTED
    await settle()
    assert runs.events == ["a made", "a begins", "a cancelled"]
    runs.gates["unwind"].set()
    await settle()
    assert runs.events[3:] == ["a ends", "b made", "b begins"]
    runs.gates["b"].set()
    await handle.wait()


async def test_trigger_cancels_the_run_in_flight_once_and_later_ones_replace_the_queued_factory(
    runs, settle
):
    handle = TaskHandle()
    handle.trigger(runs.factory("a", unwinding=True))
    await settle()
    for name in "bcd":
        assert handle.trigger(runs.factory(name)) is Trigger.RESTARTED
        await settle()
    assert runs.events == ["a made", "a begins", "a cancelled"]
    runs.gates["unwind"].set()
    await settle()
    # A second cancellation would have ended the unwinding before its gate was set.
    assert runs.events[3:] == ["a ends", "d made", "d begins"]
    await handle.cancel()


async def test_the_factory_of_a_queued_run_that_is_replaced_is_never_called(runs):
    handle = TaskHandle()
    handle.trigger(runs.factory("a"))
    for name in "bcd":
        handle.trigger(runs.factory(name))
    runs.gates["d"].set()
    await handle.wait()
    assert [event for event in runs.events if event[0] in "bc"] == []
    assert [event for event in runs.events if event[0] == "d"] == ["d made", "d begins", "d ends"]


async def test_a_fresh_run_starts_although_the_old_one_swallows_its_cancellation(settle):
    handle, events, gate = TaskHandle(), [], asyncio.Event()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await gate.wait()
            events.append("old ends")

    async def fresh():
        events.append("fresh")

    handle.trigger(stubborn)
    await settle()
    handle.trigger(fresh)
    await settle()
    assert events == []
    gate.set()
    await handle.wait()
    assert events == ["old ends", "fresh"]


async def test_a_fresh_run_starts_although_the_old_one_fails_while_it_unwinds(settle, complaints):
    handle, events = TaskHandle("flow"), []

    async def failing():
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while unwinding")

    async def fresh():
        events.append("fresh")

    handle.trigger(failing)
    await settle()
    handle.trigger(fresh)
    await handle.wait()
    assert events == ["fresh"]
    assert str(handle.error) == "while unwinding"
    assert len(complaints()) == 1


async def test_a_run_may_trigger_its_own_successor():
    handle, events = TaskHandle(), []

    async def second():
        events.append("second")

    async def first():
        events.append(handle.trigger(second))
        await asyncio.sleep(0)
        events.append("not reached")

    handle.trigger(first)
    await handle.wait()
    assert events == [Trigger.RESTARTED, "second"]


async def test_two_handles_do_not_know_of_each_other(runs, settle):
    first, second = TaskHandle(), TaskHandle()
    first.trigger(runs.factory("a"))
    assert second.trigger(runs.factory("b")) is Trigger.STARTED
    await settle()
    assert runs.events == ["a made", "a begins", "b made", "b begins"]
    await first.cancel()
    assert not first.running
    assert second.running
    await second.cancel()


# -- error ------------------------------------------------------------------------------------

FAILURES = [
    ValueError("bad"),
    SystemExit(3),
    OwnBase("deep"),
    asyncio.CancelledError("stray"),
    GeneratorExit("odd"),
    ValueError("one\ntwo"),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_the_error_of_a_run_is_kept_and_logged(error, complaints):
    async def fail():
        await asyncio.sleep(0)
        raise error

    handle = TaskHandle("my flow")
    assert handle.error is None
    handle.trigger(fail)
    await handle.wait()
    assert handle.error is error
    assert not handle.running
    (line,) = complaints()
    assert "my flow" in line
    assert f"{type(error).__name__}: " in line
    assert str(error).split()[-1] in line


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), StopIteration("odd")])
async def test_the_error_of_a_factory_is_kept_and_logged(error, complaints):
    def factory():
        raise error

    handle = TaskHandle()
    assert handle.trigger(factory) is Trigger.STARTED
    await handle.wait()
    assert handle.error is error
    assert len(complaints()) == 1


async def test_a_factory_that_returns_no_coroutine_is_an_error_of_that_run(complaints):
    handle = TaskHandle()
    handle.trigger(lambda: None)
    await handle.wait()
    assert isinstance(handle.error, TypeError)
    assert len(complaints()) == 1


async def test_the_error_is_the_last_one():
    handle = TaskHandle()

    def failing(text):
        async def fail():
            raise ValueError(text)

        return fail

    for text in ("first", "second"):
        handle.trigger(failing(text))
        await handle.wait()
        assert str(handle.error) == text


async def test_a_cancelled_run_is_no_error(runs, settle, complaints):
    handle = TaskHandle()
    handle.trigger(runs.factory("a"))
    await settle()
    await handle.cancel()
    assert handle.error is None
    assert complaints() == []


def test_a_keyboard_interrupt_passes_from_a_run():
    async def main():
        handle = TaskHandle()

        async def run():
            raise KeyboardInterrupt

        handle.trigger(run)
        await handle.wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


# -- wait and cancel --------------------------------------------------------------------------


async def test_wait_returns_at_once_when_idle():
    await TaskHandle().wait()


async def test_wait_waits_for_all_that_is_queued(runs, settle):
    handle = TaskHandle()
    handle.trigger(runs.factory("a", unwinding=True))
    await settle()
    handle.trigger(runs.factory("b"))
    waiting = asyncio.create_task(handle.wait())
    await settle()
    runs.gates["unwind"].set()
    await settle()
    assert runs.events[-1] == "b begins"
    assert not waiting.done()
    runs.gates["b"].set()
    await waiting
    assert runs.events[-1] == "b ends"
    assert not handle.running


@pytest.mark.parametrize("error", [*FAILURES, None], ids=repr)
async def test_wait_never_raises(error, settle):
    async def run():
        await asyncio.sleep(0)
        if error is not None:
            raise error
        await asyncio.Event().wait()

    handle = TaskHandle()
    handle.trigger(run)
    waiting = asyncio.create_task(handle.wait())
    await settle()
    await handle.cancel()
    assert await waiting is None


async def test_whoever_stops_waiting_does_not_stop_the_run(runs, settle):
    handle = TaskHandle()
    handle.trigger(runs.factory("a"))
    waiting = asyncio.create_task(handle.wait())
    await settle()
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert runs.events == ["a made", "a begins"]
    runs.gates["a"].set()
    await handle.wait()
    assert runs.events[-1] == "a ends"


async def test_cancel_ends_the_run_and_waits_for_its_end(runs, settle):
    handle = TaskHandle()
    handle.trigger(runs.factory("a", unwinding=True))
    await settle()
    cancelling = [asyncio.create_task(handle.cancel()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in cancelling)
    runs.gates["unwind"].set()
    await asyncio.gather(*cancelling)
    assert runs.events == ["a made", "a begins", "a cancelled", "a ends"]
    assert not handle.running


async def test_cancel_drops_what_is_queued(runs, settle):
    handle = TaskHandle()
    handle.trigger(runs.factory("a"))
    await settle()
    handle.trigger(runs.factory("b"))
    await handle.cancel()
    await settle()
    assert "b made" not in runs.events
    assert not handle.running


async def test_cancel_when_idle_does_nothing():
    handle = TaskHandle()
    await handle.cancel()
    assert not handle.running
    assert handle.trigger(nothing) is Trigger.STARTED
    await handle.wait()


async def test_a_run_that_was_triggered_while_another_is_cancelled_starts_at_its_end(runs, settle):
    handle = TaskHandle()
    handle.trigger(runs.factory("a", unwinding=True))
    await settle()
    cancelling = asyncio.create_task(handle.cancel())
    await settle()
    assert handle.trigger(runs.factory("b")) is Trigger.RESTARTED
    runs.gates["unwind"].set()
    await cancelling
    await settle()
    assert runs.events[-2:] == ["b made", "b begins"]
    await handle.cancel()


# -- without a loop ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["trigger", "trigger_if_idle"])
def test_without_a_running_loop_a_trigger_is_a_mindhooks_error(method):
    handle = TaskHandle()
    with pytest.raises(MindhooksError, match="event loop"):
        getattr(handle, method)(nothing)
    assert not handle.running


def test_a_handle_made_without_a_loop_works_in_one(runs):
    handle = TaskHandle()

    async def main():
        handle.trigger(nothing)
        await handle.wait()

    asyncio.run(main())
    assert not handle.running


async def test_a_trigger_from_another_thread_is_a_mindhooks_error():
    handle = TaskHandle()
    with pytest.raises(MindhooksError, match="event loop"):
        await in_thread(handle.trigger, nothing)
    assert not handle.running


# -- in_thread --------------------------------------------------------------------------------


async def test_in_thread_calls_the_function_in_another_thread_and_returns_its_result():
    def work(*args):
        return threading.get_ident(), args

    ident, args = await in_thread(work, 1, "two")
    assert ident != threading.get_ident()
    assert args == (1, "two")


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), OwnBase("deep")], ids=repr)
async def test_in_thread_raises_what_the_function_raises(error):
    def work():
        raise error

    with pytest.raises(type(error)) as raised:
        await in_thread(work)
    assert raised.value is error


async def test_in_thread_passes_the_context_variables():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    def work():
        seen = variable.get()
        variable.set("by the thread")
        return seen

    assert await in_thread(work) == "set"
    assert variable.get() == "set"


async def test_in_thread_does_not_block_the_loop():
    released = threading.Event()
    work = asyncio.create_task(in_thread(released.wait, 10))
    await asyncio.sleep(0)
    released.set()
    assert await work is True


class Thread:
    """A function for a thread that says when it began and lasts until it is released."""

    def __init__(self, error=None):
        self.began = asyncio.Event()
        self.ended = False
        self.calls = 0
        self._error = error
        self._loop = asyncio.get_running_loop()
        self._released = threading.Event()

    def __call__(self):
        self.calls += 1
        self._loop.call_soon_threadsafe(self.began.set)
        self._released.wait(10)
        self.ended = True
        if self._error is not None:
            raise self._error
        return "result"

    def release(self):
        self._released.set()


@pytest.mark.parametrize("cancellations", [1, 3])
@pytest.mark.parametrize("error", [None, ValueError("bad"), SystemExit(3)], ids=repr)
async def test_in_thread_when_cancelled_raises_only_once_the_thread_has_ended(
    error, cancellations, settle
):
    thread = Thread(error)
    work = asyncio.create_task(in_thread(thread))
    await thread.began.wait()
    for _ in range(cancellations):
        work.cancel()
        await settle()
        assert not work.done()
    thread.release()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert thread.ended


async def test_a_run_that_uses_in_thread_does_not_end_before_its_thread(settle):
    handle, thread, fresh = TaskHandle(), Thread(), asyncio.Event()

    async def begin_fresh():
        assert thread.ended
        fresh.set()

    handle.trigger(lambda: in_thread(thread))
    await thread.began.wait()
    handle.trigger(begin_fresh)
    await settle()
    assert not fresh.is_set()
    thread.release()
    await handle.wait()
    assert fresh.is_set()
    assert handle.error is None


async def test_a_call_that_still_waits_for_a_free_thread_when_cancelled_is_not_made(settle):
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    first, second = Thread(), Thread()
    busy = asyncio.create_task(in_thread(first))
    await first.began.wait()
    waiting = asyncio.create_task(in_thread(second))
    await settle()
    waiting.cancel()
    await settle()
    first.release()
    assert await busy == "result"
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert second.calls == 0


async def test_in_thread_ends_when_the_function_raises_stop_iteration():
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(in_thread(next, iter(())), 5)
