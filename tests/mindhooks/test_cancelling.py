"""``Registry.cancel``: the runs of one command, whoever began them, and no others."""

import asyncio
import contextlib
import dataclasses
import threading

import pytest

from mindhooks import (
    BaseScorer,
    MemoryScore,
    MindCommand,
    MindhooksError,
    Registry,
    ThreadedRegistry,
    Trigger,
    hookimpl,
    in_thread,
)
from mindhooks.testing import RecordingListener, StubMind


class Scorer(BaseScorer):
    model = "m"


class Flow:
    """Answers ``commands`` on one task handle; each run waits, then emits and reports."""

    def __init__(self, *commands, handle="flow", replaces=False, stats=None):
        self.commands = commands
        self.handle, self.replaces, self.stats = handle, replaces, stats
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.ran, self.finished = [], []

    @hookimpl
    def on_trigger(self, command, registry):
        if command not in self.commands:
            return None
        handle = registry.task_handle(self.handle)
        trigger = handle.trigger if self.replaces else handle.trigger_if_idle
        return trigger(lambda: self.run(command, registry))

    async def run(self, command, registry):
        self.ran.append(command)
        async with registry.run(command):
            try:
                self.begun.set()
                await self.go.wait()
                self.finished.append(command)
            finally:
                await registry.emit_score(MemoryScore(command, 1.0, "full", ()))
                if self.stats is not None:
                    registry.report(self.stats)


@contextlib.asynccontextmanager
async def opened(**plugins):
    async with Registry(StubMind(), {}, scorer=Scorer()) as registry:
        listener = RecordingListener()
        registry.register(listener, name="listener")
        for name, plugin in plugins.items():
            registry.register(plugin, name=name)
        yield registry, listener


def ends(listener):
    return [(run.command, stats and stats.error) for stats, run in listener.run_ends]


async def test_a_run_is_cancelled_its_end_is_told_and_what_it_emits_is_void(stats):
    flow = Flow("mine", stats=stats())
    async with opened(flow=flow) as (registry, listener):
        registry.dispatch("mine")
        await flow.begun.wait()
        assert registry.cancel("mine") == ["flow"]
        await registry.wait_idle()
        assert registry.task_errors() == {}
        assert (listener.scores, flow.finished) == ([], [])
        assert ends(listener) == [("mine", "cancelled")]


async def test_an_error_that_the_flow_itself_reports_stays(stats):
    flow = Flow("mine", stats=dataclasses.replace(stats(), error="half done"))
    async with opened(flow=flow) as (registry, listener):
        registry.dispatch("mine")
        await flow.begun.wait()
        registry.cancel("mine")
        await registry.wait_idle()
        assert ends(listener) == [("mine", "half done")]


async def test_where_nothing_runs_nothing_is_cancelled():
    flow = Flow("mine")
    async with opened(flow=flow) as (registry, listener):
        assert registry.cancel("mine") == []
        assert registry.cancel(MindCommand.SCORE) == []
        flow.go.set()
        registry.dispatch("mine")
        await registry.wait_idle()
        assert registry.cancel("mine") == []
        assert ends(listener) == [("mine", None)]


async def test_a_run_that_unwinds_is_cancelled_once():
    flow = Flow("mine")
    async with opened(flow=flow) as (registry, listener):
        registry.dispatch("mine")
        await flow.begun.wait()
        assert [registry.cancel("mine") for _ in range(3)] == [["flow"], [], []]
        await registry.wait_idle()
        assert ends(listener) == [("mine", None)]


async def test_every_plugin_whose_run_was_cancelled_is_named_once():
    first, second = Flow("mine", handle="a"), Flow("mine", handle="b")
    other = Flow("other", handle="c")
    async with opened(first=first, second=second, other=other) as (registry, listener):
        registry.dispatch("mine")
        registry.dispatch("other")
        for flow in (first, second, other):
            await flow.begun.wait()
        assert sorted(registry.cancel("mine")) == ["first", "second"]
        other.go.set()
        await registry.wait_idle()
        assert other.finished == ["other"]
        assert sorted(it[0] for it in ends(listener)) == ["mine", "mine", "other"]


async def test_another_commands_run_on_the_same_handle_goes_on():
    flow = Flow("score", "score-full")
    async with opened(flow=flow) as (registry, listener):
        registry.dispatch("score-full")
        await flow.begun.wait()
        assert registry.dispatch("score") == {"flow": Trigger.BUSY}
        assert registry.cancel("score") == []
        flow.go.set()
        await registry.wait_idle()
        assert flow.finished == ["score-full"]
        assert [it.key for it in listener.scores] == ["score-full"]


async def test_a_queued_run_is_dropped_and_never_begins():
    flow = Flow("one", "two", replaces=True)
    async with opened(flow=flow) as (registry, listener):
        registry.dispatch("one")
        await flow.begun.wait()
        assert registry.dispatch("two") == {"flow": Trigger.RESTARTED}
        # The run before it was voided already, by the one that is queued.
        assert registry.cancel("one") == []
        assert registry.cancel("two") == ["flow"]
        await registry.wait_idle()
        assert flow.ran == ["one"]
        assert [it[0] for it in ends(listener)] == ["one"]


async def test_a_queued_run_is_of_the_command_that_queued_it():
    flow = Flow("one", "two", replaces=True)
    async with opened(flow=flow) as (registry, _):
        registry.dispatch("one")
        await flow.begun.wait()
        flow.begun.clear()
        registry.dispatch("two")
        await flow.begun.wait()
        assert registry.cancel("one") == []
        assert registry.cancel("two") == ["flow"]
        await registry.wait_idle()
        assert flow.ran == ["one", "two"]
        assert flow.finished == []


async def test_a_run_that_is_cancelled_before_it_begins_leaves_nothing():
    flow = Flow("mine")
    async with opened(flow=flow) as (registry, listener):
        registry.dispatch("mine")
        assert registry.cancel("mine") == ["flow"]
        await registry.wait_idle()
        assert (flow.ran, listener.run_ends) == ([], [])
        assert registry.dispatch("mine") == {"flow": Trigger.STARTED}


async def test_a_flow_without_an_open_run_is_cancelled_by_what_was_dispatched(settle):
    class Bare:
        @hookimpl
        def on_trigger(self, command, registry):
            if command != "bare":
                return None
            return registry.task_handle("bare").trigger_if_idle(asyncio.Event().wait)

    async with opened(bare=Bare()) as (registry, _):
        registry.dispatch("bare")
        await settle()
        assert registry.cancel("bare") == ["bare"]
        await registry.wait_idle()


class OwnTask:
    """A flow that has no task handle."""

    def __init__(self):
        self.begun, self.emitted = asyncio.Event(), asyncio.Event()
        self.task = None

    @hookimpl
    def on_trigger(self, command, registry):
        if command != "own":
            return None
        self.task = asyncio.create_task(self.run(registry))
        return Trigger.STARTED

    async def run(self, registry):
        async with registry.run("own"):
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await registry.emit_score(MemoryScore("late", 1.0, "full", ()))


async def test_a_run_without_a_handle_is_cancelled_too():
    own = OwnTask()
    async with opened(own=own) as (registry, listener):
        registry.dispatch("own")
        await own.begun.wait()
        assert registry.cancel("own") == ["own"]
        assert registry.cancel("own") == []
        with pytest.raises(asyncio.CancelledError):
            await own.task
        await registry.wait_idle()
        assert listener.scores == []
        assert [run.command for _, run in listener.run_ends] == ["own"]


async def test_a_handle_that_the_host_triggers_itself_gives_the_name():
    flow = Flow()
    async with opened() as (registry, listener):
        registry.task_handle("by hand").trigger(lambda: flow.run("mine", registry))
        await flow.begun.wait()
        assert registry.cancel("mine") == ["by hand"]
        await registry.wait_idle()
        assert listener.scores == []
        assert len(listener.run_ends) == 1


async def test_a_flow_that_a_listener_begins_is_its_plugins():
    flow = Flow()

    class Follower:
        @hookimpl
        def on_score(self, score, registry):
            if score.key == "first":
                registry.task_handle("second").trigger(lambda: flow.run("second", registry))

    async with opened(follower=Follower()) as (registry, listener):
        await registry.emit_score(MemoryScore("first", 1.0, "full", ()))
        await flow.begun.wait()
        assert registry.cancel("second") == ["follower"]
        await registry.wait_idle()
        assert [it.key for it in listener.scores] == ["first"]


async def test_what_child_tasks_and_threads_emit_after_it_is_void(settle):
    begun, release = asyncio.Event(), threading.Event()

    async with opened() as (registry, listener):
        loop = asyncio.get_running_loop()

        async def flow():
            async with registry.run("mine"):
                begun.set()
                await in_thread(speak)

        def speak():
            release.wait(10)
            score = MemoryScore("late", 1.0, "full", ())
            asyncio.run_coroutine_threadsafe(registry.emit_score(score), loop).result(10)

        task = asyncio.create_task(flow())
        await begun.wait()
        assert registry.cancel("mine") == []
        await settle()
        assert not listener.run_ends, "the run has ended before its thread"
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert listener.scores == []
        assert len(listener.run_ends) == 1


async def test_a_listener_that_cancels_the_run_it_hears_of_is_the_last_to_hear_of_it(score):
    heard = []

    class Stops:
        @hookimpl(tryfirst=True)
        async def on_score(self, score, registry):
            heard.append(registry.cancel("mine"))

    async with opened(stops=Stops()) as (registry, listener):

        async def flow():
            async with registry.run("mine"):
                await registry.emit_score(score("a"))
                await registry.emit_score(score("b"))

        registry.task_handle("flow").trigger(flow)
        await registry.wait_idle()
        assert heard == [["flow"]]
        assert listener.scores == []
        assert len(listener.run_ends) == 1


async def test_an_emission_with_an_awaited_listener_is_finished_for_it(score, settle):
    gate, finished, busy = asyncio.Event(), [], asyncio.Event()

    class Store:
        @hookimpl(tryfirst=True)
        async def on_score(self, score):
            busy.set()
            await gate.wait()
            finished.append(score.key)

    async with opened(store=Store()) as (registry, listener):

        async def flow():
            async with registry.run("mine"):
                await registry.emit_score(score("a"))

        registry.task_handle("flow").trigger(flow)
        await busy.wait()
        registry.cancel("mine")
        await settle()
        assert listener.run_ends == []
        gate.set()
        await registry.wait_idle()
        assert finished == ["a"]
        assert listener.scores == []


async def test_a_closed_registry_refuses():
    async with opened() as (registry, _):
        pass
    with pytest.raises(MindhooksError, match="closed"):
        registry.cancel("mine")


# -- from threads -------------------------------------------------------------------------------


class Threaded:
    """Answers ``mine`` and ``other``, each on a handle of its own, until it is let go."""

    def __init__(self):
        self.begun = {"mine": threading.Event(), "other": threading.Event()}
        self.let_go = threading.Event()

    @hookimpl
    def on_trigger(self, command, registry):
        if command not in self.begun:
            return None
        handle = registry.task_handle(command)
        return handle.trigger_if_idle(lambda: self.run(command, registry))

    async def run(self, command, registry):
        async with registry.run(command):
            self.begun[command].set()
            if command == "mine":
                await asyncio.Event().wait()
            await in_thread(self.let_go.wait, 10)
            await registry.emit_score(MemoryScore(command, 1.0, "full", ()))


def test_any_thread_may_cancel_and_of_many_one_does():
    flow, listener = Threaded(), RecordingListener()
    with ThreadedRegistry(StubMind(), {}, scorer=Scorer()) as registry:
        registry.register(flow, name="flow")
        registry.register(listener, name="listener")
        for command, begun in flow.begun.items():
            registry.dispatch(command)
            assert begun.wait(10)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(registry.cancel("mine")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        flow.let_go.set()
        assert registry.wait_idle(10)
        assert sorted(answers) == [[]] * 7 + [["flow"]]
        assert [it.key for it in listener.scores] == ["other"]
        assert sorted(run.command for _, run in listener.run_ends) == ["mine", "other"]
    with pytest.raises(MindhooksError, match="closed"):
        registry.cancel("mine")
