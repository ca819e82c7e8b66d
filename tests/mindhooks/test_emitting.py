"""What a listener can know of the registry that tells it."""

import pytest

from mindhooks import MemoryScore, MindhooksError, Registry, emitting_registry, hookimpl
from mindhooks.testing import StubMind

SCORE = MemoryScore("k", 1.0, "full", ())


async def test_a_listener_of_any_kind_finds_the_registry_that_tells_it():
    found = []

    class Plain:
        @hookimpl
        def on_score(self):
            found.append(emitting_registry())

    class Queued:
        @hookimpl
        async def on_score(self):
            found.append(emitting_registry())

    class Awaited:
        @hookimpl(tryfirst=True)
        async def on_score(self):
            found.append(emitting_registry())

    async with Registry(StubMind(), {}) as registry:
        for plugin in (Plain(), Queued(), Awaited()):
            registry.register(plugin)
        await registry.emit_score(SCORE)
        await registry.wait_idle()
    assert found == [registry] * 3


async def test_there_is_none_while_nothing_is_emitted():
    with pytest.raises(MindhooksError):
        emitting_registry()


async def test_the_errors_of_failed_tasks_are_there_by_name():
    async def fail():
        raise ValueError("no")

    async def work():
        pass

    async with Registry(StubMind(), {}) as registry:
        registry.task_handle("bad").trigger(fail)
        registry.task_handle("good").trigger(work)
        await registry.wait_idle()
        [(name, error)] = registry.task_errors().items()
    assert (name, str(error)) == ("bad", "no")
