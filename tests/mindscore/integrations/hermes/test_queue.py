"""The queue of turns: durable, bounded, its owner's alone, safe beside other processes."""

import stat
import subprocess
import sys

import pytest

from mindscore._util.errors import StoreError
from mindscore.integrations.hermes.queue import TurnQueue

PUT = """
import sys
from pathlib import Path
from mindscore.integrations.hermes.queue import TurnQueue
queue = TurnQueue(Path(sys.argv[1]))
for turn in range(20):
    queue.put(f"{sys.argv[2]}-{turn}", [{"role": "user", "content": "Hello"}], {})
import os
os._exit(0)
"""
PROCESSES = 4
PATIENCE_S = 60


def talk(turns):
    return [{"role": "user", "content": f"Turn {turn}"} for turn in range(turns)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "plugin-data" / "mindscore" / "queue.sqlite3"


@pytest.fixture
def queue(file):
    queue = TurnQueue(file)
    yield queue
    queue.close()


def taken(queue):
    """Every turn, in the order in which they are to be scored."""
    turns = []
    while turn := queue.next():
        turns.append(turn)
        queue.remove(turn)
    return turns


def test_turns_come_out_as_they_went_in_the_oldest_first(queue) -> None:
    messages = [{"role": "user", "content": "naïve 日本語 🙂\0", "extra": [1, None]}]
    queue.put("a", messages, {"model": "m"})
    queue.put("b", talk(1), {})
    first, second = taken(queue)
    assert (first.session, first.messages, first.about) == ("a", messages, {"model": "m"})
    assert second.session == "b"
    assert queue.next() is None


def test_the_folder_and_its_files_are_their_owners_alone(queue, file) -> None:
    queue.put("a", talk(1), {})
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(it.stat().st_mode) for it in file.parent.iterdir()} == {0o600}


def test_a_turn_that_goes_on_takes_the_place_of_the_one_before(queue) -> None:
    queue.put("a", talk(2), {})
    queue.put("b", talk(2), {})
    queue.put("a", talk(4), {})
    assert [(it.session, it.turns) for it in taken(queue)] == [("b", 1), ("a", 2)]


def test_after_a_conversation_was_cut_what_it_held_still_waits(queue) -> None:
    queue.put("a", talk(6), {})
    queue.put("a", talk(3), {})
    assert [len(it.messages) for it in taken(queue)] == [6, 3]


def test_a_turn_put_off_comes_last(queue) -> None:
    queue.put("a", talk(1), {})
    queue.put("b", talk(1), {})
    first = queue.next()
    assert first is not None
    queue.put_off(first)
    assert [it.session for it in taken(queue)] == ["b", "a"]


def test_what_takes_the_place_of_a_turn_being_scored_stays(queue) -> None:
    queue.put("a", talk(1), {})
    scored = queue.next()
    queue.put("a", talk(3), {})
    queue.remove(scored)
    assert [len(it.messages) for it in taken(queue)] == [3]


def test_the_oldest_are_dropped_where_too_many_wait_and_counted(file) -> None:
    queue = TurnQueue(file, limit=300)
    dropped = [queue.put(str(turn), talk(3), {}) for turn in range(5)]
    assert dropped == [0, 0, 1, 1, 1]
    waiting = queue.waiting()
    assert (waiting.turns, waiting.sessions, waiting.dropped) == (2, 2, 3)
    assert [it.session for it in taken(queue)] == ["3", "4"]
    queue.close()


def test_a_turn_larger_than_all_that_may_wait_is_dropped(file) -> None:
    queue = TurnQueue(file, limit=10)
    assert queue.put("a", talk(3), {}) == 1
    assert queue.next() is None
    queue.close()


def test_what_waits_is_told(queue) -> None:
    nothing = queue.waiting()
    assert (nothing.turns, nothing.oldest, nothing.about) == (0, None, {})
    queue.put("a", talk(1), {"model": "old"})
    queue.put("a", talk(2), {"model": "new"})
    waiting = queue.waiting()
    assert (waiting.sessions, waiting.turns, waiting.about) == (1, 2, {"model": "new"})
    assert waiting.oldest is not None


def test_processes_that_end_at_once_lose_nothing(queue, file) -> None:
    command = [sys.executable, "-c", PUT, str(file)]
    running = [subprocess.Popen([*command, str(number)]) for number in range(PROCESSES)]
    assert [process.wait(PATIENCE_S) for process in running] == [0] * PROCESSES
    assert queue.waiting().sessions == 20 * PROCESSES


def test_preparing_takes_the_log_into_the_file(queue, file) -> None:
    queue.put("a", [{"role": "user", "content": "x" * 100_000}], {})
    assert file.stat().st_size < 100_000
    queue.prepare()
    assert file.stat().st_size > 100_000


def test_a_file_that_is_no_database_is_named(file) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("something else, and long enough to be looked at by a database " * 40)
    with pytest.raises(StoreError, match=r"the queue of turns .*queue.sqlite3: it is not"):
        TurnQueue(file).put("a", talk(1), {})


def test_what_is_not_json_is_refused_and_leaves_the_queue_alone(queue) -> None:
    with pytest.raises(TypeError):
        queue.put("a", [{"role": object()}], {})
    assert queue.next() is None
