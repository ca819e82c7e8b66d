"""Wrappers of both styles: section 3.1, *Isolation*."""

from types import SimpleNamespace

import pytest

from mindhooks import Registry, Trigger, UnhandledCommand, hookimpl
from mindhooks.testing import StubMind

STYLES = [{"wrapper": True}, {"hookwrapper": True}]
styles = pytest.mark.parametrize("style", STYLES, ids=["new", "old"])


def wrapper(around, **options):
    """A plugin that wraps both listening hooks with the generator function ``around(label)``."""

    @hookimpl(**options)
    def on_score(score):
        yield from around(score.key)

    @hookimpl(**options)
    def on_candidate(candidate):
        yield from around(candidate.node_id)

    return SimpleNamespace(on_score=on_score, on_candidate=on_candidate)


def trigger_wrapper(around, **options):
    @hookimpl(**options)
    def on_trigger(command):
        return (yield from around(command))

    return SimpleNamespace(on_trigger=on_trigger)


def answering(*answers):
    """A plugin whose on_trigger gives or raises one answer after the other."""
    left = list(answers)

    @hookimpl
    def on_trigger():
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return SimpleNamespace(on_trigger=on_trigger)


@styles
async def test_wrappers_enclose_the_plain_implementations(style, emit, plain):
    events = []

    def around(label):
        events.append(f"before {label}")
        yield
        events.append(f"after {label}")

    async with Registry(StubMind(), {}) as registry:
        registry.register(wrapper(around, **style), name="wrapper")
        registry.register(plain(events.append), name="plain")
        registry.register(plain(events.append, tryfirst=True), name="first")
        registry.register(plain(events.append, trylast=True), name="last")
        await emit(registry, "a")
    assert events == ["before a", "a", "a", "a", "after a"]


@styles
async def test_wrappers_enclose_the_queueing_of_async_implementations(
    style, emit, asynchronous, settle
):
    events = []

    def around(label):
        events.append("before")
        yield
        events.append("after")

    async def awaited(label):
        events.append("awaited")

    async def queued(label):
        events.append("queued")

    async with Registry(StubMind(), {}) as registry:
        registry.register(asynchronous(queued), name="queued")
        registry.register(asynchronous(awaited, tryfirst=True), name="awaited")
        registry.register(wrapper(around, **style), name="wrapper")
        await emit(registry, "a")
        await registry.wait_idle()
    assert events == ["awaited", "before", "after", "queued"]


async def test_wrappers_of_both_styles_are_nested_in_pluggys_order(emit, plain):
    events = []

    def named(name):
        def around(label):
            events.append(f"{name} in")
            yield
            events.append(f"{name} out")

        return around

    async with Registry(StubMind(), {}) as registry:
        registry.register(wrapper(named("new"), wrapper=True), name="new")
        registry.register(wrapper(named("old"), hookwrapper=True), name="old")
        registry.register(wrapper(named("first"), wrapper=True, tryfirst=True), name="first")
        registry.register(wrapper(named("last"), hookwrapper=True, trylast=True), name="last")
        registry.register(plain(lambda label: events.append("plain")), name="plain")
        await emit(registry, "a")
    inward = ["first in", "old in", "new in", "last in"]
    outward = ["last out", "new out", "old out", "first out"]
    assert events == [*inward, "plain", *outward]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), GeneratorExit()])
@styles
async def test_wrappers_see_no_exception(style, error, emit, plain, complaints):
    seen = []

    def fail(label):
        raise error

    def around(label):
        try:
            seen.append((yield))
        except BaseException as seen_error:
            seen.append(seen_error)
            raise

    async with Registry(StubMind(), {}) as registry:
        registry.register(wrapper(around, **style), name="wrapper")
        registry.register(plain(fail), name="broken")
        await emit(registry, "a")
    (result,) = seen
    if "hookwrapper" in style:
        assert result.exception is None
        result = result.get_result()
    assert result == []
    assert len(complaints()) == 1


@styles
async def test_a_wrapper_of_on_trigger_sees_what_was_answered(style):
    seen = []

    def around(command):
        outcome = yield
        seen.append(outcome.get_result() if "hookwrapper" in style else outcome)
        return outcome

    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger_wrapper(around, **style), name="wrapper")
        registry.register(answering(Trigger.BUSY, ValueError()), name="a")
        registry.register(answering(None, None), name="b")
        assert registry.dispatch("go") == {"a": Trigger.BUSY}
        with pytest.raises(UnhandledCommand):
            registry.dispatch("go")
    assert seen == [[Trigger.BUSY], []]


@pytest.mark.parametrize("answer", [None, [], "nonsense", Trigger.RESTARTED])
async def test_what_a_wrapper_returns_is_ignored(answer, complaints):
    def around(command):
        yield
        return answer

    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger_wrapper(around, wrapper=True), name="wrapper")
        registry.register(answering(Trigger.STARTED), name="a")
        assert registry.dispatch("go") == {"a": Trigger.STARTED}
    assert complaints() == []


@pytest.mark.parametrize(
    "meddle",
    [
        lambda result: result.force_result([Trigger.RESTARTED]),
        lambda result: result.force_exception(ValueError("forced")),
        lambda result: result.get_result().clear(),
    ],
    ids=["force_result", "force_exception", "clear"],
)
async def test_what_an_old_wrapper_forces_is_ignored(meddle, complaints):
    def around(command):
        meddle((yield))

    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger_wrapper(around, hookwrapper=True), name="wrapper")
        registry.register(answering(Trigger.STARTED), name="a")
        assert registry.dispatch("go") == {"a": Trigger.STARTED}
    assert complaints() == []


@pytest.mark.parametrize("change", [list.clear, lambda results: results.append("nonsense")])
async def test_what_a_new_wrapper_does_to_the_results_it_sees_is_ignored(change):
    def around(command):
        results = yield
        change(results)
        return results

    async with Registry(StubMind(), {}) as registry:
        registry.register(trigger_wrapper(around, wrapper=True), name="wrapper")
        registry.register(answering(Trigger.STARTED), name="a")
        assert registry.dispatch("go") == {"a": Trigger.STARTED}


def raises_before(label):
    raise RuntimeError("too early")
    yield


def raises_after(label):
    yield
    raise RuntimeError("too late")


def exits_before(label):
    raise SystemExit("out")
    yield


def exits_after(label):
    yield
    raise SystemExit("out")


def ends_before(label):
    return
    yield


def yields_twice(label):
    yield
    yield


def yields_twice_and_refuses_to_close(label):
    yield
    try:
        yield
    except GeneratorExit:
        yield


WRONG = {
    raises_before: "RuntimeError: too early",
    raises_after: "RuntimeError: too late",
    exits_before: "SystemExit: out",
    exits_after: "SystemExit: out",
    ends_before: "yield",
    yields_twice: "yielded twice",
    yields_twice_and_refuses_to_close: "RuntimeError",
}


@pytest.mark.parametrize(
    ("around", "said"), WRONG.items(), ids=[around.__name__ for around in WRONG]
)
@styles
async def test_a_wrapper_that_raises_or_does_not_yield_once_is_passed_over(
    style, around, said, emit, plain, asynchronous, complaints
):
    events = []

    def another(label):
        events.append("another in")
        yield
        events.append("another out")

    async def queued(label):
        events.append("queued")

    async with Registry(StubMind(), {}) as registry:
        registry.register(wrapper(another, wrapper=True), name="inner")
        registry.register(plain(lambda label: events.append("plain")), name="plain")
        registry.register(asynchronous(queued), name="queued")
        registry.register(wrapper(around, **style), name="broken")
        registry.register(wrapper(another, hookwrapper=True), name="outer")
        await emit(registry, "a")
        await registry.wait_idle()
    inside = ["another in", "another in", "plain", "another out", "another out"]
    assert events == [*inside, "queued"]
    (line,) = complaints()
    assert "plugin broken" in line
    assert "on_" in line
    assert said in line


@pytest.mark.parametrize("around", WRONG, ids=lambda around: around.__name__)
@styles
async def test_a_wrapper_of_on_trigger_that_is_passed_over_changes_no_answer(
    style, around, complaints
):
    async with Registry(StubMind(), {}) as registry:
        registry.register(answering(Trigger.STARTED), name="a")
        registry.register(trigger_wrapper(around, **style), name="broken")
        assert registry.dispatch("go") == {"a": Trigger.STARTED}
    (line,) = complaints()
    assert "on_trigger" in line


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@styles
def test_a_keyboard_interrupt_passes_from_a_wrapper(style, after):
    def around(command):
        if not after:
            raise KeyboardInterrupt
        yield
        raise KeyboardInterrupt

    registry = Registry(StubMind(), {})
    registry.register(answering(Trigger.STARTED), name="a")
    registry.register(trigger_wrapper(around, **style), name="wrapper")
    with pytest.raises(KeyboardInterrupt):
        registry.dispatch("go")


async def test_a_wrapper_may_take_fewer_arguments(emit):
    events = []

    @hookimpl(wrapper=True)
    def on_score():
        events.append("in")
        return (yield)

    @hookimpl(hookwrapper=True)
    def on_candidate(mind):
        events.append("in")
        yield

    async with Registry(StubMind(), {}) as registry:
        registry.register(SimpleNamespace(on_score=on_score, on_candidate=on_candidate))
        await emit(registry, "a")
    assert events == ["in"]
