"""Whatever a plugin does wrong stays with that plugin: section 3.1, *Isolation*."""

import asyncio
import logging
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from mindhooks import Registry, Trigger, UnhandledCommand, hookimpl
from mindhooks.testing import RecordingListener, StubMind


class OwnBase(BaseException):
    """Neither an Exception nor any of those that Python knows."""


class MuteError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self):
        raise ValueError("no text")


class WordlessError(Exception):
    def __str__(self):
        return None


ERRORS = {
    "ValueError": (lambda: ValueError("bad value"), "ValueError: bad value"),
    "SystemExit": (lambda: SystemExit(3), "SystemExit: 3"),
    "CancelledError": (asyncio.CancelledError, "CancelledError"),
    "GeneratorExit": (GeneratorExit, "GeneratorExit"),
    "OwnBase": (lambda: OwnBase("deep"), "OwnBase: deep"),
    "multi-line": (lambda: ValueError("one\ntwo\r\n\vthree\u2028four"), "one two three four"),
    "no text": (ValueError, "ValueError"),
    "text raises": (MuteError, "MuteError"),
    "text is none": (WordlessError, "WordlessError"),
    "group": (lambda: ExceptionGroup("many", [ValueError("a")]), "ExceptionGroup: many"),
}
errors = pytest.mark.parametrize(("error", "said"), ERRORS.values(), ids=ERRORS)


@errors
async def test_what_a_plain_listener_raises_is_logged_in_one_line_and_nobody_else_notices(
    error, said, emit, plain, asynchronous, complaints
):
    told = []

    def fail(label):
        raise error()

    async def note(label):
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(told.append), name="before")
        registry.register(asynchronous(note), name="queued")
        registry.register(plain(fail), name="broken")
        registry.register(plain(told.append), name="after")
        registry.register(asynchronous(note, tryfirst=True), name="awaited")
        assert await emit(registry, "a") is None
        await registry.wait_idle()
    assert told == ["a"] * 4
    (line,) = complaints()
    for word in ("plugin broken", "registered by hand", "on_", said):
        assert word in line


@pytest.mark.parametrize("tryfirst", [False, True], ids=["queued", "awaited"])
@errors
async def test_what_an_async_listener_raises_is_logged_in_one_line_and_nobody_else_notices(
    error, said, tryfirst, emit, plain, asynchronous, complaints
):
    told = []

    async def fail(label):
        await asyncio.sleep(0)
        raise error()

    async def note(label):
        told.append(label)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(note, tryfirst=tryfirst), name="before")
        registry.register(asynchronous(fail, tryfirst=tryfirst), name="broken")
        registry.register(asynchronous(note, tryfirst=tryfirst), name="after")
        registry.register(plain(told.append), name="plain")
        for label in "ab":
            assert await emit(registry, label) is None
        await registry.wait_idle()
    assert sorted(told) == ["a"] * 3 + ["b"] * 3
    first, second = complaints()
    assert first == second
    for word in ("plugin broken", "registered by hand", "on_", said):
        assert word in first


@errors
async def test_what_on_trigger_raises_is_logged_in_one_line_and_nobody_else_notices(
    error, said, complaints
):
    class Broken:
        @hookimpl
        def on_trigger(self):
            raise error()

    class Takes:
        @hookimpl
        def on_trigger(self, command):
            return Trigger.STARTED if command == "go" else None

    async with Registry(StubMind(), {}) as registry:
        registry.register(Takes(), name="a")
        registry.register(Broken(), name="broken")
        registry.register(Takes(), name="z")
        assert registry.dispatch("go") == {"a": Trigger.STARTED, "z": Trigger.STARTED}
        with pytest.raises(UnhandledCommand):
            registry.dispatch("stop")
    first, second = complaints()
    assert first == second
    for word in ("plugin broken", "registered by hand", "on_trigger", said):
        assert word in first


async def test_a_stop_iteration_is_logged_like_any_other(emit, plain, complaints):
    def fail(label):
        raise StopIteration("enough")

    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(fail))
        await emit(registry, "a")
    (line,) = complaints()
    assert "StopIteration: enough" in line


async def test_the_cancellation_of_another_task_that_a_listener_awaits_is_logged(
    emit, asynchronous, complaints
):
    async def hear(label):
        sleeper = asyncio.create_task(asyncio.sleep(10))
        sleeper.cancel()
        await sleeper

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear), name="queued")
        await emit(registry, "a")
        await registry.wait_idle()
    (line,) = complaints()
    assert "CancelledError" in line


async def test_a_run_goes_on_when_its_listeners_fail(emit, plain, asynchronous, complaints):
    done = []

    def fail(label):
        raise SystemExit(3)

    async def fail_too(label):
        raise asyncio.CancelledError

    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(fail), name="plain")
        registry.register(asynchronous(fail_too), name="queued")
        registry.register(asynchronous(fail_too, tryfirst=True), name="awaited")
        handle = registry.task_handle("flow")

        async def flow():
            for label in "abc":
                await emit(registry, label)
                done.append(label)

        handle.trigger(flow)
        await registry.wait_idle()
        assert handle.error is None
    assert done == ["a", "b", "c"]
    assert len(complaints()) == 9


async def test_a_plugin_of_a_distribution_is_named_with_its_distribution_and_version(
    distributions, score, candidate, complaints
):
    distributions.install(
        "acme-listeners",
        {"loud": "acme_listeners"},
        version="2.7",
        acme_listeners="""
            from mindhooks import hookimpl

            @hookimpl
            def on_trigger():
                raise ValueError("trigger")

            @hookimpl
            def on_score():
                raise ValueError("score")

            @hookimpl
            async def on_candidate():
                raise ValueError("candidate")
        """,
    )
    async with Registry(StubMind(), {}) as registry:
        registry.load_entry_points()
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
        await registry.emit_score(score())
        await registry.emit_candidate(candidate())
        await registry.wait_idle()
    expected = [("on_trigger", "trigger"), ("on_score", "score"), ("on_candidate", "candidate")]
    for line, (hook, text) in zip(complaints(), expected, strict=True):
        for word in ("loud", "acme-listeners", "2.7", hook, f"ValueError: {text}"):
            assert word in line


async def test_a_traceback_is_logged_at_debug_level_only(emit, plain, caplog):
    error = ValueError("bad")

    def fail(label):
        raise error

    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(fail))
        caplog.set_level(logging.INFO, logger="mindhooks")
        await emit(registry, "a")
        caplog.set_level(logging.DEBUG, logger="mindhooks")
        await emit(registry, "a")
    without, with_it = (record for record in caplog.records if record.name == "mindhooks")
    assert not without.exc_info
    assert with_it.exc_info[1] is error


# -- KeyboardInterrupt ------------------------------------------------------------------------


def interrupt(*_):
    raise KeyboardInterrupt


async def test_a_keyboard_interrupt_passes_from_on_trigger():
    async with Registry(StubMind(), {}) as registry:
        registry.register(SimpleNamespace(on_trigger=hookimpl(lambda: interrupt())))
        with pytest.raises(KeyboardInterrupt):
            registry.dispatch("go")


async def test_a_keyboard_interrupt_passes_from_a_plain_listener(emit, plain):
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(interrupt))
        with pytest.raises(KeyboardInterrupt):
            await emit(registry, "a")


@pytest.mark.parametrize("tryfirst", [False, True], ids=["queued", "awaited"])
def test_a_keyboard_interrupt_passes_from_an_async_listener(
    tryfirst, emit, asynchronous, complaints
):
    async def fail(label):
        raise KeyboardInterrupt

    async def main():
        registry = Registry(StubMind(), {})
        registry.register(asynchronous(fail, tryfirst=tryfirst))
        await emit(registry, "a")
        await registry.wait_idle()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert complaints() == []


def test_a_keyboard_interrupt_passes_while_aclose_ends_a_run(complaints):
    async def main():
        registry = Registry(StubMind(), {})
        registry.register(SimpleNamespace(on_run_end=hookimpl(lambda: interrupt())))
        async with registry.run("go", uses_scorer=False):
            await registry.aclose()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert complaints() == []


@pytest.mark.parametrize("tryfirst", [False, True], ids=["queued", "awaited"])
async def test_a_listener_that_cancels_itself_is_logged_and_told_of_what_comes_next(
    tryfirst, emit, asynchronous, plain, complaints
):
    told = []

    async def hear(label):
        told.append(label)
        if label == "a":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear, tryfirst=tryfirst), name="cancels")
        registry.register(plain(told.append), name="plain")
        for label in "ab":
            await emit(registry, label)
        await registry.wait_idle()
    assert sorted(told) == ["a", "a", "b", "b"]
    [line] = complaints()
    assert line.startswith("plugin cancels (registered by hand): on_")
    assert "CancelledError" in line


@pytest.mark.parametrize("error", ["SystemExit(3)", "asyncio.CancelledError()", "Mute()"])
def test_a_plugin_never_changes_an_exit_status(error):
    program = """
        import asyncio
        from mindhooks import MemoryScore, Registry, Trigger, hookimpl
        from mindhooks.testing import StubMind

        class Mute(Exception):
            def __str__(self):
                raise SystemExit(3)

        class Plugin:
            @hookimpl
            def on_score(self):
                raise ERROR

            @hookimpl(specname="on_score")
            async def queued(self):
                raise ERROR

            @hookimpl(specname="on_score", tryfirst=True)
            async def awaited(self):
                raise ERROR

            @hookimpl
            def on_trigger(self, registry):
                return registry.task_handle("flow").trigger(self.flow)

            async def flow(self):
                raise ERROR

        async def main():
            async with Registry(StubMind(), {}) as registry:
                registry.register(Plugin())
                registry.dispatch("go")
                await registry.emit_score(MemoryScore("k", 1.0, "full", ()))
                await registry.wait_idle()
            print("the end")

        asyncio.run(main())
    """
    source = textwrap.dedent(program).replace("ERROR", error)
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "the end\n")
    assert len(done.stderr.splitlines()) == 4


# -- who holds up the loop ------------------------------------------------------------------------


async def test_who_holds_up_the_event_loop_is_named(score, complaints, monkeypatch):
    monkeypatch.setattr("mindhooks._errors.LOOP_HOLD_LIMIT_S", 0.01)

    class Slow:
        @hookimpl
        def on_score(self):
            time.sleep(0.02)

    async with Registry(StubMind(), {}) as registry:
        registry.register(Slow(), name="slow")
        registry.register(RecordingListener(), name="quick")
        await registry.emit_score(score())
    [line] = complaints()
    assert line.startswith("plugin slow (registered by hand): on_score: held up the event loop for")
