"""``registry.plugin_manager`` is pluggy's, and what pluggy says of the plugins is true."""

import asyncio
from types import SimpleNamespace

import pluggy
import pytest

import mindhooks
from mindhooks import PluginError, Registry, Trigger, UnhandledCommand, hookimpl
from mindhooks.testing import RecordingListener, StubMind

SPECS = {
    "on_trigger": ("command", "mind", "registry"),
    "on_score": ("score", "mind", "registry", "run"),
    "on_candidate": ("candidate", "mind", "registry", "run"),
    "on_run_end": ("stats", "mind", "registry", "run"),
}


@pytest.fixture
def registry():
    return Registry(StubMind(), {})


@pytest.fixture
def manager(registry):
    return registry.plugin_manager


async def emit(registry, score):
    await registry.emit_score(score)
    await registry.wait_idle()


# -- specs and plugins ---------------------------------------------------------------------------


def test_it_is_a_plugin_manager_of_the_project_with_exactly_the_four_specs(manager):
    assert isinstance(manager, pluggy.PluginManager)
    assert manager.project_name == "mindhooks"
    hooks = {name for name in vars(manager.hook) if not name.startswith("_")}
    assert hooks == SPECS.keys()
    for name, argnames in SPECS.items():
        spec = getattr(manager.hook, name).spec
        assert spec.argnames == argnames
        assert not spec.opts["firstresult"]
    manager.check_pending()


def test_a_plugin_is_registered_as_it_is_under_its_name(registry, manager):
    plugin = RecordingListener()
    registry.register(plugin, name="mine")
    assert manager.get_plugin("mine") is plugin
    assert manager.get_name(plugin) == "mine"
    assert manager.is_registered(plugin)
    assert manager.has_plugin("mine")
    assert manager.get_plugins() == {plugin}
    assert manager.list_name_plugin() == [("mine", plugin)]
    found = {it.name for it in manager.get_hookcallers(plugin)}
    assert found == {"on_score", "on_candidate", "on_run_end"}
    manager.check_pending()


def test_an_entry_points_plugin_is_registered_under_its_entry_points_name(
    distributions, registry, manager
):
    source = """
        class Plugin:
            def __init__(self, table): pass
        instance = Plugin({})
    """
    targets = {"made": "acme_plugin:Plugin", "instance": "acme_plugin:instance"}
    distributions.install("acme", targets, version="2.7", acme_plugin=source)
    registry.load_entry_points()
    import acme_plugin

    assert type(manager.get_plugin("made")) is acme_plugin.Plugin
    assert manager.get_plugin("instance") is acme_plugin.instance
    registry.register(RecordingListener(), name="by hand")
    listed = [
        (plugin, info.project_name, info.version) for plugin, info in manager.list_plugin_distinfo()
    ]
    made = manager.get_plugin("made")
    assert listed == [(acme_plugin.instance, "acme", "2.7"), (made, "acme", "2.7")]
    manager.unregister(made)
    assert [plugin for plugin, _ in manager.list_plugin_distinfo()] == [acme_plugin.instance]
    [(plugin, distribution)] = manager.list_plugin_distributions()
    assert (plugin, distribution.metadata["Name"]) == (acme_plugin.instance, "acme")


def test_pluggys_implementations_are_the_plugins_own_functions_with_their_marks(registry, manager):
    class Plugin:
        @hookimpl(tryfirst=True)
        async def on_score(self, score, run):
            pass

        @hookimpl(trylast=True)
        def on_trigger(self):
            pass

    plugin = Plugin()
    registry.register(plugin, name="mine")
    [found] = manager.hook.on_score.get_hookimpls()
    assert (found.plugin, found.plugin_name, found.tryfirst) == (plugin, "mine", True)
    assert found.function == plugin.on_score
    assert found.argnames == ("score", "run")
    [found] = manager.hook.on_trigger.get_hookimpls()
    assert found.trylast


async def test_a_plugin_registered_through_it_is_told_and_listed(registry, manager, score):
    plugin = RecordingListener()
    assert manager.register(plugin) == "RecordingListener"
    await emit(registry, score())
    assert plugin.scores == [score()]
    [info] = registry.plugins()
    assert (info.name, info.distribution, info.error) == ("RecordingListener", None, None)


def test_what_is_refused_is_refused_through_it_too_and_nothing_stays(registry, manager):
    class Wrong(RecordingListener):
        @hookimpl(specname="on_trigger")
        async def z_wrong(self):
            pass

    with pytest.raises(PluginError, match=r"plugin wrong .*on_trigger may not be async"):
        manager.register(Wrong(), "wrong")
    assert manager.list_name_plugin() == []
    assert all(getattr(manager.hook, name).get_hookimpls() == [] for name in SPECS)
    with pytest.raises(PluginError, match="None is no plugin"):
        manager.register(None, "none")
    assert not manager.is_blocked("none")


def test_an_optional_hook_that_is_unknown_is_left_to_pluggy(registry, manager):
    plugin = SimpleNamespace(on_tomorrow=hookimpl(optionalhook=True)(lambda weather: None))
    registry.register(plugin, name="mine")
    manager.check_pending()
    assert registry.plugins()[0].hooks == ()


@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}])
@pytest.mark.parametrize("hook", SPECS)
def test_a_wrapper_of_either_style_is_refused_with_what_to_use_instead(
    options, hook, registry, manager
):
    def wrapper():
        yield

    plugin = SimpleNamespace(**{hook: hookimpl(**options)(wrapper)})
    with pytest.raises(PluginError) as refused:
        registry.register(plugin, name="around")
    for words in (
        "plugin around",
        hook,
        "wrapper",
        "listener",
        "tryfirst=True",
        "flow of your own",
    ):
        assert words in str(refused.value)
    assert manager.list_name_plugin() == []


# -- leaving -------------------------------------------------------------------------------------


async def test_an_unregistered_plugin_hears_and_answers_no_more(registry, manager, score, stats):
    class Plugin(RecordingListener):
        @hookimpl
        def on_trigger(self):
            return Trigger.STARTED

    plugin, other = Plugin(), RecordingListener()
    registry.register(plugin, name="mine")
    registry.register(other, name="other")
    assert registry.dispatch("go") == {"mine": Trigger.STARTED}
    assert manager.unregister(name="mine") is plugin
    with pytest.raises(UnhandledCommand):
        registry.dispatch("go")
    async with registry.run("go", uses_scorer=False):
        await emit(registry, score())
    assert (plugin.scores, plugin.run_ends) == ([], [])
    assert (len(other.scores), len(other.run_ends)) == (1, 1)
    assert [info.name for info in registry.plugins()] == ["other"]
    assert manager.get_plugin("mine") is None


def test_a_plugin_without_hooks_is_no_longer_listed_once_it_is_unregistered(registry, manager):
    plugin = SimpleNamespace()
    registry.register(plugin, name="empty")
    manager.unregister(plugin)
    assert registry.plugins() == []
    assert manager.unregister(name="empty") is None


async def test_every_implementation_of_an_unregistered_plugin_is_silent(registry, manager, score):
    """pluggy before 1.7 leaves all but one of those for the same hook behind."""
    told = []

    class Plugin:
        @hookimpl
        def on_score(self):
            told.append("plain")

        @hookimpl(specname="on_score")
        def another(self):
            told.append("another")

        @hookimpl(specname="on_score")
        async def queued(self):
            told.append("queued")

        @hookimpl(specname="on_score", tryfirst=True)
        async def awaited(self):
            told.append("awaited")

    plugin = Plugin()
    registry.register(plugin, name="mine")
    await emit(registry, score())
    assert len(told) == 4
    manager.unregister(plugin)
    await emit(registry, score())
    assert len(told) == 4
    registry.register(plugin, name="again")
    await emit(registry, score())
    assert len(told) == 8


async def test_what_is_queued_for_a_plugin_is_forgotten_when_it_is_unregistered(
    registry, manager, score, settle
):
    gate, told = asyncio.Event(), []

    class Plugin:
        @hookimpl
        async def on_score(self, score):
            await gate.wait()
            told.append(score.key)

    plugin = Plugin()
    registry.register(plugin)
    for key in "abc":
        await registry.emit_score(score(key))
    await settle()
    manager.unregister(plugin)
    gate.set()
    await registry.wait_idle()
    assert told == ["a"]


async def test_a_listener_may_unregister_another_before_that_is_told(registry, manager, score):
    listener = RecordingListener()

    class Throws:
        @hookimpl(tryfirst=True)
        async def on_score(self):
            manager.unregister(listener)

    registry.register(listener)
    registry.register(Throws())
    await emit(registry, score())
    assert listener.scores == []


async def test_a_blocked_name_is_not_registered_and_listed_as_left_out(
    distributions, registry, manager, score
):
    distributions.install("acme", {"loud": "no_such_module"})
    plugin = RecordingListener()
    registry.register(plugin, name="mine")
    for name in ("mine", "loud"):
        manager.set_blocked(name)
    await emit(registry, score())
    assert plugin.scores == []
    registry.register(plugin, name="mine")
    registry.load_entry_points()
    await emit(registry, score())
    assert plugin.scores == []
    assert [(it.name, it.enabled, it.error) for it in registry.plugins()] == [
        ("mine", False, None),
        ("loud", False, None),
    ]
    assert manager.unblock("mine")
    registry.register(plugin, name="mine")
    await emit(registry, score())
    assert plugin.scores == [score()]


# -- what is listed ------------------------------------------------------------------------------


class Wrong:
    @hookimpl
    def on_tomorrow(self):
        pass


def rows(registry):
    return [(it.name, it.enabled, it.error is not None) for it in registry.plugins()]


def test_a_plugin_that_fails_again_and_again_is_listed_once(registry, manager):
    for _ in range(3):
        with pytest.raises(PluginError):
            registry.register(Wrong(), name="mine")
    assert rows(registry) == [("mine", True, True)]
    registry.register(RecordingListener(), name="mine")
    assert rows(registry) == [("mine", True, False)]
    with pytest.raises(PluginError, match="already called"):
        registry.register(RecordingListener(), name="mine")
    assert rows(registry) == [("mine", True, False), ("mine", True, True)]
    manager.unregister(name="mine")
    assert rows(registry) == []


def test_a_plugin_that_is_blocked_again_and_again_is_listed_once(registry, manager):
    registry.register(RecordingListener(), name="mine")
    for _ in range(3):
        manager.set_blocked("mine")
        registry.register(RecordingListener(), name="mine")
    assert rows(registry) == [("mine", False, False)]
    manager.unblock("mine")
    registry.register(RecordingListener(), name="mine")
    assert rows(registry) == [("mine", True, False)]


def test_an_entry_points_plugin_that_is_blocked_or_unregistered_is_listed_as_it_is(
    distributions, registry, manager
):
    targets = {"loud": "acme_plugin:loud", "quiet": "acme_plugin:quiet"}
    source = "from types import SimpleNamespace\nclass P: pass\nloud, quiet = P(), P()"
    distributions.install("acme", targets, acme_plugin=source)
    registry.load_entry_points()
    manager.set_blocked("loud")
    manager.unregister(name="quiet")
    assert rows(registry) == [("loud", False, False)]
    assert registry.plugins()[0].distribution == "acme"
    registry.load_entry_points()
    assert rows(registry) == [("loud", False, False), ("quiet", True, False)]


# -- arguments -----------------------------------------------------------------------------------


async def test_arguments_with_a_default_are_passed_where_the_hook_has_them(registry, score):
    told = []

    class Plugin:
        @hookimpl
        def on_score(self, score, run="older hosts have none", *, mind=None, other="mine"):
            told.append((score, run, mind, other))

    registry.register(Plugin())
    await emit(registry, score())
    assert told == [(score(), None, registry.mind, "mine")]


def test_a_class_in_place_of_its_instance_is_refused_with_a_hint(registry):
    with pytest.raises(PluginError, match="register an instance"):
        registry.register(RecordingListener)


# -- commands ------------------------------------------------------------------------------------


class Census:
    commands = ("census", mindhooks.MindCommand.SCORE)

    @hookimpl
    def on_trigger(self, command):
        return None


def test_a_plugin_may_name_its_commands_which_an_unhandled_command_lists(registry):
    registry.register(Census(), name="census")
    registry.register(RecordingListener(), name="quiet")
    assert [info.commands for info in registry.plugins()] == [("census", "score"), ()]
    with pytest.raises(UnhandledCommand, match=r"'sensus'.*: census, score$"):
        registry.dispatch("sensus")


def test_without_such_plugins_an_unhandled_command_lists_none(registry):
    with pytest.raises(UnhandledCommand, match=r"^no plugin took the command 'go'$"):
        registry.dispatch("go")


@pytest.mark.parametrize(
    ("commands", "named"),
    [
        (property(lambda self: 1 / 0), ()),
        ({"a": 1}, ("a",)),
        ({"b", "a"}, ("a", "b")),
        (dict.fromkeys("ba").keys(), ("a", "b")),
        ("score", ("score",)),
        (3, ()),
        (("a", 3), ("a",)),
        (["a", "b"], ("a", "b")),
    ],
)
def test_what_is_no_command_is_left_out_and_no_property_is_evaluated(commands, named, registry):
    registry.register(type("Plugin", (), {"commands": commands})())
    assert registry.plugins()[0].commands == named
