"""Runs and their ends: section 3.1, ``Run`` and ``on_run_end``."""

import asyncio
import gc
import threading
import time
import weakref
from types import MappingProxyType, SimpleNamespace

import pytest

from mindhooks import (
    BaseScorer,
    FinetuneStats,
    MindCommand,
    MindhooksError,
    Registry,
    Trigger,
    hookimpl,
    in_thread,
)
from mindhooks.testing import RecordingListener, StubMind

LIMIT = {"plugins": {"listener_timeout_s": 0.1}}


class Named(BaseScorer):
    def __init__(self, model="m"):
        self.model = model


@pytest.fixture
def listener():
    return RecordingListener()


def open_registry(listener=None, settings=None, **options):
    registry = Registry(StubMind(), settings or {}, **{"scorer": Named(), **options})
    if listener is not None:
        registry.register(listener, name="listener")
    return registry


# -- what a run is -------------------------------------------------------------------------------


async def test_the_same_run_object_reaches_every_hook(listener, score, candidate, stats):
    async with open_registry(listener) as registry:
        async with registry.run(MindCommand.SCORE) as run:
            await registry.emit_score(score())
            await registry.emit_candidate(candidate())
            registry.report(stats())
        async with registry.run(MindCommand.SCORE) as another:
            pass
    assert [it is run for it in listener.runs] == [True, False]
    assert listener.run_ends == [(stats(), run), (None, another)]
    assert listener.run_ends[0][1] is run
    assert run.id != another.id


@pytest.mark.parametrize("is_async", [False, True])
async def test_every_hook_gets_mind_registry_and_run(is_async, score, candidate):
    told = []

    class Plain:
        @hookimpl
        def on_score(self, score, mind, registry, run):
            told.append((mind, registry, run))

        @hookimpl
        def on_candidate(self, candidate, mind, registry, run):
            told.append((mind, registry, run))

        @hookimpl
        def on_run_end(self, stats, mind, registry, run):
            told.append((mind, registry, run))

    class Async:
        @hookimpl
        async def on_score(self, score, mind, registry, run):
            told.append((mind, registry, run))

        @hookimpl
        async def on_candidate(self, candidate, mind, registry, run):
            told.append((mind, registry, run))

        @hookimpl
        async def on_run_end(self, stats, mind, registry, run):
            told.append((mind, registry, run))

    async with open_registry(Async() if is_async else Plain()) as registry:
        async with registry.run("go") as run:
            await registry.emit_score(score())
            await registry.emit_candidate(candidate())
        await registry.wait_idle()
    assert told == [(registry.mind, registry, run)] * 3


async def test_a_run_says_its_command_model_start_and_id():
    before = time.time()
    async with open_registry(scorer=Named("big")) as registry:
        async with registry.run("score") as run:
            pass
        async with registry.run("census") as other:
            pass
    assert (run.command, run.model) == (MindCommand.SCORE, "big")
    assert other.command == "census"
    assert before <= run.started_at <= other.started_at <= time.time()
    assert len(run.id) == len(bytes.fromhex(run.id)) * 2 == 32


async def test_outside_of_a_run_there_is_none(score, candidate):
    told = []

    class Plugin:
        @hookimpl
        def on_score(self, run):
            told.append(run)

        @hookimpl
        def on_candidate(self, run):
            told.append(run)

    async with open_registry(Plugin()) as registry:
        await registry.emit_score(score())
        async with registry.run("go"):
            pass
        await registry.emit_candidate(candidate())
    assert told == [None, None]


# -- its settings --------------------------------------------------------------------------------


async def test_the_settings_of_a_run_are_those_of_its_beginning(listener):
    settings = {"flow": {"depths": [1]}, "server": MappingProxyType({"model": "a"})}
    async with open_registry(listener, settings) as registry:
        async with registry.run("go") as run:
            registry.settings = {"flow": {}}
            settings["flow"]["depths"].append(2)
            settings["more"] = 1
            assert run.settings == {"flow": {"depths": [1]}, "server": {"model": "a"}}
        async with registry.run("go") as second:
            assert second.settings == {"flow": {}}
    assert listener.run_ends[0][1].settings["flow"] == {"depths": [1]}


# -- its model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [{}, {"model": "named"}])
async def test_without_a_scorer_the_model_is_that_of_the_settings(server, distributions, listener):
    settings = {"server": {"scorer": "nobody", **server}}
    async with (
        open_registry(listener, settings, scorer=None) as registry,
        registry.run("go") as run,
    ):
        assert run.model == server.get("model", "")
        with pytest.raises(MindhooksError, match="nobody"):
            await registry.scorer()
    assert len(listener.run_ends) == 1


async def test_a_flow_that_uses_no_scorer_has_none_built(distributions, journal):
    source = "from journal import journal\njournal.append('imported')"
    distributions.install("acme", scorers={"local": "acme_scorer:S"}, acme_scorer=source)
    async with (
        open_registry(None, {"server": {"model": "m"}}, scorer=None) as registry,
        registry.run("census", uses_scorer=False) as run,
    ):
        assert run.model == "m"
    assert journal == []
    async with (
        open_registry(scorer=Named("here")) as registry,
        registry.run("census", uses_scorer=False) as run,
    ):
        assert run.model == "here"


async def test_a_run_that_is_cancelled_while_its_scorer_is_built_has_an_end(
    distributions, journal, listener, settle
):
    begun, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    journal += [lambda: loop.call_soon_threadsafe(begun.set), lambda: released.wait(10)]
    source = "from journal import journal\nfor it in journal: it()\n"
    distributions.install("acme", scorers={"local": "acme_scorer:S"}, acme_scorer=source)
    async with open_registry(listener, {"server": {"model": "m"}}, scorer=None) as registry:

        async def flow():
            async with registry.run("go"):
                raise AssertionError("cancelled before")

        handle = registry.task_handle("flow")
        handle.trigger(flow)
        await begun.wait()
        ending = asyncio.create_task(handle.cancel())
        await settle()
        released.set()
        await ending
        assert handle.error is None
    [(stats, run)] = listener.run_ends
    assert (stats, run.command, run.model) == (None, "go", "m")


# -- what belongs to it --------------------------------------------------------------------------


async def test_what_child_tasks_and_threads_emit_belongs_to_the_run(listener, score):
    async with open_registry(listener) as registry:
        loop = asyncio.get_running_loop()

        def work(label):
            asyncio.run_coroutine_threadsafe(registry.emit_score(score(label)), loop).result(10)

        async with registry.run("go") as run:
            await asyncio.create_task(registry.emit_score(score("child")))
            await asyncio.to_thread(work, "thread")
            await in_thread(work, "in_thread")
    assert [it.key for it in listener.scores] == ["child", "thread", "in_thread"]
    assert listener.runs == [run]


async def test_two_flows_at_once_have_two_runs(score, stats):
    heard, ends, meet = [], [], asyncio.Barrier(2)

    class Plugin:
        @hookimpl
        def on_score(self, score, run):
            heard.append((score.key, run))

        @hookimpl
        def on_run_end(self, stats, run):
            ends.append((stats.calls, run))

    class Flow:
        def __init__(self, number):
            self.number = number

        @hookimpl
        def on_trigger(self, command, registry):
            handle = registry.task_handle(f"flow {self.number}")
            return handle.trigger(lambda: self.run(command, registry))

        async def run(self, command, registry):
            async with registry.run(command) as self.opened:
                for _ in range(3):
                    await meet.wait()
                    await registry.emit_score(score(str(self.number)))
                registry.report(stats(self.number))
                await meet.wait()

    flows = [Flow(1), Flow(2)]
    async with open_registry(Plugin()) as registry:
        for flow in flows:
            registry.register(flow, name=f"flow {flow.number}")
        registry.dispatch("go")
        await registry.wait_idle()
    runs = {str(flow.number): flow.opened for flow in flows}
    assert len(heard) == 6
    assert all(run is runs[key] for key, run in heard)
    assert sorted(calls for calls, _ in ends) == [1, 2]
    assert all(run is runs[str(calls)] for calls, run in ends)


async def test_a_run_within_a_run_ends_first_and_the_outer_one_goes_on(listener, score, stats):
    async with open_registry(listener) as registry, registry.run("outer") as outer:
        async with registry.run("inner") as inner:
            registry.report(stats(2))
        await registry.emit_score(score())
        registry.report(stats(1))
        assert listener.run_ends == [(stats(2), inner)]
    assert listener.run_ends[1:] == [(stats(1), outer)]
    assert listener.runs == [inner, outer]


@pytest.mark.parametrize("first", [0, 1], ids=["the earlier ends first", "the later ends first"])
async def test_runs_that_overlap_may_end_in_any_order(first, listener, score):
    async with open_registry(listener) as registry:
        blocks = [registry.run("earlier"), registry.run("later")]
        runs = [await block.__aenter__() for block in blocks]
        await blocks[first].__aexit__(None, None, None)
        await registry.emit_score(score("one is open"))
        await blocks[1 - first].__aexit__(None, None, None)
        assert listener.runs == [runs[first], runs[1 - first]]
        listener.runs.clear()
        await registry.emit_score(score("none is open"))
    assert listener.runs == []
    assert [run for _, run in listener.run_ends] == [runs[first], runs[1 - first]]
    assert len(listener.scores) == 2


async def test_a_run_is_of_one_registry(score):
    first, second = RecordingListener(), RecordingListener()
    async with open_registry(first) as one, open_registry(second) as other, one.run("go") as run:
        await other.emit_score(score("elsewhere"))
        async with other.run("go") as nested:
            await one.emit_score(score("here"))
            with pytest.raises(MindhooksError, match="no run"):
                await asyncio.to_thread(Registry(StubMind(), {}).report, None)
    assert (first.runs, second.runs) == ([run], [nested])


async def test_what_a_run_triggers_is_not_part_of_it(listener, score):
    async with open_registry(listener) as registry, registry.run("go"):
        registry.task_handle("other").trigger(lambda: registry.emit_score(score()))
        await registry.wait_idle()
        assert len(listener.scores) == 1
        assert listener.runs == []


class QueuedFollower:
    """Emits a candidate for each score that it is told of, itself or in a task."""

    def __init__(self, candidate):
        self.candidate = candidate

    @hookimpl
    async def on_score(self, registry):
        await registry.emit_candidate(self.candidate)


class AwaitedFollower(QueuedFollower):
    @hookimpl(tryfirst=True)
    async def on_score(self, registry):
        await registry.emit_candidate(self.candidate)


class PlainFollower(QueuedFollower):
    @hookimpl
    def on_score(self, registry):
        self.task = asyncio.create_task(registry.emit_candidate(self.candidate))


followers = pytest.mark.parametrize("follower", [QueuedFollower, AwaitedFollower, PlainFollower])


@followers
async def test_what_a_listener_emits_is_part_of_no_run(follower, score, candidate, settle):
    runs = []

    class Plugin:
        @hookimpl
        def on_candidate(self, run):
            runs.append(run)

    async with open_registry(Plugin()) as registry:
        registry.register(follower(candidate()))
        async with registry.run("go"):
            await registry.emit_score(score())
            await settle()
    assert runs == [None]


@followers
async def test_what_a_listener_emits_is_told_although_the_run_it_heard_of_is_voided(
    follower, listener, score, candidate
):
    heard, gate = asyncio.Event(), asyncio.Event()

    class Gate:
        """Holds up the candidate until the run is voided."""

        @hookimpl(tryfirst=True)
        async def on_candidate(self):
            heard.set()
            await gate.wait()

    async with open_registry(listener) as registry:
        registry.register(follower(candidate()))
        registry.register(Gate())

        async def flow():
            async with registry.run("go"):
                await registry.emit_score(score())
                await asyncio.Event().wait()

        handle = registry.task_handle("flow")
        handle.trigger(flow)
        await heard.wait()
        ending = asyncio.create_task(handle.cancel())
        await asyncio.sleep(0)
        gate.set()
        await ending
        await registry.wait_idle()
    assert listener.candidates == [candidate()]


@pytest.mark.parametrize("hook", [None, "on_run_end"], ids=["of a score", "of a run's end"])
async def test_a_listener_that_triggers_a_run_does_not_make_it_part_of_another(hook, score):
    runs = []

    class Triggers:
        @hookimpl(specname=hook)
        def on_score(self, registry):
            registry.task_handle("other").trigger(lambda: registry.emit_candidate(None))

    class Plugin:
        @hookimpl
        def on_candidate(self, run):
            runs.append(run)

    async with open_registry(Plugin()) as registry:
        registry.register(Triggers())
        async with registry.run("go"):
            await registry.emit_score(score())
            await registry.wait_idle()
        await registry.wait_idle()
    assert runs == [None]


async def test_the_run_ends_after_an_emission_whose_emitter_is_cancelled(score, settle):
    """Listeners that were told of a score hear of the run's end later, never before."""
    events, gate = [], asyncio.Event()

    class Store:
        @hookimpl(tryfirst=True)
        async def on_score(self):
            events.append("store begins")
            await gate.wait()
            events.append("score stored")

    class Second:
        @hookimpl(tryfirst=True)
        async def on_score(self):
            await asyncio.sleep(0)
            events.append("second")

    class Plain:
        @hookimpl
        def on_score(self):
            events.append("plain")

        @hookimpl
        def on_run_end(self):
            events.append("run ended")

    async def flow():
        async with registry.run("go"):
            emission = asyncio.create_task(registry.emit_score(score()))
            await settle()
            emission.cancel()
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.02, gate.set)
        with pytest.raises(asyncio.CancelledError):
            await emission

    async with open_registry(Plain()) as registry:
        registry.register(Second())
        registry.register(Store())
        await flow()
    assert events == ["store begins", "score stored", "second", "plain", "run ended"]


# -- its statistics ------------------------------------------------------------------------------


async def test_what_was_reported_last_is_what_the_end_gets(listener, stats):
    last = FinetuneStats(1, 1, 1.0, 1.0, 1, 1, None, 0.1)
    async with open_registry(listener) as registry, registry.run("go"):
        registry.report(stats())
        await asyncio.to_thread(registry.report, last)
    assert listener.run_ends[0][0] is last


async def test_a_report_outside_of_a_run_or_after_its_end_is_refused(stats):
    async with open_registry() as registry:
        with pytest.raises(MindhooksError, match="no run is open"):
            registry.report(stats())

        async def late():
            await ended.wait()
            registry.report(stats())

        ended = asyncio.Event()
        async with registry.run("go"):
            child = asyncio.create_task(late())
        ended.set()
        with pytest.raises(MindhooksError, match="has ended"):
            await child


async def test_no_run_is_opened_in_a_closed_registry():
    registry = open_registry()
    await registry.aclose()
    with pytest.raises(MindhooksError, match="closed"):
        async with registry.run("go"):
            pass


# -- its end, however it ended -------------------------------------------------------------------


async def test_a_failed_run_has_an_end_and_its_error_goes_on(listener, stats, complaints):
    async with open_registry(listener) as registry:

        async def flow():
            async with registry.run("go"):
                registry.report(stats())
                raise ValueError("no")

        registry.task_handle("flow").trigger(flow)
        await registry.wait_idle()
        assert str(registry.task_errors()["flow"]) == "no"
    assert [it[0] for it in listener.run_ends] == [stats()]


async def until_cancelled(registry, begun, *, report=None):
    async with registry.run("go"):
        if report is not None:
            registry.report(report)
        begun.set()
        await asyncio.Event().wait()


async def test_a_cancelled_run_has_an_end(listener, stats):
    begun = asyncio.Event()
    async with open_registry(listener) as registry:
        handle = registry.task_handle("flow")
        handle.trigger(lambda: until_cancelled(registry, begun, report=stats()))
        await begun.wait()
        await handle.cancel()
        assert [it[0] for it in listener.run_ends] == [stats()]


async def test_a_task_of_the_hosts_own_that_is_cancelled_has_an_end(listener):
    begun = asyncio.Event()
    async with open_registry(listener) as registry:
        task = asyncio.create_task(until_cancelled(registry, begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(listener.run_ends) == 1


@pytest.mark.parametrize("kind", ["plain", "queued", "awaited"])
async def test_a_voided_runs_end_is_told_before_the_next_run_begins(kind, settle):
    events, begun = [], asyncio.Event()

    def end(run):
        events.append(f"{run.command} ended")

    if kind == "plain":
        plugin = SimpleNamespace(on_run_end=hookimpl(end))
    else:

        async def on_run_end(run):
            if kind == "awaited":
                await asyncio.sleep(0.01)
            end(run)

        plugin = SimpleNamespace(on_run_end=hookimpl(tryfirst=kind == "awaited")(on_run_end))
    async with open_registry(plugin) as registry:

        async def old():
            async with registry.run("old"):
                begun.set()
                await asyncio.Event().wait()

        async def new():
            # Queued listeners are told in time, but nobody waits for them.
            await settle()
            events.append("new begins")
            async with registry.run("new"):
                pass

        handle = registry.task_handle("flow")
        handle.trigger(old)
        await begun.wait()
        assert handle.trigger(new) is Trigger.RESTARTED
        await registry.wait_idle()
    assert events == ["old ended", "new begins", "new ended"]


@pytest.mark.parametrize("kind", ["plain", "queued", "awaited"])
async def test_the_end_of_a_run_that_aclose_cancels_is_told_during_aclose(kind, stats):
    events, begun = [], asyncio.Event()

    class Plain:
        @hookimpl
        def on_run_end(self, stats):
            events.append(stats)

    class Queued:
        @hookimpl
        async def on_run_end(self, stats):
            await asyncio.sleep(0.01)
            events.append(stats)

    class Awaited:
        @hookimpl(tryfirst=True)
        async def on_run_end(self, stats):
            await asyncio.sleep(0.01)
            events.append(stats)

    plugin = {"plain": Plain, "queued": Queued, "awaited": Awaited}[kind]()
    async with open_registry(plugin) as registry:
        flow = until_cancelled(registry, begun, report=stats())
        registry.task_handle("flow").trigger(lambda: flow)
        await begun.wait()
        await registry.aclose()
        assert events == [stats()]


async def test_the_end_of_a_run_that_outlives_aclose_is_told_during_it_and_once(listener, stats):
    registry = open_registry(listener)
    async with registry.run("outer") as outer, registry.run("inner") as inner:
        registry.report(stats())
        await registry.aclose()
        ends = [(stats(), inner), (None, outer)]
        assert listener.run_ends == ends
    assert listener.run_ends == ends


async def test_the_end_is_told_to_all_although_the_run_is_cancelled_meanwhile(listener, settle):
    busy, gate = asyncio.Event(), asyncio.Event()

    class Slow:
        @hookimpl(tryfirst=True)
        async def on_run_end(self):
            busy.set()
            await gate.wait()

    async with open_registry(listener) as registry:
        registry.register(Slow())

        async def flow():
            async with registry.run("go"):
                pass
            raise AssertionError("cancelled")

        handle = registry.task_handle("flow")
        handle.trigger(flow)
        await busy.wait()
        ending = asyncio.create_task(handle.cancel())
        await settle()
        assert not ending.done()
        gate.set()
        await ending
        assert handle.error is None
        assert len(listener.run_ends) == 1


async def test_the_time_limit_bounds_how_long_a_runs_end_takes(listener, complaints):
    begun = asyncio.Event()

    class Stuck:
        @hookimpl(tryfirst=True)
        async def on_run_end(self):
            await asyncio.Event().wait()

    async with open_registry(listener, LIMIT) as registry:
        registry.register(Stuck(), name="stuck")
        handle = registry.task_handle("flow")
        handle.trigger(lambda: until_cancelled(registry, begun))
        await begun.wait()
        await asyncio.wait_for(handle.cancel(), 5)
        assert len(listener.run_ends) == 1
    [line] = complaints()
    assert line.startswith("plugin stuck (registered by hand): on_run_end: took longer than 0.1 s")


async def test_an_emission_in_flight_is_finished_before_the_end_is_told(score, settle):
    events, gate = [], asyncio.Event()

    class Store:
        @hookimpl(tryfirst=True)
        async def on_score(self):
            await gate.wait()
            events.append("score stored")

        @hookimpl(tryfirst=True)
        async def on_run_end(self):
            events.append("end stored")

    async with open_registry(Store()) as registry:

        async def flow():
            async with registry.run("go"):
                children.append(asyncio.create_task(registry.emit_score(score())))
                await asyncio.Event().wait()

        children = []
        handle = registry.task_handle("flow")
        handle.trigger(flow)
        await settle()
        ending = asyncio.create_task(handle.cancel())
        await settle()
        gate.set()
        await ending
        await asyncio.gather(*children)
    assert events == ["score stored", "end stored"]


async def test_what_an_end_listener_emits_is_told_although_the_run_is_voided(listener, candidate):
    begun = asyncio.Event()

    class Follows:
        @hookimpl(tryfirst=True)
        async def on_run_end(self, registry):
            await registry.emit_candidate(candidate())

    async with open_registry(listener) as registry:
        registry.register(Follows())
        handle = registry.task_handle("flow")
        handle.trigger(lambda: until_cancelled(registry, begun))
        await begun.wait()
        await handle.cancel()
    assert listener.candidates == [candidate()]


async def test_ends_are_told_in_the_order_of_all_hooks(listener):
    events = []

    class Plugin:
        @hookimpl
        async def on_run_end(self):
            events.append("queued")

        @hookimpl(specname="on_run_end")
        def plain(self):
            events.append("plain")

        @hookimpl(specname="on_run_end", tryfirst=True)
        async def awaited(self):
            await asyncio.sleep(0)
            events.append("awaited")

    async with open_registry(Plugin()) as registry:
        async with registry.run("go"):
            pass
        await registry.wait_idle()
    assert events == ["awaited", "plain", "queued"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()])
async def test_an_end_listener_that_fails_harms_nobody(error, listener, complaints):
    class Broken:
        @hookimpl
        def on_run_end(self):
            raise error

        @hookimpl(specname="on_run_end")
        async def queued(self):
            raise error

        @hookimpl(specname="on_run_end", tryfirst=True)
        async def awaited(self):
            raise error

    async with open_registry(listener) as registry:
        registry.register(Broken(), name="broken")
        async with registry.run("go"):
            pass
        await registry.wait_idle()
    assert len(listener.run_ends) == 1
    assert len(complaints()) == 3
    for line in complaints():
        assert line.startswith("plugin broken (registered by hand): on_run_end: ")
        assert type(error).__name__ in line


async def test_a_block_that_ends_in_another_context_than_it_began_in_ends_its_run(listener):
    async with open_registry(listener) as registry:
        block = registry.run("go")
        await asyncio.create_task(block.__aenter__())
        await asyncio.create_task(block.__aexit__(None, None, None))
    assert len(listener.run_ends) == 1


async def test_a_closed_registry_is_not_kept_alive(score, stats):
    kept = None

    async def use():
        nonlocal kept
        registry = open_registry(RecordingListener())
        async with registry, registry.run("go"):
            # What outlives a run, such as the timer of a shared connection pool.
            kept = asyncio.get_running_loop().call_later(600, print)
            await registry.emit_score(score())
            registry.report(stats())
        return weakref.ref(registry)

    registry = await asyncio.create_task(use())
    gc.collect()
    assert registry() is None
    kept.cancel()


async def test_a_closed_registry_is_not_kept_alive_by_the_task_that_emitted(
    score, candidate, stats
):
    async def use():
        registry = open_registry(RecordingListener())

        registry.register(QueuedFollower(candidate()))
        registry.register(AwaitedFollower(candidate()))
        registry.register(PlainFollower(candidate()))
        async with registry:
            await registry.emit_score(score())
            async with registry.run("go"):
                await registry.emit_candidate(candidate())
                registry.report(stats())
            await registry.wait_idle()
        return weakref.ref(registry)

    # In this task itself, which goes on, and so keeps its context.
    registry = await use()
    gc.collect()
    assert registry() is None


async def test_a_failure_is_not_lost_when_the_run_is_replaced_while_its_end_is_told(caplog):
    class Slow:
        @hookimpl(tryfirst=True)
        async def on_run_end(self):
            telling.set()
            await asyncio.sleep(0.05)

    async def failing():
        async with registry.run("x"):
            raise ValueError("boom")

    async def nothing():
        handle.error = handle.error

    telling = asyncio.Event()
    async with open_registry() as registry:
        registry.register(Slow())
        handle = registry.task_handle("h")
        handle.trigger(failing)
        await telling.wait()
        handle.trigger(nothing)
        await registry.wait_idle()
        assert repr(handle.error) == "ValueError('boom')"
    assert "boom" in caplog.text


async def test_a_plain_listener_that_voids_the_run_is_the_last_to_hear_of_it(score):
    class Voids:
        @hookimpl(tryfirst=True)
        def on_score(self):
            handle.trigger(nothing)

    async def emitting():
        await registry.emit_score(score)

    async def nothing():
        pass

    listener = RecordingListener()
    async with open_registry(listener) as registry:
        registry.register(Voids())
        handle = registry.task_handle("h")
        handle.trigger(emitting)
        await registry.wait_idle()
    assert listener.scores == []
