"""``mindhooks.testing``, the stub host that plugin authors test against: sections 1 and 3.4."""

from mindhooks import Context, MindState, Node, Registry, Role
from mindhooks.testing import RecordingListener, StubMind


async def test_a_stub_mind_gives_its_snapshot():
    assert await StubMind().context() == Context((), (), ())
    snapshot = Context((Node("n", Role.SYSTEM, "text", (1,)),), (), ())
    mind = StubMind(snapshot)
    assert await mind.context() is snapshot
    mind.snapshot = Context((), (), ())
    assert await mind.context() is mind.snapshot


def test_a_stub_mind_starts_with_an_empty_state():
    assert StubMind().state == MindState()


def test_a_stub_mind_counts_its_changes():
    mind = StubMind()
    mind.changed()
    mind.changed()
    assert mind.changes == 2


def test_a_stub_mind_keeps_its_activity_lines():
    mind = StubMind()
    with mind.activity("scoring") as activity:
        assert mind.open_activities == 1
        activity.update("scoring", 1, 2)
        with mind.activity("waiting"):
            assert mind.open_activities == 2
        activity.update("scoring", done=2, total=2)
    assert mind.open_activities == 0
    assert mind.lines == [
        ("scoring", None, None),
        ("scoring", 1, 2),
        ("waiting", None, None),
        ("scoring", 2, 2),
    ]


def test_an_activity_lets_an_exception_pass_and_ends():
    mind, caught = StubMind(), []
    try:
        with mind.activity("scoring"):
            raise KeyError("mine")
    except KeyError as error:
        caught.append(error)
    assert len(caught) == 1
    assert mind.open_activities == 0


async def test_a_recording_listener_keeps_what_it_is_told_in_order(score, candidate, stats):
    listener = RecordingListener()
    async with Registry(StubMind(), {}) as registry:
        registry.register(listener)
        for label in "ab":
            await registry.emit_score(score(label))
            async with registry.run("go", uses_scorer=False) as run:
                await registry.emit_candidate(candidate(label))
                registry.report(stats())
            assert listener.run_ends[-1] == (stats(), run)
            assert listener.runs[-1] is run
    assert listener.scores == [score("a"), score("b")]
    assert listener.candidates == [candidate("a"), candidate("b")]
    assert (len(listener.run_ends), len(listener.runs)) == (2, 2)
