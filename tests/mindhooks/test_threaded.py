"""``ThreadedRegistry``: a registry for hosts without an event loop."""

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mindhooks import (
    MemoryScore,
    MindhooksError,
    PluginError,
    ThreadedRegistry,
    Trigger,
    UnhandledCommand,
    hookimpl,
)
from mindhooks._registry import MAX_LISTENER_TIMEOUT_S
from mindhooks.testing import StubMind

SHORT = {"plugins": {"listener_timeout_s": 0.1}}


class Flow:
    """Answers ``count``: emits so many scores from a task."""

    def __init__(self, count=3):
        self.count = count
        self.gate = None

    @hookimpl
    def on_trigger(self, command, registry):
        if command != "count":
            return None
        return registry.task_handle("count").trigger_if_idle(lambda: self.run(registry))

    async def run(self, registry):
        if self.gate is not None:
            await self.gate.wait()
        for number in range(self.count):
            await registry.emit_score(MemoryScore(f"k{number}", 1.0, "full", ()))


class Hears:
    def __init__(self):
        self.keys, self.threads = [], set()

    @hookimpl
    def on_score(self, score):
        self.keys.append(score.key)
        self.threads.add(threading.current_thread())


@pytest.fixture
def threaded():
    """A registry in a thread of its own, closed at the end, and its thread gone."""
    before = threading.active_count()
    with ThreadedRegistry(StubMind(), SHORT) as registry:
        yield registry
    # Worker threads end as soon as they notice.
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    # One of an earlier test's may have ended meanwhile.
    assert threading.active_count() <= before


def test_a_host_without_a_loop_dispatches_waits_and_hears(threaded):
    heard = Hears()
    threaded.register(Flow(), name="flow")
    threaded.register(heard, name="heard")
    assert threaded.dispatch("count") == {"flow": Trigger.STARTED}
    assert threaded.wait_idle()
    assert heard.keys == ["k0", "k1", "k2"]
    assert threading.current_thread() not in heard.threads
    assert [info.name for info in threaded.plugins()] == ["flow", "heard"]


def test_installed_plugins_are_loaded_and_score(threaded):
    threaded.settings = {**SHORT, "server": {"scorer": "toy"}, "store": {"url": ""}}
    threaded.load_entry_points()
    assert threaded.dispatch("score-full") == {"memory-scoring": Trigger.STARTED}
    assert threaded.wait_idle(30)
    assert threaded.task_errors() == {}
    assert threaded.registry.mind.state.memory_last_run.error is None


def test_many_threads_dispatch_at_once_and_one_run_starts(threaded):
    flow = Flow()
    threaded.register(flow, name="flow")
    flow.gate = asyncio.Event()
    start, answers = threading.Barrier(8), []

    def dispatch():
        start.wait()
        answers.append(threaded.dispatch("count")["flow"])

    threads = [threading.Thread(target=dispatch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [Trigger.BUSY] * 7 + [Trigger.STARTED]
    assert not threaded.wait_idle(0.01)
    threaded._loop.call_soon_threadsafe(flow.gate.set)
    assert threaded.wait_idle(10)


def test_what_the_registry_raises_is_raised_in_the_hosts_thread(threaded):
    with pytest.raises(UnhandledCommand):
        threaded.dispatch("nothing")
    with pytest.raises(PluginError):
        threaded.register(lambda: None, name="x") or threaded.register(lambda: None, name="x")
    with pytest.raises(MindhooksError, match="listener_timeout_s"):
        threaded.settings = {"plugins": {"listener_timeout_s": 0}}
    assert threaded.settings == SHORT


def test_wrong_settings_are_refused_and_leave_no_thread():
    before = threading.active_count()
    with pytest.raises(MindhooksError, match="listener_timeout_s"):
        ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": "soon"}})
    assert threading.active_count() == before


def test_after_close_calls_are_refused_and_a_second_close_does_nothing():
    registry = ThreadedRegistry(StubMind(), SHORT)
    registry.close()
    registry.close()
    for call in (lambda: registry.dispatch("count"), registry.load_entry_points):
        with pytest.raises(MindhooksError, match="closed"):
            call()
    with pytest.raises(MindhooksError, match="closed"):
        registry.wait_idle()


def test_a_listener_may_dispatch_and_close_from_the_registrys_own_thread():
    registry = ThreadedRegistry(StubMind(), SHORT)
    answers = []

    class Again:
        @hookimpl
        def on_score(self, score):
            answers.append(registry.dispatch("count"))
            with pytest.raises(MindhooksError, match="own thread"):
                registry.wait_idle()
            registry.close()

    registry.register(Flow(1), name="flow")
    registry.register(Again(), name="again")
    registry.dispatch("count")
    registry._thread.join(10)
    assert not registry._thread.is_alive()
    assert answers == [{"flow": Trigger.BUSY}]


def test_a_plugin_that_holds_up_the_thread_does_not_hold_up_the_host(monkeypatch, threaded):
    monkeypatch.setattr("mindhooks._threaded.ANSWER_TIMEOUT_S", 0.05)
    held, gate = threading.Event(), threading.Event()

    class Slow:
        calls = 0

        @hookimpl
        def on_trigger(self, command):
            if command == "slow":
                held.set()
                gate.wait(10)
            self.calls += 1

    slow = Slow()
    threaded.register(slow, name="slow")
    threaded.register(Flow(), name="flow")
    first = ThreadPoolExecutor(1).submit(threaded.dispatch, "slow")
    held.wait(10)
    with pytest.raises(MindhooksError, match=r"no answer after 0.05 s$"):
        threaded.dispatch("count")
    with pytest.raises(MindhooksError, match="which has begun with it"):
        first.result(10)
    gate.set()
    threaded.wait_idle(10)
    # What was given up is not done later.
    assert slow.calls == 1


def test_a_plugin_that_interrupts_the_thread_does_not_end_it(threaded, caplog):
    def interrupt():
        raise KeyboardInterrupt

    class Rude:
        @hookimpl
        def on_score(self, score):
            asyncio.get_running_loop().call_soon(interrupt)

    threaded.register(Rude(), name="rude")
    threaded.register(Flow(1), name="flow")
    with caplog.at_level(logging.ERROR):
        threaded.dispatch("count")
        threaded.wait_idle(10)
    assert threaded.dispatch("count") == {"flow": Trigger.STARTED}
    assert any("KeyboardInterrupt" in record.getMessage() for record in caplog.records)


def test_close_ends_though_a_task_and_a_plugin_do_not_heed_it(caplog):
    class Stubborn:
        @hookimpl
        def on_trigger(self, command, registry):
            return registry.task_handle("stubborn").trigger_if_idle(self.run)

        async def run(self):
            # It heeds the second time only.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    registry = ThreadedRegistry(StubMind(), SHORT)
    registry.register(Stubborn(), name="stubborn")
    registry.dispatch("go")
    started = time.monotonic()
    with caplog.at_level(logging.ERROR):
        registry.close()
    assert time.monotonic() - started < 30
    assert any("left behind" in record.getMessage() for record in caplog.records)


STUCK = """
import threading, time
from mindhooks import ThreadedRegistry, _threaded, hookimpl, in_thread
from mindhooks.testing import StubMind
_threaded.EXIT_TIMEOUT_S, _threaded.ANSWER_TIMEOUT_S = 1.0, 0.1

class Stuck:
    @hookimpl
    def on_trigger(self, command, registry):
        return registry.task_handle("stuck").trigger_if_idle(lambda: in_thread(self.hang))

    def hang(self):
        begun.set()
        time.sleep(600)

begun = threading.Event()
registry = ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": 0.1}})
registry.register(Stuck(), name="stuck")
registry.dispatch("go")
begun.wait(10)
if CLOSE:
    registry.close()
print("the host is done", flush=True)
"""


@pytest.mark.parametrize("close", [True, False])
def test_a_thread_that_never_ends_does_not_keep_the_host_from_ending(close):
    source = STUCK.replace("CLOSE", str(close))
    ran = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout == "the host is done\n"


COMPUTING = """
import sys, time
from mindhooks import ThreadedRegistry, _threaded, in_thread
from mindhooks.testing import StubMind
_threaded.EXIT_TIMEOUT_S, _threaded.ANSWER_TIMEOUT_S = 1.0, 0.1
def compute():
    # As on a machine where others have the processor most of the time.
    used = time.process_time()
    while time.process_time() - used < 0.5:
        turn = time.process_time()
        while time.process_time() - turn < 0.01:
            pass
        time.sleep(0.05)
    sys.stdout.write("computed\\n")
registry = ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": 0.2}})
registry.submit(in_thread(compute))
time.sleep(0.1)
"""


def test_a_process_that_ends_waits_for_what_computes_on_a_busy_machine():
    ran = subprocess.run(
        [sys.executable, "-c", COMPUTING], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "computed\n"
    assert "has not ended" not in ran.stderr


@pytest.mark.parametrize("limit", [1e7, 1e10, 1e300])
def test_a_listener_timeout_that_no_clock_can_wait_is_refused(limit):
    with pytest.raises(MindhooksError, match="listener_timeout_s"):
        ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": limit}})


@pytest.mark.parametrize("limit", [0.001, MAX_LISTENER_TIMEOUT_S])
def test_any_listener_timeout_lets_it_close(limit):
    registry = ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": limit}})
    assert registry.wait_idle(60)
    registry.close()
    assert not registry._thread.is_alive()


def test_what_is_raised_after_a_cancellation_is_not_reported_as_lost(caplog):
    begun = threading.Event()

    async def work():
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            raise ValueError("late")

    with ThreadedRegistry(StubMind(), {}) as registry:
        future = registry.submit(work())
        assert begun.wait(10)
        future.cancel()
        registry.submit(asyncio.sleep(0.01)).result(10)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_every_future_ends_when_closing_meets_submitting():
    for _ in range(40):
        registry = ThreadedRegistry(StubMind(), SHORT)
        futures, start = [], threading.Barrier(4)

        def ask(registry=registry, futures=futures, start=start):
            start.wait()
            with contextlib.suppress(MindhooksError):
                while True:
                    futures.append(registry.submit(asyncio.sleep(600)))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        registry.close()
        for thread in threads:
            thread.join()
        assert {type(it.exception(10)) for it in futures} <= {MindhooksError}


def test_close_leaves_no_thread_of_a_call_that_ends():
    registry = ThreadedRegistry(StubMind(), SHORT)
    begun = threading.Event()

    def call():
        begun.set()
        time.sleep(0.5)

    registry.submit(asyncio.to_thread(call))
    begun.wait(10)
    registry.close()
    assert not [it for it in threading.enumerate() if it.name == "mindhooks call"]


OPEN = """
import threading, time, weakref
from mindhooks import ThreadedRegistry
from mindhooks.testing import StubMind
import asyncio
registry = ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": 0.1}})
begun = threading.Event()

def call():
    begun.set()
    time.sleep(1)
    print("the call has ended", flush=True)

registry.submit(asyncio.to_thread(call))
begun.wait(10)
raise SystemExit(7)
"""


def test_a_process_that_ends_waits_for_its_calls_and_keeps_its_status():
    ran = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "the call has ended\n", "")
