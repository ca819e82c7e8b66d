"""What waits is scored: by which memories, when, and what is done where that fails."""

import asyncio
import time

import pytest

from mindscore.collect.scoring import Options, TurnScoring
from mindscore.collect.turns import turn_of_span
from mindscore.config.settings import StoreSettings
from mindscore.store import History

TEA = "Nora drinks rooibos in the evening."
DOG = "Her dog is called Max."
SYSTEM = f"You help Nora.\n- {TEA}\n- {DOG}"
SAID = ["What shall I drink?", "A pot of rooibos in the evening."]
MORE = [*SAID, "And the dog?", "Max has water."]
MEMORIES = {"tea": TEA, "dog": DOG}
PATIENCE_S = 30


@pytest.fixture
def scoring(queue, tmp_path):
    """``scoring(memories, settings)``: what scores ``queue``; its lines are in ``said``."""
    made = []

    def scoring(memories=MEMORIES, anywhere=False, idle_s=0.0, **settings):
        tables = {
            "server": {"scorer": "toy"},
            "memory": {"token_cutoff": 1.0, "interval_s": 0},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
            **settings,
        }
        found = TurnScoring(queue, tables, Options(memories, anywhere, idle_s), said.append)
        found.said = said
        made.append(found)
        return found

    said = []
    yield scoring
    for it in made:
        it.registry.close()


async def test_a_conversation_is_scored_with_the_memories_of_files(scoring, queue, turn):
    queue.put([turn(*SAID, system=SYSTEM), turn(*MORE, system=SYSTEM, model="gpt")], 0)
    it = scoring()
    assert await it.run_once()
    [line] = it.said
    assert line.startswith("kitchen (gpt): 2 turns; tea ")
    assert line.endswith("nats, by toy")
    assert queue.waiting().conversations == 0


async def test_memories_that_a_turn_names_are_scored(scoring, queue, turn):
    queue.put([turn(*MORE, system=SYSTEM, memories={"dog": DOG})], 0)
    it = scoring(memories={})
    assert await it.run_once()
    assert it.said[0].startswith("kitchen: 1 turn; dog ")


async def test_memories_that_a_turn_named_are_known_to_later_turns_once_it_is_scored(
    scoring, queue, turn, make_queue
):
    queue.put([turn(*SAID, system=SYSTEM, memories={"dog": "old", "tea": TEA})], 0)
    await scoring(memories={}).run_once()
    # By another process, too.
    queue = make_queue()
    queue.put([turn(*MORE, system=SYSTEM, memories={"dog": DOG})], 0)
    assert queue.next().record.memories == {"tea": TEA, "dog": DOG}
    queue.put([turn(*SAID, name="other")], 0)
    it = scoring(memories={})
    await it.run_once()
    assert "tea" in it.said[-2]
    assert "dog" in it.said[-2]
    assert it.said[-1] == "other: 1 turn without memories"
    queue.put([turn(*MORE, "Bye.", "Bye.", system=SYSTEM)], 0)
    assert queue.next().record.memories == {"tea": TEA, "dog": DOG}


@pytest.mark.parametrize("is_scored_between", [False, True])
async def test_scores_under_a_later_system_prompt_have_a_remark_beside_them(
    is_scored_between, scoring, queue, turn, caplog
):
    it = scoring()
    queue.put([turn(*SAID, system=SYSTEM)], 0)
    if is_scored_between:
        await it.run_once()
        assert "system prompt" not in it.said[-1]
    queue.put([turn(*MORE, system=SYSTEM)], 0)
    queue.put([turn(*MORE, "And?", "So.", system=f"It is late.\n{SYSTEM}")], 0)
    queue.put([turn(*SAID, system=SYSTEM, name="other")], 0)
    await it.run_once()
    assert it.said[-2].endswith(
        "by toy; the system prompt has changed since 2 earlier responses: "
        "scores on them are of a reconstructed context"
    )
    assert it.said[-1].endswith("by toy")
    # A fork has the first response in common.
    said = [*SAID, "And for her?", "Rooibos, too."]
    queue.put([turn(*said, system=f"It is noon.\n{SYSTEM}")], 0)
    await it.run_once()
    assert it.said[-1].startswith("kitchen-2: 1 turn")
    assert "changed since 1 earlier response: scores on it are of" in it.said[-1]
    # It is not said of others in the log.
    assert "reconstructed" not in caplog.text


async def test_what_was_not_sent_is_said_beside_the_scores(scoring, queue, turn):
    it = scoring(anywhere=True)
    for name in "ab":
        queue.put([turn(f"{TEA} {SAID[0]}", SAID[1], system="", name=name)], 0)
    await it.run_once()
    assert [line.count("no system prompt was sent") for line in it.said] == [1, 1]


async def test_a_memory_that_cannot_be_told_apart_is_said_without_its_text(
    scoring, queue, turn, caplog
):
    it = scoring({})
    queue.put([turn(*SAID, system=SYSTEM, memories={"tea": TEA, "drink": "rooibos"})], 0)
    await it.run_once()
    assert "'drink' is found only where it overlaps" in caplog.text
    assert "rooibos" not in caplog.text


async def test_a_conversation_without_memories_is_said_and_done_with(scoring, queue, turn):
    queue.put([turn(*SAID)], 0)
    it = scoring(memories={})
    assert await it.run_once()
    assert it.said == ["kitchen: 1 turn without memories"]
    assert queue.waiting().turns == 0


async def test_of_a_turn_without_memories_those_that_it_named_are_said(scoring, queue, turn):
    queue.put([turn(*SAID, system=SYSTEM, memories={"ghost": "Not there.", "k" * 300: "Nor."})], 0)
    it = scoring(memories={})
    await it.run_once()
    [line] = it.said
    assert line.startswith(
        "kitchen: 1 turn without memories; sent, but not found where memories are looked for: gh"
    )
    assert len(line) < 250


async def test_what_a_user_typed_is_no_memory_unless_it_is_said_so(scoring, queue, turn, caplog):
    typed = turn(f"{TEA} {SAID[0]}", SAID[1], name="typed")
    queue.put([typed], 0)
    it = scoring()
    await it.run_once()
    assert it.said == ["typed: 1 turn without memories"]
    queue.put([turn(f"{TEA} {SAID[0]}", SAID[1], name="again")], 0)
    await scoring(anywhere=True).run_once()
    assert "again: 1 turn; tea" in it.said[-1]


async def test_memories_that_are_not_due_are_scored_once_they_are(scoring, queue, turn):
    hourly = {"memory": {"token_cutoff": 1.0, "interval_s": 3600}}
    queue.put([turn(*SAID, system=SYSTEM)], 0)
    it = scoring(**hourly)
    await it.run_once()
    assert queue.waiting().turns == 0
    queue.put([turn(*MORE, system=SYSTEM)], 0)
    assert await it.run_once()
    # It waits for the end of the hour.
    assert queue.waiting().turns == 1
    assert 3000 < queue.seconds_until_ready() <= 3600


async def test_what_fails_waits_longer_each_time_and_holds_up_nobody(scoring, queue, turn, caplog):
    class Fails:
        model = "fails"

        async def score(self, prompts):
            raise RuntimeError("no luck")

        async def tokenize(self, text):
            return list(text.encode())

        async def aclose(self):
            pass

    it = scoring()
    scorer = await asyncio.wrap_future(it.registry.submit(it.registry.registry.scorer()))
    scorer.score, right = Fails().score, scorer.score
    queue.put([turn(*SAID, system=SYSTEM, name="a")], 0)
    queue.put([turn(*SAID, system=SYSTEM, name="b")], 1000)
    assert not await it.run_once()
    assert queue.waiting().turns == 2
    assert "a waits" in caplog.text
    assert "b waits" in caplog.text
    assert "no luck" in caplog.text
    assert 0 < queue.seconds_until_ready() <= 1
    first = queue.next(after=0)
    assert first.attempts == 1
    await it.score(first)
    assert queue.next(after=0).attempts in (1, 2)
    scorer.score = right
    await it.run_once()
    assert queue.waiting().turns == 0


async def test_it_scores_when_nothing_has_followed_for_a_while(scoring, queue, turn):
    it = scoring(idle_s=0.5)
    running = asyncio.create_task(it.run())
    try:
        queue.put([turn(*SAID, system=SYSTEM)], 0.5)
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while queue.waiting().turns:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert time.monotonic() - began > 0.4
        assert len(it.said) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_each_conversation_has_its_own_name_in_the_store(scoring, queue, turn, tmp_path):
    queue.put([turn(*SAID, system=SYSTEM, name=name) for name in ("a", "b")], 0)
    await scoring().run_once()
    assert sorted(it.id for it in await conversations(tmp_path)) == ["a", "b"]


async def conversations(folder):
    """The conversations of the store."""
    return await History(StoreSettings(url=f"sqlite:///{folder}/store.sqlite3")).conversations()


async def test_candidates_are_found_and_have_the_time_that_was_sent(scoring, queue, turn):
    queue.put([turn(*SAID, system=SYSTEM, at="2026-01-01T00:00:00Z")], 0)
    queue.put([turn(*MORE, system=SYSTEM, at="2026-01-02T00:00:00Z")], 0)
    finetune = {"threshold": 0.1, "window_fraction": 1.0}
    it = scoring(live={"candidates": True}, finetune=finetune)
    await it.run_once()
    assert "2 candidates" in it.said[0]
    times = {c.timestamp_ns for c in it._session.state.finetune_candidates}
    assert times == {1767225600 * 10**9, 1767312000 * 10**9}


async def test_an_hours_tokens_bound_what_is_sent(scoring, queue, turn, caplog):
    queue.put([turn(*MORE, system=SYSTEM, name=name) for name in "abcd"], 0)
    it = scoring(live={"tokens_per_hour": 120}, memory={"token_cutoff": 1.0, "interval_s": 60})
    await it.run_once()
    assert queue.waiting().turns > 0
    assert "live.tokens_per_hour = 120" in caplog.text
    last = it.said[-1]
    assert "waiting for tokens" in last
    assert "not due" not in last


async def test_a_conversation_without_a_name_is_called_by_its_trace(scoring, queue, span, caplog):
    attributes = span(SYSTEM, *SAID, name="")
    given = {"traceId": "ab" * 16, "spanId": "1", "endTimeUnixNano": 1, "events": []}
    queue.put([turn_of_span({**given, "attributes": attributes}, None)], 0)
    it = scoring()
    await it.run_once()
    assert it.said[0].startswith("ab" * 16)
    assert "gen_ai.conversation.id" in caplog.text
