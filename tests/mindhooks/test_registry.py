"""Registration by hand, commands, tasks and settings: section 3.3."""

import asyncio
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace

import pytest

from mindhooks import (
    MindCommand,
    MindhooksError,
    PluginError,
    Registry,
    Trigger,
    UnhandledCommand,
    hookimpl,
)
from mindhooks.testing import RecordingListener, StubMind


class Flow:
    """A plugin that answers ``command`` with a run that waits for ``gate``."""

    def __init__(self, command, gate=None):
        self.command, self.gate = command, gate
        self.runs = []

    @hookimpl
    def on_trigger(self, command, registry):
        if command != self.command:
            return None
        return registry.task_handle(self.command).trigger_if_idle(self.run)

    async def run(self):
        self.runs.append("begins")
        if self.gate is not None:
            await self.gate.wait()
        self.runs.append("ends")


# -- register ------------------------------------------------------------------------------------


async def test_a_host_may_register_itself_to_hear_scores_and_candidates(score, candidate):
    host = RecordingListener()
    async with Registry(StubMind(), {}) as registry:
        registry.register(host, name="host")
        await registry.emit_score(score())
        await registry.emit_candidate(candidate())
    assert (host.scores, host.candidates) == ([score()], [candidate()])


async def test_a_second_plugin_of_a_taken_name_is_refused(emit, plain):
    told = []
    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(lambda label: told.append("first")), name="mine")
        with pytest.raises(PluginError, match="mine"):
            registry.register(plain(lambda label: told.append("second")), name="mine")
        registry.register(plain(lambda label: told.append("third")), name="yours")
        await emit(registry, "a")
        assert [(info.name, info.error is None) for info in registry.plugins()] == [
            ("mine", True),
            ("mine", False),
            ("yours", True),
        ]
    assert told == ["third", "first"]


async def test_without_a_name_a_plugin_is_called_after_its_class():
    async with Registry(StubMind(), {}) as registry:
        registry.register(RecordingListener())
        with pytest.raises(PluginError, match="RecordingListener"):
            registry.register(RecordingListener())
        assert registry.plugins()[0].name == "RecordingListener"


async def test_a_plugin_or_one_equal_to_it_is_registered_once_as_pluggy_has_it(score):
    @dataclass
    class Plugin:
        place: str = "here"

        @hookimpl
        def on_score(self):
            calls.append(self.place)

    calls, plugin = [], Plugin()
    async with Registry(StubMind(), {}) as registry:
        registry.register(plugin, name="a")
        for again in (plugin, Plugin()):
            with pytest.raises(PluginError, match="is registered as 'a'"):
                registry.register(again, name="b")
        registry.register(Plugin("there"), name="b")
        await registry.emit_score(score())
    assert calls == ["there", "here"]


async def test_a_plugin_registered_by_hand_is_listed_without_a_distribution():
    async with Registry(StubMind(), {}) as registry:
        assert registry.plugins() == []
        registry.register(RecordingListener(), name="host")
        (info,) = registry.plugins()
    assert (info.name, info.distribution, info.version) == ("host", None, None)
    assert set(info.hooks) == {"on_score", "on_candidate", "on_run_end"}
    assert (info.commands, info.enabled, info.error) == ((), True, None)


async def test_what_plugins_returns_is_the_callers_own_list():
    async with Registry(StubMind(), {}) as registry:
        registry.register(RecordingListener())
        registry.plugins().clear()
        assert len(registry.plugins()) == 1


async def test_disabled_names_no_plugin_that_is_registered_by_hand(score):
    heard = RecordingListener()
    async with Registry(StubMind(), {"plugins": {"disabled": ["host"]}}) as registry:
        registry.register(heard, name="host")
        await registry.emit_score(score())
    assert heard.scores == [score()]


async def test_a_plugin_registered_later_hears_what_comes_later(score):
    heard = RecordingListener()
    async with Registry(StubMind(), {}) as registry:
        await registry.emit_score(score("early"))
        registry.register(heard)
        await registry.emit_score(score("late"))
    assert heard.scores == [score("late")]


# -- dispatch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", list(MindCommand))
async def test_dispatch_says_which_plugin_did_what(command):
    flow = Flow(command, asyncio.Event())
    async with Registry(StubMind(), {}) as registry:
        registry.register(flow, name="mine")
        registry.register(Flow("another"), name="another")
        assert registry.dispatch(command) == {"mine": Trigger.STARTED}
        assert registry.dispatch(str(command)) == {"mine": Trigger.BUSY}
        flow.gate.set()
        await registry.wait_idle()
    assert flow.runs == ["begins", "ends"]


async def test_dispatch_returns_at_once(settle):
    flow = Flow("go", asyncio.Event())
    async with Registry(StubMind(), {}) as registry:
        registry.register(flow)
        registry.dispatch("go")
        assert flow.runs == []
        await settle()
        assert flow.runs == ["begins"]


async def test_several_plugins_may_answer_one_command_and_all_run():
    first, second = Flow("go"), Flow("go")
    # A handle each: two plugins that ask for the same name share its handle.
    second.on_trigger = hookimpl(
        lambda registry: registry.task_handle("second").trigger(second.run)
    )
    async with Registry(StubMind(), {}) as registry:
        registry.register(first, name="first")
        registry.register(second, name="second")
        assert registry.dispatch("go") == {"first": Trigger.STARTED, "second": Trigger.STARTED}
        await registry.wait_idle()
    assert first.runs == second.runs == ["begins", "ends"]


@pytest.mark.parametrize("command", ["my-command", "SCORE", "", "größe \n", "score-finetune "])
async def test_any_other_string_may_be_dispatched(command):
    seen = []

    @hookimpl
    def on_trigger(command):
        seen.append(command)
        return Trigger.RESTARTED

    async with Registry(StubMind(), {}) as registry:
        registry.register(SimpleNamespace(on_trigger=on_trigger), name="mine")
        assert registry.dispatch(command) == {"mine": Trigger.RESTARTED}
    assert seen == [command]


async def test_a_command_that_nobody_took_is_an_unhandled_command():
    async with Registry(StubMind(), {}) as registry:
        with pytest.raises(UnhandledCommand, match="score"):
            registry.dispatch(MindCommand.SCORE)
        registry.register(Flow("another"))
        with pytest.raises(UnhandledCommand, match="go"):
            registry.dispatch("go")


# -- tasks ---------------------------------------------------------------------------------------


async def test_a_task_handle_is_known_to_wait_idle(settle):
    gate = asyncio.Event()
    async with Registry(StubMind(), {}) as registry:
        handle = registry.task_handle("mine")
        assert registry.task_handle("mine") is handle
        assert registry.task_handle("yours") is not handle
        handle.trigger(gate.wait)
        idle = asyncio.create_task(registry.wait_idle())
        await settle()
        assert not idle.done()
        gate.set()
        await idle
        assert not handle.running


async def test_wait_idle_returns_at_once_when_there_is_nothing_to_wait_for():
    async with Registry(StubMind(), {}) as registry:
        await registry.wait_idle()
        registry.task_handle("idle")
        await registry.wait_idle()


async def test_wait_idle_waits_for_what_a_run_sets_going(emit, asynchronous):
    events = []
    async with Registry(StubMind(), {}) as registry:

        async def hear(label):
            events.append(f"{label} begins")
            await asyncio.sleep(0.01)
            events.append(f"{label} ends")
            if label == "first":
                registry.task_handle("second").trigger(lambda: emit(registry, "second"))

        registry.register(asynchronous(hear))
        registry.task_handle("first").trigger(lambda: emit(registry, "first"))
        await registry.wait_idle()
        assert events == ["first begins", "first ends", "second begins", "second ends"]


async def test_wait_idle_waits_for_a_queued_run(settle):
    events = []

    async def stubborn():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            events.append("old")

    async def fresh():
        await asyncio.sleep(0.01)
        events.append("fresh")

    async with Registry(StubMind(), {}) as registry:
        handle = registry.task_handle("flow")
        handle.trigger(stubborn)
        await settle()
        handle.trigger(fresh)
        await registry.wait_idle()
        assert events == ["old", "fresh"]


async def test_wait_idle_does_not_raise_what_a_run_raises(complaints):
    async def fail():
        raise SystemExit(3)

    async with Registry(StubMind(), {}) as registry:
        registry.task_handle("flow").trigger(fail)
        await registry.wait_idle()
        assert isinstance(registry.task_handle("flow").error, SystemExit)
    assert len(complaints()) == 1


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"plugins": {"listener_timeout_s": 1}, "server": {"scorer": "toy"}, "flow": 3},
        MappingProxyType({"plugins": MappingProxyType({})}),
    ],
)
async def test_settings_are_a_mapping_that_plugins_read_as_it_is(settings):
    registry = Registry(StubMind(), settings)
    assert registry.settings is settings


async def test_a_host_may_assign_the_settings_between_runs():
    seen = []
    async with Registry(StubMind(), {"flow": {"depth": 1}}) as registry:

        async def flow():
            seen.append(registry.settings["flow"]["depth"])

        handle = registry.task_handle("flow")
        handle.trigger(flow)
        await handle.wait()
        registry.settings = {"flow": {"depth": 2}}
        handle.trigger(flow)
        await handle.wait()
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"plugins": 3}, "plugins"),
        ({"plugins": ["a"]}, "plugins"),
        ({"server": "local"}, "server"),
        ({"server": {"scorer": 3}}, "server.scorer"),
        ({"server": {"scorer": None}}, "server.scorer"),
    ],
)
async def test_settings_that_the_registry_itself_cannot_use_are_refused(settings, named):
    with pytest.raises(MindhooksError, match=named):
        Registry(StubMind(), settings)
    registry = Registry(StubMind(), {})
    with pytest.raises(MindhooksError, match=named):
        registry.settings = settings
    assert registry.settings == {}


def test_a_registry_may_be_made_before_there_is_a_loop(score):
    registry = Registry(StubMind(), {})
    heard = RecordingListener()
    registry.register(heard)

    async def main():
        await registry.emit_score(score())
        await registry.aclose()

    asyncio.run(main())
    assert heard.scores == [score()]


async def test_wait_idle_waits_for_a_run_that_is_queued_behind_one_that_just_ended():
    async def run(number):
        started.append(number)
        last_act.set()

    started, last_act = [], asyncio.Event()
    async with Registry(StubMind(), {}) as registry:
        handle = registry.task_handle("h")
        handle.trigger(lambda: run(1))
        await last_act.wait()
        handle.trigger(lambda: run(2))
        await registry.wait_idle()
    assert started == [1, 2]


async def test_a_closed_registry_makes_no_plugins():
    registry = Registry(StubMind(), {})
    await registry.aclose()
    with pytest.raises(MindhooksError, match="closed"):
        registry.load_entry_points()


async def test_commands_in_a_slot_are_read():
    @dataclass(slots=True, eq=False)
    class Slotted:
        commands: tuple[str, ...] = ("dance",)

        @hookimpl
        def on_trigger(self, command):
            return None

    async with Registry(StubMind(), {}) as registry:
        registry.register(Slotted(), name="slotted")
        assert registry.plugins()[0].commands == ("dance",)
