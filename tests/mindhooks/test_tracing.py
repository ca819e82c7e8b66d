"""Logger ``mindhooks.trace``: one line for each hook call."""

import asyncio
import logging
import re
from types import SimpleNamespace

import pytest

from mindhooks import (
    MemoryScore,
    MindCommand,
    Registry,
    ThreadedRegistry,
    Trigger,
    UnhandledCommand,
    hookimpl,
)
from mindhooks.testing import RecordingListener, StubMind

SECRET = "the user's secret"


@pytest.fixture
def trace(caplog):
    """Every line so far, times replaced by ``T``."""
    caplog.set_level(logging.DEBUG, logger="mindhooks.trace")

    def lines():
        found = [it.getMessage() for it in caplog.records if it.name == "mindhooks.trace"]
        assert all(len(line.splitlines()) == 1 for line in found)
        return [re.sub(r"\b\d+\.\d ms", "T", line) for line in found]

    return lines


def trigger(answer):
    """A plugin that answers every command so."""

    @hookimpl
    def on_trigger():
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return SimpleNamespace(on_trigger=on_trigger)


async def test_a_command_is_traced_with_what_each_plugin_returned_in_order(trace):
    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger(Trigger.BUSY), name="last")
        registry.register(trigger(None), name="middle")
        registry.register(trigger(Trigger.STARTED), name="first")
        registry.dispatch(MindCommand.SCORE)
    assert trace() == [
        (
            "trace: on_trigger('score') in T: first returned started (T), "
            "middle returned None (T), last returned busy (T)"
        )
    ]


async def test_a_command_that_nobody_took_is_traced_too(trace):
    async with Registry(StubMind(), {}) as registry:
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
        registry.register(trigger(None), name="idle")
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
    assert trace() == [
        "trace: on_trigger('go') in T: nobody is listening",
        "trace: on_trigger('go') in T: idle returned None (T)",
    ]


async def test_what_was_raised_and_what_was_no_answer_are_traced_by_type_alone(trace):
    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger(ValueError(SECRET)), name="loud")
        registry.register(trigger(SECRET), name="chatty")
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
    assert trace() == [
        "trace: on_trigger('go') in T: chatty returned str (T), loud raised ValueError (T)"
    ]


async def test_listeners_are_traced_as_awaited_called_and_queued(
    emit, plain, asynchronous, settle, trace
):
    async def hear(label):
        await asyncio.sleep(0)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear), name="queued")
        registry.register(plain(lambda label: SECRET), name="plain")
        registry.register(asynchronous(hear, tryfirst=True), name="awaited")
        await emit(registry, "a")
        await registry.wait_idle()
        await emit(registry, "b")
    for line, label in zip(trace(), "ab", strict=True):
        told = "awaited awaited (T), plain returned str (T), queued queued"
        if line.startswith("trace: on_score("):
            assert line == f"trace: on_score('{label}', 1.0) in T: {told}"
        else:
            assert line == f"trace: on_candidate('{label}') in T: {told}"


async def test_the_end_of_a_run_is_traced_with_its_command_and_the_kind_of_its_statistics(
    trace, stats
):
    async with Registry(StubMind(), {}) as registry:
        registry.register(RecordingListener(), name="listener")
        async with registry.run("go", uses_scorer=False):
            registry.report(stats())
        async with registry.run("go", uses_scorer=False):
            pass
    assert trace() == [
        "trace: on_run_end('go', 'MemoryStats') in T: listener returned None (T)",
        "trace: on_run_end('go', None) in T: listener returned None (T)",
    ]


async def test_a_call_within_a_call_has_a_line_of_its_own(trace):
    class Nested:
        @hookimpl
        def on_trigger(self, command, registry):
            if command == "outer":
                return registry.dispatch("inner")["leaf"]
            return None

    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger(Trigger.STARTED), name="leaf")
        registry.register(Nested(), name="nested")
        registry.dispatch("outer")
    assert trace() == [
        "trace: on_trigger('inner') in T: nested returned None (T), leaf returned started (T)",
        "trace: on_trigger('outer') in T: nested returned started (T), leaf returned started (T)",
    ]


async def test_an_awaited_listener_that_is_given_up_is_in_the_line(trace, asynchronous, score):
    async def forever(label):
        await asyncio.Event().wait()

    settings = {"plugins": {"listener_timeout_s": 0.01}}
    async with Registry(StubMind(), settings) as registry:
        registry.register(asynchronous(forever, tryfirst=True), name="stuck")
        await registry.emit_score(score("k"))
    assert trace() == ["trace: on_score('k', 1.0) in T: stuck awaited (T)"]


async def test_emissions_that_are_dropped_are_not_traced(trace, score):
    registry = Registry(StubMind(), {})
    await registry.aclose()
    await registry.emit_score(score("k"))
    assert trace() == []


async def test_keys_and_commands_are_shortened_and_on_one_line(trace):
    async with Registry(StubMind(), {}) as registry:
        await registry.emit_score(MemoryScore("a\nb" + 100 * "c", 1.0, "incremental", ()))
        with pytest.raises(UnhandledCommand):
            registry.dispatch(1000 * "x")
    assert all(len(line) < 130 for line in trace())
    assert trace()[0].startswith(r"trace: on_score('a\nbccc")


async def test_nothing_is_traced_unless_it_is_asked_for(caplog, score):
    caplog.set_level(logging.INFO, logger="mindhooks.trace")
    async with Registry(StubMind(), {}) as registry:
        registry.register(RecordingListener())
        await registry.emit_score(score("k"))
    assert caplog.records == []


def test_a_registry_in_a_thread_is_traced_as_well(trace):
    with ThreadedRegistry(StubMind(), {}) as registry:
        registry.register(trigger(Trigger.STARTED), name="mine")
        registry.dispatch("go")
    assert trace() == ["trace: on_trigger('go') in T: mine returned started (T)"]
