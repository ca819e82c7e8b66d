"""Runs, scores over time and the matrix's cells, as the store has them after real runs."""

import asyncio
import time
from dataclasses import replace

import pytest

from mindhooks import MemoryScore, MindCommand, Registry, ResponseDivergence
from mindhooks.testing import StubMind
from mindscore._util.errors import StoreError
from mindscore.config.settings import StoreSettings
from mindscore.flows.memory import MemoryScoring
from mindscore.store import Cell, Evidence, History, KnownConversation, RunRecord, Store, database

DAY_S = 24 * 3600


@pytest.fixture
def settings(url):
    return StoreSettings(url)


def run(started_at, **changes):
    values = {"command": "score", "model": "m", "seconds": 1.5, "calls": 2, "prompt_tokens": 10}
    values |= {"computed_tokens": None, "found": 1, "considered": 3, "error": None}
    return RunRecord(started_at=started_at, **values | changes)


async def test_every_score_is_a_point_with_the_weight_that_it_led_to(settings):
    store, before = Store(settings), time.time()
    for score in (4.0, 0.0, 2.0):
        await store.record_score(MemoryScore("tea", score, "incremental", ()), "m", 0.5)
    await store.record_score(MemoryScore("tea", 9.0, "incremental", ()), "other", 0.5)
    found = await History(settings).points("m", ["tea"], 9)
    others = await History(settings).points("other", ["tea"], 9)
    assert [(it.score, it.weight) for it in found["tea"]] == [(4, 4), (0, 2), (2, 2)]
    assert [(it.score, it.weight) for it in others["tea"]] == [(9, 9)]
    times = [it.scored_at for it in found["tea"]]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time()


async def test_what_is_forgotten_has_no_points_any_more(settings):
    store = Store(settings)
    for key in ("tea", "dog"):
        await store.record_score(MemoryScore(key, 1.0, "incremental", ()), "m", 0.5)
    assert await store.forget("tea") == 1
    points = await History(settings).points("m", ["tea", "dog"], 9)
    assert [key for key, its in points.items() if its] == ["dog"]


async def test_runs_come_newest_first_and_no_more_than_asked(settings):
    history, now = History(settings), time.time()
    for age in (3, 1, 2):
        await history.record_run(run(now - age, error=f"{age}"))
    assert [it.error for it in await history.runs()] == ["1", "2", "3"]
    assert await history.runs(limit=1) == [run(now - 1, error="1")]


async def test_runs_and_points_go_when_they_are_older_than_is_kept(tmp_path, monkeypatch):
    url, now = f"sqlite:///{tmp_path}/store.sqlite3", time.time()
    settings, forever = (StoreSettings(url, retention_days=days) for days in (2.0, 0.0))
    await History(forever).record_run(run(now - 3 * DAY_S))
    monkeypatch.setattr(time, "time", lambda: now - 3 * DAY_S)
    await Store(forever).record_score(MemoryScore("tea", 1.0, "incremental", ()), "m", 0.5)
    monkeypatch.undo()
    await History(settings).record_run(run(now))
    await Store(settings).record_score(MemoryScore("tea", 3.0, "incremental", ()), "m", 0.5)
    assert [it.started_at for it in await History(settings).runs()] == [now]
    [points] = (await History(settings).points("m", ["tea"], 9)).values()
    # The weight has a longer memory than the points.
    assert [(it.score, it.weight) for it in points] == [(3.0, 2.0)]


async def test_a_search_for_candidates_keeps_its_threshold_and_the_largest(settings):
    history = History(settings)
    search = run(9.0, command="score-finetune", threshold=5.0, max_divergence=2.5, sent_tokens=77)
    await history.record_run(search)
    assert await history.runs() == [search]
    assert await history.tokens_sent(10.0) == [(9.0, 77)]
    await history.record_run(run(8.0))
    await history.record_run(replace(search, started_at=7.0))
    assert await history.last_run("score-finetune", "m") == search
    assert await history.last_run("score-finetune", "other") is None
    assert sorted(await history.tokens_sent(10.0)) == [(7.0, 77), (8.0, 10), (9.0, 77)]


async def test_namespaces_do_not_see_each_other(tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    mine, other = StoreSettings(url), StoreSettings(url, "other")
    await History(mine).record_run(run(1.0))
    await Store(mine).record_score(MemoryScore("tea", 1.0, "incremental", ()), "m", 0.5)
    row = MemoryScore("tea", 1.0, "full", (ResponseDivergence(3, "n", 0.0, -1.0),))
    await Store(mine).record_row(row, "m")
    assert await History(other).runs() == []
    assert await History(other).points("m", ["tea"], 9) == {"tea": []}
    assert await History(other).cells("m", 100) == []
    assert await History(other).models() == []


async def test_cells_are_those_of_one_model(settings):
    for model, signed in (("m", -1.0), ("n", 2.0)):
        cells = (ResponseDivergence(3, "c3", max(0.0, signed), signed, 0.5),)
        await Store(settings).record_row(MemoryScore("tea", 0.0, "full", cells), model)
    [cell] = await History(settings).cells("m", 100)
    assert cell == Cell("tea", "c3", 3, 0.0, -1.0, 0.5, cell.scored_at)
    assert await History(settings).models() == ["m", "n"]


@pytest.mark.parametrize("is_later", [False, True])
async def test_an_estimate_is_a_cell_only_where_nothing_was_measured(settings, is_later):
    about = {"conversation": "c", "model": "m", "key": "tea", "text_hash": "h", "tokens": None}
    about |= {"hold": None, "noise": 0.3, "responded_at": None}
    times = {"full": 5.0, "estimate": 5.0 + (1 if is_later else -1)}
    await Store(settings).add_evidence(
        Evidence(node_id=id_, entry_idx=at, mode=mode, divergence=1.0, signed=1.0,
                 scored_at=times[mode], **about)
        for at, id_, mode in ((1, "a", "full"), (1, "a", "estimate"), (3, "b", "estimate"))
    )  # fmt: skip
    found = {it.node_id: it.mode for it in await History(settings).cells("m", None)}
    assert found == {"a": "full", "b": "estimate"}
    [known] = await History(settings).conversations()
    assert known.cells == 1


@pytest.mark.parametrize(
    ("command", "found", "considered"),
    [(MindCommand.SCORE, 1, 2), (MindCommand.SCORE_FULL, 2, 2), (MindCommand.SCORE_FINETUNE, 1, 1)],
)
async def test_a_run_is_kept_at_its_end(settings, two, command, found, considered):
    tables = {"server": {"scorer": "toy"}, "store": {"url": settings.url}}
    tables["finetune"] = {"threshold": 0.0}
    tables["memory"] = {"token_cutoff": 0.5}
    mind = StubMind(two.context())
    async with Registry(mind, tables) as registry:
        registry.load_entry_points()
        registry.dispatch(command)
        await registry.wait_idle()
    state = mind.state
    ended = state.memory_last_run or state.finetune_last_run
    [kept] = await History(settings).runs()
    assert (kept.command, kept.model, kept.error) == (command, "toy", None)
    assert (kept.calls, kept.prompt_tokens) == (ended.calls, ended.prompt_tokens)
    assert (kept.found, kept.considered) == (found, considered)
    assert kept.seconds == ended.seconds
    # The run begins a little later than what counts its seconds.
    assert abs(time.time() - kept.started_at - kept.seconds) < 60


async def test_a_run_that_fails_is_kept_with_what_failed(settings, two):
    tables = {"server": {"scorer": "local", "model": "/nowhere"}, "store": {"url": settings.url}}
    mind = StubMind(two.context())
    async with Registry(mind, tables) as registry:
        registry.load_entry_points()
        registry.dispatch(MindCommand.SCORE_FULL)
        await registry.wait_idle()
    [kept] = await History(settings).runs()
    assert kept.model == "/nowhere"
    assert kept.error == mind.state.memory_last_run.error
    assert kept.found == 0


async def test_without_the_recorder_no_run_is_kept(settings, two):
    tables = {"server": {"scorer": "toy"}, "store": {"url": settings.url}}
    async with Registry(StubMind(two.context()), tables) as registry:
        registry.register(MemoryScoring({}), name="memory-scoring")
        registry.dispatch(MindCommand.SCORE_FULL)
        await registry.wait_idle()
    assert await History(settings).runs() == []


@pytest.mark.parametrize("command", list(MindCommand))
@pytest.mark.parametrize("by", ["cancel", "aclose"])
async def test_a_run_that_is_cancelled_is_kept_as_cancelled(settings, two, command, by):
    tables = {"server": {"scorer": "toy"}, "store": {"url": settings.url}}
    reached = asyncio.Event()

    class Waits(StubMind):
        async def context(self):
            reached.set()
            await asyncio.Event().wait()

    async with Registry(Waits(two.context()), tables) as registry:
        registry.load_entry_points()
        [plugin] = registry.dispatch(command)
        await reached.wait()
        if by == "cancel":
            others = [it for it in MindCommand if it != command]
            assert [registry.cancel(it) for it in others] == [[], []]
            assert registry.cancel(command) == [plugin]
            await registry.wait_idle()
    [kept] = await History(settings).runs()
    assert (kept.command, kept.model, kept.error) == (command, "toy", "cancelled")


async def test_a_run_whose_store_is_broken_still_ends(tmp_path, two):
    file = tmp_path / "store.sqlite3"
    file.write_text("no database")
    tables = {"server": {"scorer": "toy"}, "store": {"url": f"sqlite:///{file}"}}
    mind = StubMind(two.context())
    async with Registry(mind, tables) as registry:
        registry.load_entry_points()
        registry.dispatch(MindCommand.SCORE_FULL)
        await registry.wait_idle()
        assert registry.task_errors() == {}
    assert "could not be kept" in mind.state.memory_last_run.error
    with pytest.raises(StoreError):
        await History(StoreSettings(f"sqlite:///{file}")).runs()


async def test_conversations_are_listed_by_model_the_newest_first(settings, monkeypatch):
    store, cell = Store(settings), ResponseDivergence(1, "n", 2.0, 2.0)
    assert await History(settings).conversations() == []
    kept = [("old", "m", "tea"), ("new", "m", "tea"), ("new", "other", "tea"), ("new", "m", "dog")]
    for now, (conversation, model, key) in enumerate(kept):
        monkeypatch.setattr("time.time", lambda now=now: 1000.0 + now)
        row = MemoryScore(key, 2.0, "full", (cell,))
        await store.record_row(row, model, conversation=conversation)
        score = MemoryScore(key, 2.0, "incremental", ())
        for text in ("one", "two"):
            await store.record_score(score, model, 0.5, conversation=conversation, text_hash=text)
    assert await History(settings).conversations() == [
        KnownConversation("new", "m", 2, 2, 0, 1003.0),
        KnownConversation("new", "other", 1, 1, 0, 1002.0),
        KnownConversation("old", "m", 1, 1, 0, 1000.0),
    ]


async def test_cells_can_be_of_one_conversation_and_of_texts(settings):
    store, history = Store(settings), History(settings)
    for size, (conversation, text) in enumerate([("one", "a"), ("one", "b"), ("two", "a")]):
        row = MemoryScore("tea", 1.0, "full", (ResponseDivergence(1, "n", size, size),))
        await store.record_row(row, "m", conversation=conversation, text_hash=text)
    assert [it.signed for it in await history.cells("m", 9, conversation="one")] == [1.0]
    for text, sizes in {"a": [0.0], "b": [1.0], "c": []}.items():
        its = await history.cells("m", None, conversation="one", texts={"tea": text})
        assert [(it.signed, it.text_hash) for it in its] == [(size, text) for size in sizes]


async def test_models_and_one_memorys_cells_are_found_among_all(settings):
    store, talks = Store(settings), ("", "a", "b")
    for model in ("m", "n", "o"):
        for talk in talks:
            for key in ("tea", "dog"):
                cell = ResponseDivergence(1, f"{talk}1", 1.0, 1.0)
                row = MemoryScore(key, 1.0, "full", (cell,))
                await store.record_row(row, model, conversation=talk)
    history = History(settings)
    assert await history.models() == ["m", "n", "o"]
    found = await history.cells("n", 9, ["tea"])
    assert [(it.key, it.conversation) for it in found] == [("tea", it) for it in ("b", "a", "")]
    assert [it.conversation for it in await history.cells("n", 2, ["tea"])] == ["b", "a"]
    assert {it.key for it in await history.cells("n", None, conversation="a")} == {"tea", "dog"}
    assert await history.cells("none", 9, ["tea"]) == []


async def test_neither_models_nor_one_conversations_cells_take_a_look_at_all(tmp_path, monkeypatch):
    settings = StoreSettings(f"sqlite:///{tmp_path}/store.sqlite3", retention_days=0)
    one = Evidence("c", "m", "k", "t", "full", "n", 1, 0.5, 0.5, None, None, None, None, 10.0)
    rows = [
        replace(
            one, conversation=f"c{it // 100:02}", key=f"k{it // 10 % 10}", node_id=f"n{it % 10}"
        )
        for it in range(6000)
    ]
    await Store(settings).add_evidence(rows)
    steps, connect = [0], database._connect

    def counting(file):
        def step():
            steps[0] += 100

        connection = connect(file)
        connection.set_progress_handler(step, 100)
        return connection

    monkeypatch.setattr(database, "_connect", counting)
    history = History(settings)
    for look, most in (
        (history.models, 1000),
        (lambda: history.cells("m", 50, conversation="c07"), 6000),
    ):
        steps[0] = 0
        await look()
        assert 0 < steps[0] <= most
