"""Hook implementations, how they are called and which are refused: section 3.1."""

import asyncio
import functools
from types import ModuleType, SimpleNamespace

import pluggy
import pytest

from mindhooks import (
    MindCommand,
    MindhooksError,
    PluginError,
    Registry,
    Trigger,
    UnhandledCommand,
    hookimpl,
    hookspec,
)
from mindhooks.testing import RecordingListener, StubMind

other_hookimpl = pluggy.HookimplMarker("another_project")


def test_the_markers_belong_to_project_mindhooks():
    assert hookimpl.project_name == hookspec.project_name == "mindhooks"


# -- how the hooks are called ------------------------------------------------------------------


async def test_on_trigger_is_called_once_per_dispatched_command_for_every_plugin():
    calls = []

    class Plugin:
        def __init__(self, name):
            self.name = name

        @hookimpl
        def on_trigger(self, command, mind, registry):
            calls.append((self.name, command, mind, registry))
            return Trigger.STARTED

    mind = StubMind()
    async with Registry(mind, {}) as registry:
        registry.register(Plugin("a"), name="a")
        registry.register(Plugin("b"), name="b")
        registry.dispatch(MindCommand.SCORE)
        assert sorted(calls, key=lambda call: call[0]) == [
            ("a", MindCommand.SCORE, mind, registry),
            ("b", MindCommand.SCORE, mind, registry),
        ]


@pytest.mark.parametrize("tryfirst", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_on_score_and_on_candidate_are_called_once_each_with_what_was_found(
    is_async, tryfirst, score, candidate
):
    calls = []

    class Plain:
        @hookimpl(tryfirst=tryfirst)
        def on_score(self, score, mind):
            calls.append((score, mind))

        @hookimpl(tryfirst=tryfirst)
        def on_candidate(self, candidate, mind):
            calls.append((candidate, mind))

    class Async:
        @hookimpl(tryfirst=tryfirst)
        async def on_score(self, score, mind):
            calls.append((score, mind))

        @hookimpl(tryfirst=tryfirst)
        async def on_candidate(self, candidate, mind):
            calls.append((candidate, mind))

    mind = StubMind()
    async with Registry(mind, {}) as registry:
        registry.register(Async() if is_async else Plain())
        await registry.emit_score(score("a"))
        await registry.emit_candidate(candidate("b"))
        await registry.wait_idle()
        assert calls == [(score("a"), mind), (candidate("b"), mind)]


@pytest.mark.parametrize("taken", ["", "command", "mind", "registry", "registry, command"])
async def test_on_trigger_may_take_fewer_arguments(taken):
    plugin = {"calls": [], "Trigger": Trigger}
    exec(f"def on_trigger({taken}):\n    calls.append(({taken}))\n    return Trigger.BUSY", plugin)
    mind = StubMind()
    async with Registry(mind, {}) as registry:
        registry.register(SimpleNamespace(on_trigger=hookimpl(plugin["on_trigger"])), name="p")
        assert registry.dispatch("go") == {"p": Trigger.BUSY}
        everything = {"command": "go", "mind": mind, "registry": registry}
        expected = eval(f"({taken})", everything)
        assert plugin["calls"] == [expected]


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize("taken", ["", "found", "mind", "mind, found"])
async def test_a_listener_may_take_fewer_arguments(taken, prefix, score, candidate):
    calls = []
    source = f"{prefix}def listener({taken}):\n    calls.append(({taken}))"
    plugin = SimpleNamespace()
    for hook, argument in {"on_score": "score", "on_candidate": "candidate"}.items():
        names = {"calls": calls}
        exec(source.replace("found", argument), names)
        setattr(plugin, hook, hookimpl(names["listener"]))
    mind = StubMind()
    async with Registry(mind, {}) as registry:
        registry.register(plugin)
        await registry.emit_score(score())
        await registry.emit_candidate(candidate())
        await registry.wait_idle()
    assert calls == [
        eval(f"({taken})", {"mind": mind, "found": found}) for found in (score(), candidate())
    ]


async def test_an_argument_with_a_default_that_the_spec_lacks_keeps_it(score):
    calls = []

    class Plugin:
        @hookimpl
        def on_score(self, score, later="mine", *, much_later="too"):
            calls.append((score, later, much_later))

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin())
        await registry.emit_score(score())
    assert calls == [(score(), "mine", "too")]


async def test_arguments_are_passed_however_they_are_declared(score):
    mind, calls = StubMind(), []

    class Plugin:
        @hookimpl(specname="on_score")
        def positional(self, score, mind, /):
            calls.append((score, mind))

        @hookimpl(specname="on_score")
        def keywords(self, *, mind, score):
            calls.append((score, mind))

        @hookimpl(specname="on_score")
        def mixed(self, mind, /, *, score):
            calls.append((score, mind))

        @hookimpl(specname="on_score")
        def others(self, score, *args, mind, **kwargs):
            calls.append((score, mind))
            assert not args
            assert not kwargs

    async with Registry(mind, {}) as registry:
        registry.register(Plugin())
        await registry.emit_score(score())
    assert calls == [(score(), mind)] * 4


def passing_all(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


def by_position(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


@pytest.mark.parametrize("decorate", [passing_all, by_position, functools.lru_cache])
@pytest.mark.parametrize("declared", ["plain", "default", "slash"])
async def test_arguments_come_by_the_names_of_parameters_in_any_order_through_decorators(
    decorate, declared
):
    mind, calls = StubMind(), []

    def plain(run, mind, score):
        calls.append((run, mind, score))

    def default(run, mind, score, other="mine"):
        calls.append((run, mind, score))
        assert other == "mine"

    def slash(run, mind, /, score):
        calls.append((run, mind, score))

    function = {"plain": plain, "default": default, "slash": slash}[declared]
    plugin = type("Plugin", (), {"on_score": staticmethod(hookimpl(decorate(function)))})
    async with Registry(mind, {}) as registry:
        registry.register(plugin())
        await registry.emit_score("a score")
    assert calls == [(None, mind, "a score")]


async def test_what_comes_after_a_parameter_that_the_hook_lacks_comes_by_name():
    calls = []

    def on_score(score, other="mine", mind=None, *args, run="unknown", **kwargs):
        calls.append((score, other, mind, args, run, kwargs))

    mind = StubMind()
    async with Registry(mind, {}) as registry:
        registry.register(SimpleNamespace(on_score=hookimpl(on_score)))
        await registry.emit_score("a score")
    assert calls == [("a score", "mine", mind, (), None, {})]


async def test_what_a_listener_returns_is_ignored(emit, plain, asynchronous, complaints):
    told = []

    async def hear(label):
        told.append(label)
        return "something"

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(hear), name="queued")
        registry.register(asynchronous(hear, tryfirst=True), name="awaited")
        registry.register(plain(lambda label: told.append(label) or "something"), name="plain")
        assert await emit(registry, "a") is None
        await registry.wait_idle()
    assert told == ["a"] * 3
    assert complaints() == []


# -- what is an implementation ----------------------------------------------------------------


async def test_a_plugin_may_be_a_module(score):
    module, calls = ModuleType("plugin_module"), []

    @hookimpl
    def on_score(score):
        calls.append(score)

    module.on_score = on_score
    async with Registry(StubMind(), {}) as registry:
        registry.register(module)
        await registry.emit_score(score())
        assert [info.name for info in registry.plugins()] == ["plugin_module"]
    assert calls == [score()]


async def test_a_plugin_may_be_a_class(score):
    calls = []

    class Plugin:
        @staticmethod
        @hookimpl
        def on_score(score):
            calls.append(score)

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin)
        await registry.emit_score(score())
        assert [info.name for info in registry.plugins()] == ["Plugin"]
    assert calls == [score()]


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
@pytest.mark.parametrize("marker_above", [False, True])
async def test_a_static_or_class_method_is_an_implementation_marked_on_either_side(
    kind, marker_above, score
):
    calls = []
    if kind is staticmethod:

        def hear(score):
            calls.append(score)
    else:

        def hear(cls, score):
            calls.append(score)

    listener = hookimpl(kind(hear)) if marker_above else kind(hookimpl(hear))
    plugin = type("Plugin", (), {"on_score": listener})()
    async with Registry(StubMind(), {}) as registry:
        registry.register(plugin)
        await registry.emit_score(score())
    assert calls == [score()]


async def test_an_inherited_method_is_an_implementation(score):
    class Quiet(RecordingListener):
        pass

    heard = Quiet()
    async with Registry(StubMind(), {}) as registry:
        registry.register(heard)
        await registry.emit_score(score())
    assert heard.scores == [score()]


async def test_a_specname_says_which_hook_a_function_implements(score):
    calls = []

    class Plugin:
        @hookimpl(specname="on_score")
        def first(self, score):
            calls.append(("first", score))

        @hookimpl(specname="on_score")
        def second(self, score):
            calls.append(("second", score))

        @hookimpl(specname="on_score")
        def on_candidate(self, score):
            calls.append(("third", score))

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin())
        await registry.emit_score(score())
        assert [info.hooks for info in registry.plugins()] == [("on_score",)]
    assert sorted(name for name, _ in calls) == ["first", "second", "third"]


async def test_a_function_without_the_marker_implements_nothing(score):
    class Plugin:
        def on_score(self, score):
            raise AssertionError("not marked")

        @other_hookimpl
        def on_candidate(self, candidate):
            raise AssertionError("marked for another project")

        async def on_trigger(self, everything):
            raise AssertionError("not marked, so not refused either")

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin())
        assert [info.hooks for info in registry.plugins()] == [()]
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
        await registry.emit_score(score())


async def test_an_optional_hook_that_is_not_in_the_table_is_passed_over(score):
    calls = []

    class Plugin:
        @hookimpl(optionalhook=True)
        def on_tomorrow(self, weather):
            raise AssertionError("there is no such hook")

        @hookimpl(optionalhook=True)
        def on_score(self, score):
            calls.append(score)

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin())
        assert [info.hooks for info in registry.plugins()] == [("on_score",)]
        await registry.emit_score(score())
    assert calls == [score()]


async def test_registering_evaluates_no_property_of_the_plugin(score):
    evaluated = []

    class Descriptor:
        def __get__(self, instance, owner=None):
            evaluated.append("descriptor")
            raise RuntimeError

    class Plugin(RecordingListener):
        descriptor = Descriptor()

        @property
        def connection(self):
            evaluated.append("property")
            raise RuntimeError

        @functools.cached_property
        def table(self):
            evaluated.append("cached property")
            raise RuntimeError

        @property
        @hookimpl
        def on_trigger(self):
            evaluated.append("hook property")
            raise RuntimeError

        @property
        def __name__(self):
            evaluated.append("name")
            raise RuntimeError

    plugin = Plugin()
    async with Registry(StubMind(), {}) as registry:
        registry.register(plugin)
        await registry.emit_score(score())
    assert plugin.scores == [score()]
    assert evaluated == []


async def test_registering_a_plugin_with_a_slot_that_is_not_filled_yet_succeeds(score):
    calls = []

    class Plugin:
        __slots__ = ("connection",)

        @hookimpl
        def on_score(self, score):
            calls.append(score)

    async with Registry(StubMind(), {}) as registry:
        registry.register(Plugin())
        await registry.emit_score(score())
    assert calls == [score()]


# -- what is refused --------------------------------------------------------------------------


@hookimpl
async def async_on_trigger(command):
    return Trigger.STARTED


@hookimpl
async def async_generator_on_trigger(command):
    yield Trigger.STARTED


@hookimpl
def generator_on_trigger(command):
    yield Trigger.STARTED


@hookimpl
def unknown_hook(score):
    return None


@hookimpl
def unknown_argument(score, verdict):
    return None


@hookimpl
def unknown_keyword(score, *, verdict):
    return None


@hookimpl
def argument_of_another_hook(score, command):
    return None


@hookimpl
async def async_unknown_argument(score, verdict):
    return None


@hookimpl
def generator_listener(score):
    yield


@hookimpl
async def async_generator_listener(score):
    yield


@hookimpl
def argument_of_on_run_end(score, stats):
    return None


@hookimpl(wrapper=True)
def wrapper(score):
    return (yield)


@hookimpl(hookwrapper=True)
def old_wrapper(score):
    yield


@hookimpl(wrapper=True)
async def async_wrapper(score):
    return None


@hookimpl(wrapper=True)
def trigger_wrapper(command):
    return (yield)


@hookimpl
def positional_only_after_an_unknown_one(score, other=None, mind=None, /):
    return None


@hookimpl
def without_readable_signature(score):
    return None


without_readable_signature.__signature__ = "lost"


@hookimpl
@functools.wraps(lambda score, mind: None)
def decorator_that_takes_less(score):
    return None


WRONG = [
    ("on_score", positional_only_after_an_unknown_one, "'mind' is positional-only"),
    ("on_score", without_readable_signature, "on_score: its parameters cannot be read"),
    ("on_score", decorator_that_takes_less, "as its decorators leave it"),
    ("on_trigger", async_on_trigger, "on_trigger"),
    ("on_trigger", async_generator_on_trigger, "on_trigger"),
    ("on_trigger", generator_on_trigger, "on_trigger"),
    ("on_tomorrow", unknown_hook, "on_tomorrow"),
    ("on_score", hookimpl(specname="on_tomorrow")(lambda score: None), "on_tomorrow"),
    ("on_score", unknown_argument, "verdict"),
    ("on_score", unknown_keyword, "verdict"),
    ("on_score", argument_of_another_hook, "command"),
    ("on_score", async_unknown_argument, "verdict"),
    ("on_score", generator_listener, "on_score"),
    ("on_score", async_generator_listener, "on_score"),
    ("on_score", argument_of_on_run_end, "stats"),
    ("on_run_end", hookimpl(lambda stats, score: None), "score"),
    ("on_run_end", generator_listener, "on_run_end"),
    ("on_score", wrapper, "tryfirst=True"),
    ("on_candidate", old_wrapper, "tryfirst=True"),
    ("on_score", async_wrapper, "tryfirst=True"),
    ("on_run_end", old_wrapper, "tryfirst=True"),
    ("on_trigger", trigger_wrapper, "a flow of your own"),
]


class MostlyGood:
    """A plugin all of whose hooks are right, but for the one that a test adds."""

    def __init__(self):
        self.calls = []

    @hookimpl(specname="on_trigger")
    def a_trigger(self, command):
        self.calls.append(command)
        return Trigger.STARTED

    @hookimpl(specname="on_score")
    def a_score(self, score):
        self.calls.append(score)

    @hookimpl(specname="on_candidate")
    def z_candidate(self, candidate):
        self.calls.append(candidate)

    @hookimpl(specname="on_run_end")
    def z_run_end(self, stats):
        self.calls.append(stats)

    @hookimpl(specname="on_score", tryfirst=True)
    async def z_awaited(self, score):
        self.calls.append(score)


@pytest.mark.parametrize(("attribute", "function", "named"), WRONG)
async def test_a_wrong_implementation_is_an_error_of_that_plugin_and_nothing_of_it_stays(
    attribute, function, named, score, candidate
):
    plugin = MostlyGood()
    setattr(plugin, attribute, function)
    async with Registry(StubMind(), {}) as registry:
        heard = RecordingListener()
        registry.register(heard, name="innocent")
        with pytest.raises(PluginError) as refused:
            registry.register(plugin, name="wrong")
        assert "wrong" in str(refused.value)
        assert named in str(refused.value)
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
        await registry.emit_score(score())
        await registry.emit_candidate(candidate())
        await registry.wait_idle()
        assert plugin.calls == []
        assert (heard.scores, heard.candidates) == ([score()], [candidate()])
        info = registry.plugins()[-1]
        assert (info.name, info.hooks, info.enabled) == ("wrong", (), True)
        assert named in info.error


async def test_the_name_of_a_refused_plugin_is_still_free(score):
    heard = RecordingListener()
    async with Registry(StubMind(), {}) as registry:
        with pytest.raises(PluginError):
            registry.register(SimpleNamespace(on_tomorrow=unknown_hook), name="mine")
        registry.register(heard, name="mine")
        await registry.emit_score(score())
    assert heard.scores == [score()]


async def _coroutine():
    return Trigger.STARTED


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_coroutine, "coroutine"),
        (lambda: "started", "str"),
        (lambda: True, "bool"),
        (lambda: (item for item in [Trigger.STARTED]), "generator"),
        (lambda: asyncio.get_running_loop().create_future(), "Future"),
    ],
    ids=["coroutine", "str", "bool", "generator", "future"],
)
async def test_an_on_trigger_that_returns_something_else_is_an_error_of_that_plugin(
    make, said, complaints
):
    class Wrong:
        @hookimpl
        def on_trigger(self):
            return make()

    class Right:
        @hookimpl
        def on_trigger(self, command):
            return Trigger.BUSY if command == "go" else None

    async with Registry(StubMind(), {}) as registry:
        registry.register(Wrong(), name="wrong")
        registry.register(Right(), name="right")
        assert registry.dispatch("go") == {"right": Trigger.BUSY}
        with pytest.raises(UnhandledCommand):
            registry.dispatch("stop")
    first, second = complaints()
    assert first == second
    for word in ("plugin wrong", "on_trigger", said):
        assert word in first


async def test_a_plain_listener_that_returns_a_coroutine_is_an_error_of_that_plugin(
    emit, plain, complaints
):
    heard = []

    async def never_awaited():
        raise AssertionError

    async with Registry(StubMind(), {}) as registry:
        registry.register(plain(lambda label: never_awaited()), name="wrong")
        registry.register(plain(heard.append), name="right")
        await emit(registry, "a")
    assert heard == ["a"]
    (line,) = complaints()
    assert "plugin wrong" in line
    assert "async def" in line


async def test_a_refusal_is_a_mindhooks_error():
    async with Registry(StubMind(), {}) as registry:
        with pytest.raises(MindhooksError, match="on_tomorrow"):
            registry.register(SimpleNamespace(on_tomorrow=unknown_hook))
