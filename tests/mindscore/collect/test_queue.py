"""Turns are put together to conversations, kept until they are scored, and never kept twice."""

import json
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from itertools import permutations

import pytest

from mindscore._util.errors import StoreError
from mindscore.collect import otlp
from mindscore.collect import queue as queue_module
from mindscore.collect.placing import Placement
from mindscore.collect.queue import CollectedTurns, QueueFullError
from mindscore.collect.turns import TurnRequest, turn_of, turn_of_span

from .conftest import request_of

WHOLE = ["u1", "a1", "u2", "a2", "u3", "a3"]


def test_a_turn_takes_the_place_of_the_one_that_it_continues(queue, turn, waiting):
    assert queue.put([turn("u1", "a1", id="1")], 0) == [True]
    assert queue.put([turn("u1", "a1", "u2", "a2", id="2")], 0) == [True]
    assert queue.waiting().conversations == 1
    assert waiting(queue) == {"kitchen": (["u1", "a1", "u2", "a2"], 2)}


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", ["kitchen", ""])
def test_turns_may_come_in_any_order(order, together, name, queue, turn, waiting):
    turns = [turn(*WHOLE[: 2 * n], name=name or "x", id=str(n)) for n in (1, 2, 3)]
    if not name:
        turns = [replace(it, scope="", name=f"trace {it.id}") for it in turns]
    ordered = [turns[at] for at in order]
    for it in [ordered] if together else [[it] for it in ordered]:
        queue.put(it, 0)
    found = waiting(queue)
    assert [said for said, _ in found.values()] == [WHOLE]


def test_what_was_seen_is_not_stored_again(queue, turn, waiting):
    first, second = turn("u1", "a1", id="1"), turn("u1", "a1", "u2", "a2", id="2")
    queue.put([first, second], 0)
    assert queue.put([first, second], 0) == [False, False]
    assert queue.put([turn("u1", "a1", id="another id")], 0) == [False]
    assert waiting(queue) == {"kitchen": (["u1", "a1", "u2", "a2"], 2)}
    # Nor once it was scored, or by another process.
    assert queue.put([first, second], 0) == [False, False]


def test_an_id_is_of_one_turn_of_its_conversation(queue, turn, waiting):
    assert queue.put([turn("u1", "a1", id="1")], 0) == [True]
    assert queue.put([turn("u1", "other", id="1"), turn("u2", "a2", id="2")], 0) == [None, True]
    assert queue.put([turn("u3", "a3", id="1", name="garden")], 0) == [True]
    assert waiting(queue) == {
        "kitchen": (["u1", "a1"], 1),
        "kitchen-2": (["u2", "a2"], 1),
        "garden": (["u3", "a3"], 1),
    }


def read(*spans):
    """Return the turns of spans, as protobuf brings them."""
    found = otlp.split(request_of(*spans), otlp.PROTOBUF)
    return [turn_of_span(otlp.read_span(it, otlp.PROTOBUF), None) for it in found]


@pytest.mark.parametrize("ids", [{"trace": "0" * 32, "span": "0" * 16}, {"trace": "ab" * 2**16}])
def test_ids_that_are_invalid_are_none(ids, span):
    first, second = read(*(span("s", said, "a", name="", **ids) for said in ("u1", "u2")))
    assert first.id != second.id
    assert len(first.id) == len(first.name) == 32


def test_equal_words_without_a_name_are_two_turns_if_their_prompts_differ(queue, span, waiting):
    ann, bob = (
        span(f"You help {name}.", "Who am I?", "A friend.", name="", trace=trace * 16)
        for name, trace in (("Ann", "aa"), ("Bob", "bb"))
    )
    assert queue.put(read(ann), 0) == [True]
    assert queue.put(read(bob), 0) == [True]
    # Neither when they come again, nor twice by two instrumentations of one trace.
    assert queue.put([*read(bob), *read(ann)], 0) == [False, False]
    assert queue.put(read(bob | {"span": "cd" * 8}), 0) == [False]
    assert list(waiting(queue)) == ["aa" * 16, "bb" * 16]


def test_many_conversations_of_one_trace_each_get_a_name_at_once(queue, span, monkeypatch):
    looked = 0
    find = Placement._find

    def counted(self, query, values):
        nonlocal looked
        looked += 1
        return find(self, query, values)

    monkeypatch.setattr(Placement, "_find", counted)
    for number in range(30):
        given = span("s", f"u{number}", "a", name="", trace="ab" * 16, span=f"{number + 1:016x}")
        queue.put(read(given), 0)
    assert queue.waiting().conversations == 30
    assert looked < 30 * 12


def test_it_is_all_there_after_the_process_has_gone(make_queue, turn, waiting):
    make_queue().put([turn("u1", "a1", id="1")], 0)
    later = make_queue()
    assert later.put([turn("u1", "a1", id="1")], 0) == [False]
    assert waiting(later) == {"kitchen": (["u1", "a1"], 1)}
    assert later.put([turn("u1", "a1", "u2", "a2", id="2")], 0) == [True]
    assert list(waiting(make_queue())) == ["kitchen"]


def test_a_fork_is_a_conversation_of_its_own(queue, turn, waiting):
    queue.put([turn("u1", "a1"), turn("u1", "a1", "u2", "a2")], 0)
    queue.put([turn("u1", "a1", "u2, anew", "a2, anew")], 0)
    queue.put([turn("u1", "a1", "u2, anew", "a2, anew", "u3", "a3")], 0)
    queue.put([turn("u1", "a1", "u2", "a2", "u3, first", "a3")], 0)
    assert waiting(queue) == {
        "kitchen": (["u1", "a1", "u2", "a2", "u3, first", "a3"], 3),
        "kitchen-2": (["u1", "a1", "u2, anew", "a2, anew", "u3", "a3"], 2),
    }


def test_a_name_that_a_fork_has_is_no_other_conversations(queue, turn, waiting):
    queue.put([turn("u1", "a1"), turn("other", "words"), turn("x", "y", name="kitchen-2")], 0)
    assert sorted(waiting(queue)) == ["kitchen", "kitchen-2", "kitchen-2-2"]


def test_another_system_prompt_makes_no_fork(queue, turn, waiting):
    queue.put([turn("u1", "a1", system="Monday. She drinks tea.")], 0)
    queue.put([turn("u1", "a1", "u2", "a2", system="Tuesday. She has a dog.")], 0)
    assert waiting(queue) == {"kitchen": (["u1", "a1", "u2", "a2"], 2)}


def test_memories_that_a_host_printed_before_a_users_words_make_no_fork(queue, turn, waiting):
    queue.put([turn("<memories>tea</memories> u1", "a1")], 0)
    queue.put([turn("u1", "a1", "<memories>dog</memories> u2", "a2")], 0)
    assert list(waiting(queue)) == ["kitchen"]


def test_equal_words_in_two_conversations_are_two_turns(queue, turn, waiting):
    queue.put([turn("hello", "Hi!", name="a"), turn("hello", "Hi!", name="b")], 0)
    assert sorted(waiting(queue)) == ["a", "b"]


@pytest.mark.parametrize("together", [True, False])
def test_forks_with_equal_answers_each_go_on_by_themselves(together, queue, turn, waiting):
    """As of agents that work side by side under one session's id."""
    turns = [
        turn("u1", "OK"),
        turn("u2", "OK"),
        turn("u1", "OK", "u3", "a3"),
        turn("u2", "OK", "u4", "a4"),
    ]
    for batch in [turns] if together else [[it] for it in turns]:
        queue.put(batch, 0)
    assert waiting(queue) == {
        "kitchen": (["u1", "OK", "u3", "a3"], 2),
        "kitchen-2": (["u2", "OK", "u4", "a4"], 2),
    }


@pytest.mark.parametrize("together", [True, False])
def test_a_fork_takes_the_place_of_no_other_with_equal_answers(together, queue, turn, waiting):
    turns = [
        turn("u1", "OK", "u", "Yes"),
        turn("u2", "OK"),
        turn("u1", "OK", "u3", "a3"),
        turn("u1", "OK", "u", "Yes", "u4", "a4"),
        turn("u2", "OK", "u", "Yes"),
        turn("u1", "OK", "u", "Yes", "u5", "a5"),
    ]
    for batch in [turns] if together else [[it] for it in turns]:
        queue.put(batch, 0)
    said = [found for found, _ in waiting(queue).values()]
    assert sorted(said) == [
        ["u1", "OK", "u", "Yes", "u4", "a4"],
        ["u1", "OK", "u", "Yes", "u5", "a5"],
        ["u1", "OK", "u3", "a3"],
        ["u2", "OK", "u", "Yes"],
    ]


def test_arguments_of_a_tool_may_be_printed_otherwise_in_the_history(queue, turn, waiting):
    def call(arguments):
        function = {"name": "find", "arguments": arguments}
        return {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}

    asked = [{"role": "user", "content": "u1"}]
    answered = {"role": "tool", "tool_call_id": "1", "content": "42"}
    for messages, response in [
        (asked, call('{"b":1,"a":2}')),
        ([*asked, call('{"a": 2, "b": 1}'), answered], {"content": "42."}),
    ]:
        queue.put([turn_of(TurnRequest("kitchen", messages, response))], 0)
    assert list(waiting(queue)) == ["kitchen"]


def test_memories_of_the_turns_that_wait_are_kept_together(queue, turn):
    queue.put([turn("u1", "a1", memories={"tea": "old", "dog": "Max"})], 0)
    queue.put([turn("u1", "a1", "u2", "a2", memories={"tea": "new"})], 0)
    queue.put([turn("u1", "a1", "u2", "a2", "u3", "a3")], 0)
    assert queue.next().record.memories == {"tea": "new", "dog": "Max"}


def test_a_full_queue_takes_all_or_nothing(make_queue, turn, waiting):
    small = make_queue(limit=1200)
    small.put([turn("u1", "a1", name="first")], 0)
    with pytest.raises(QueueFullError) as caught:
        small.put([turn("u1", "a1"), turn("u1", "a" * 800, name="other")], 0)
    assert not caught.value.alone
    with pytest.raises(QueueFullError) as caught:
        small.put([turn("u1", "a" * 1200)], 0)
    assert caught.value.alone
    assert small.put([turn("u1", "a1")], 0) == [True]
    assert sorted(waiting(small)) == ["first", "kitchen"]


def test_a_turn_waits_until_nothing_has_followed_it_for_a_while(queue, turn, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    queue.put([turn("u1", "a1")], 60)
    assert queue.next(latest_s=60) is None
    assert queue.seconds_until_ready() == 60
    now += 50
    queue.put([turn("u1", "a1", "u2", "a2")], 60)
    now += 50
    assert queue.next(latest_s=60) is None
    now += 11
    assert queue.next(latest_s=60).turns == 2
    queue.put_off(queue.next(latest_s=60), 30, failed=True)
    assert queue.next(latest_s=60) is None
    now += 31
    assert queue.next(latest_s=60).attempts == 1


def test_a_clock_that_was_set_back_holds_nothing_up(queue, turn, monkeypatch):
    queue.put([turn("u1", "a1")], 60)
    before = time.time() - 1e6
    monkeypatch.setattr(time, "time", lambda: before)
    assert queue.next(latest_s=60) is not None


def test_a_turn_that_came_while_the_one_before_was_scored_stays(queue, turn):
    queue.put([turn("u1", "a1")], 0)
    being_scored = queue.next()
    queue.put([turn("u1", "a1", "u2", "a2")], 0)
    queue.put_off(being_scored, 1000, failed=False)
    queue.remove(being_scored)
    assert queue.next().turns == 2


def test_what_waits_for_too_long_is_dropped_and_counted(queue, turn, monkeypatch):
    queue.put([turn("u1", "a1"), turn("u1", "a1", "u2", "a2")], 0)
    assert queue.drop_old() == 0
    later = time.time() + (queue_module.KEPT_DAYS + 1) * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert queue.drop_old() == 2
    assert queue.waiting().conversations == 0


def test_a_clock_that_jumps_ahead_drops_nothing_that_was_hardly_tried(queue, turn, monkeypatch):
    queue.put([turn("u1", "a1")], 0)
    queue.put_off(queue.next(), 60, failed=True)
    later = time.time() + (queue_module.KEPT_DAYS + 1) * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert queue.drop_old() == 0
    while (it := queue.next(after=0)).attempts < queue_module.FEWEST_ATTEMPTS:
        queue.put_off(it, 0, failed=True)
    assert queue.drop_old() == 1


def test_what_is_remembered_is_bounded_and_what_waits_is_not_forgotten(queue, turn, monkeypatch):
    monkeypatch.setattr(queue_module, "MAX_KNOWN", 3)
    monkeypatch.setattr(queue_module, "PRUNED_AT_ONCE", 1)
    for number in range(6):
        queue.put([turn("u1", "a1", name=f"c{number}", id=str(number))], 0)
    while (it := queue.next(latest_s=2000)) is not None:
        if it.name == "c1":
            queue.put_off(it, 1000, failed=False)
        else:
            queue.remove(it)
    queue.drop_old()
    # c1 still waits, and of the others the last two are known.
    stored = [queue.put([turn("u1", "a1", name=f"c{n}", id=str(n))], 0)[0] for n in range(6)]
    assert stored == [True, False, True, True, False, False]


def test_a_file_of_an_earlier_version_is_gone_on_with(make_queue, turn, tmp_path):
    queue = make_queue()
    queue.put([turn("u1", "a1", memories={"tea": "green"})], 0)
    queue.close()
    with closing(sqlite3.connect(tmp_path / "queue.sqlite3")) as connection:
        connection.execute("ALTER TABLE branches DROP COLUMN memories")
        connection.execute("ALTER TABLE known_turns DROP COLUMN prompt")
    for _ in range(2):
        make_queue().prepare()
    queue = make_queue()
    queue.remove(queue.next())
    queue.put([turn("u1", "a1", "u2", "a2")], 0)
    assert queue.next().record.memories == {"tea": "green"}
    assert len(queue.prompts(queue.next(), ())) == 1


def test_memories_that_turns_have_named_take_bounded_room(queue, turn, monkeypatch):
    monkeypatch.setattr("mindscore.collect.queue.MAX_MEMORIES_BYTES", 100)
    monkeypatch.setattr("mindscore.collect.queue.PRUNED_AT_ONCE", 1)
    monkeypatch.setattr("mindscore.collect.placing.MOST_NAMED", 2)
    for name in ("old", "new"):
        queue.put([turn("u1", "a1", name=name, memories=dict.fromkeys("abcd", "x" * 5))], 0)
        queue.remove(queue.next())
    queue.drop_old()
    for name in ("old", "new"):
        queue.put([turn("u1", "a1", "u2", "a2", name=name)], 0)
    [old, new] = queue.next(after=0), queue.next(after=queue.next(after=0).id)
    assert (old.name, old.record.memories) == ("old", {})
    assert (new.name, set(new.record.memories)) == ("new", {"c", "d"})


def test_the_times_of_responses_are_kept_with_the_conversation(queue, turn):
    queue.put([turn("u1", "a1", at="2026-01-01T00:00:00Z")], 0)
    queue.put([turn("u1", "a1", "u2", "a2", at="2026-01-02T00:00:00Z")], 0)
    assert sorted(queue.next().times.values()) == [1767225600 * 10**9, 1767312000 * 10**9]


def test_a_file_of_something_else_is_refused(make_queue, tmp_path, turn):
    (tmp_path / "queue.sqlite3").write_bytes(b"not a database, but a long enough text " * 200)
    with pytest.raises(StoreError, match="the queue of turns") as caught:
        make_queue().put([turn("u1", "a1")], 0)
    assert "store.url" not in str(caught.value)


def test_random_batches_of_forked_conversations_are_all_there_once(tmp_path, turn):
    chance = random.Random(7)
    tree = {"": []}
    for number in range(40):
        parent = chance.choice(list(tree))
        tree[f"{parent}/{number}"] = [*tree[parent], f"u{number}", f"a{number}"]
    turns = [turn(*said, id=name) for name, said in tree.items() if said]
    for seed in range(2):
        chance.shuffle(turns)
        queue = CollectedTurns(tmp_path / f"{seed}.sqlite3", 2**20)
        at = 0
        while at < len(turns):
            size = chance.randint(1, 9)
            queue.put(turns[at : at + size] + chance.sample(turns[: at + 1], 1), 0)
            at += size
        assert not any(queue.put(turns, 0)), seed
        said = []
        while (it := queue.next()) is not None:
            said += [m.text for m in it.record.conversation("x").messages if m.role == "assistant"]
            queue.remove(it)
        assert set(said) == {f"a{number}" for number in range(40)}


def test_a_span_of_half_a_surrogate_pair_is_kept(span):
    said = f'[{{"role":"assistant","content":"Yes.","n":{"9" * 40}}}]'
    found = turn_of_span(
        {
            "traceId": "a", "spanId": "b", "endTimeUnixNano": 0, "events": [],
            "attributes": {
                "gen_ai.input.messages": '[{"role":"user","content":"\\ud83d"}]',
                "gen_ai.output.messages": said,
            },
        },
        None,
    )  # fmt: skip
    assert json.loads(found.record)["messages"][0]["content"] == "\ufffd"
