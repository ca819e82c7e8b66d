"""Prompts of many callers in few requests: how they are shared out, and what fails with what."""

import asyncio

import pytest

from mindhooks import RangeScore, ScorerError, WirePrompt
from mindscore.http.client import RefusedError, RetriableError
from mindscore.scorers.remote.batches import LIST_TOKENS, Answer, Batcher


def prompt(name, length=1):
    """One whose tokens tell it apart; ``name`` is its first."""
    return WirePrompt((name,) * length, (), (), ())


def answer(of):
    return Answer([RangeScore(-float(of.tokens[0]))], len(of.tokens))


class Server:
    """Answers lists once ``opened``; refuses one that holds a prompt of ``bad``."""

    def __init__(self, *bad, error=None):
        self.lists = []
        self.cancelled = []
        self.opened = asyncio.Event()
        self._came = asyncio.Condition()
        self.most = self.under_way = 0
        self._bad = set(bad)
        self._error = error or RefusedError("too long", 400)

    async def __call__(self, prompts):
        names = [it.tokens[0] for it in prompts]
        self.lists.append(names)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        async with self._came:
            self._came.notify_all()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.append(names)
            raise
        finally:
            self.under_way -= 1
        if self._bad & set(names):
            raise self._error
        return [answer(it) for it in prompts]

    async def begun(self, lists):
        """Wait until so many lists have come in."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.lists) >= lists)


def names_of(futures):
    return [-future.result().scores[0].total for future in futures]


def lengths(lists):
    return [len(names) for names in lists]


async def settled():
    """What can happen without the server's doing has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


# How they are shared out.


@pytest.mark.parametrize(
    ("prompts", "slots", "size", "expected"),
    [
        (1, 4, 8, [1]),
        (8, 8, 8, [1] * 8),
        (3, 8, 8, [1] * 3),
        (9, 8, 8, [2, *[1] * 7]),
        (20, 4, 8, [5, 5, 5, 5]),
        (9, 4, 8, [3, 2, 2, 2]),
        (8, 1, 8, [8]),
        (5, 2, 1, [1] * 5),
    ],
)
async def test_prompts_of_one_turn_are_spread_evenly_over_the_free_slots(
    prompts, slots, size, expected
):
    server = Server()
    server.opened.set()
    batcher = Batcher(server, size=size, slots=slots)

    futures = [batcher.ask(prompt(name)) for name in range(prompts)]
    await asyncio.gather(*futures)

    assert lengths(server.lists) == expected
    assert names_of(futures) == list(range(prompts))
    assert server.most <= slots


async def test_what_several_callers_ask_for_in_one_turn_shares_requests():
    server = Server()
    server.opened.set()
    batcher = Batcher(server, size=8, slots=1)

    async def ask(name):
        return (await batcher.ask(prompt(name))).scores[0].total

    assert await asyncio.gather(*(ask(name) for name in range(6))) == [-it for it in range(6)]
    assert server.lists == [[0, 1, 2, 3, 4, 5]]


async def test_what_waits_while_all_slots_are_taken_goes_in_lists_of_at_most_the_size():
    server = Server()
    batcher = Batcher(server, size=3, slots=1)
    first = batcher.ask(prompt(0))
    await server.begun(1)

    others = [batcher.ask(prompt(name)) for name in range(1, 8)]
    await settled()
    assert server.lists == [[0]]
    server.opened.set()
    await asyncio.gather(first, *others)

    assert server.lists == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert server.most == 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([LIST_TOKENS // 2, LIST_TOKENS // 2, 1], [2, 1]),
        ([LIST_TOKENS + 1, 1], [1, 1]),
        ([1, LIST_TOKENS + 1], [1, 1]),
        ([LIST_TOKENS - 1, 1], [2]),
    ],
)
async def test_a_list_holds_at_most_so_many_tokens_but_one_prompt_at_least(sizes, expected):
    server = Server()
    server.opened.set()
    batcher = Batcher(server, size=8, slots=1)

    await asyncio.gather(*(batcher.ask(prompt(1, length)) for length in sizes))

    assert lengths(server.lists) == expected


# What fails.


async def test_of_a_list_that_is_refused_the_bad_prompt_alone_fails():
    server = Server(2)
    server.opened.set()
    batcher = Batcher(server, size=8, slots=1)

    futures = [batcher.ask(prompt(name)) for name in range(4)]
    results = await asyncio.gather(*futures, return_exceptions=True)

    assert server.lists == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert [type(it) for it in results] == [Answer, Answer, RefusedError, Answer]


async def test_a_list_whose_answer_does_not_fit_is_sent_again_one_by_one_over_all_slots():
    server = Server(0, error=ScorerError("not finite"))
    server.opened.set()
    batcher = Batcher(server, size=8, slots=2)

    futures = [batcher.ask(prompt(name)) for name in range(4)]
    results = await asyncio.gather(*futures, return_exceptions=True)

    assert sorted(server.lists) == [[0], [0, 1], [1], [2, 3]]
    assert [type(it) for it in results] == [ScorerError, Answer, Answer, Answer]


@pytest.mark.parametrize(
    "error",
    [
        RetriableError("unreachable"),
        RefusedError("the key", 401),
        RefusedError("the key", 403),
        RefusedError("the model", 404),
        ValueError("a mistake"),
    ],
)
async def test_what_is_no_prompts_fault_fails_the_list_at_once(error):
    server = Server(0, error=error)
    server.opened.set()
    batcher = Batcher(server, size=8, slots=1)

    futures = [batcher.ask(prompt(name)) for name in range(3)]
    results = await asyncio.gather(*futures, return_exceptions=True)

    assert results == [error] * 3
    assert server.lists == [[0, 1, 2]]


async def test_a_single_prompt_that_is_refused_is_not_sent_again():
    server = Server(0)
    server.opened.set()
    batcher = Batcher(server, size=8, slots=4)

    with pytest.raises(RefusedError):
        await batcher.ask(prompt(0))

    assert server.lists == [[0]]


async def test_after_a_failure_others_are_answered():
    server = Server(0)
    server.opened.set()
    batcher = Batcher(server, size=8, slots=1)

    with pytest.raises(RefusedError):
        await batcher.ask(prompt(0))

    assert (await batcher.ask(prompt(1))).computed == 1


# What is not wanted any more.


async def test_cancelling_one_caller_leaves_the_others_of_its_list():
    server = Server()
    batcher = Batcher(server, size=8, slots=1)
    futures = [batcher.ask(prompt(name)) for name in range(3)]
    await server.begun(1)

    futures[1].cancel()
    await settled()
    assert server.cancelled == []
    server.opened.set()
    await asyncio.gather(futures[0], futures[2])

    assert server.lists == [[0, 1, 2]]


async def test_cancelling_all_callers_of_a_list_ends_it_and_makes_room():
    server = Server()
    batcher = Batcher(server, size=8, slots=1)
    futures = [batcher.ask(prompt(name)) for name in range(3)]
    await server.begun(1)
    waiting = batcher.ask(prompt(9))

    for future in futures:
        future.cancel()
    await server.begun(2)

    assert server.cancelled == [[0, 1, 2]]
    server.opened.set()
    await waiting
    assert server.lists == [[0, 1, 2], [9]]


async def test_what_is_cancelled_before_its_turn_is_never_sent():
    server = Server()
    batcher = Batcher(server, size=8, slots=1)
    first = batcher.ask(prompt(0))
    await server.begun(1)
    waiting = [batcher.ask(prompt(name)) for name in (1, 2, 3)]

    waiting[1].cancel()
    server.opened.set()
    await asyncio.gather(first, waiting[0], waiting[2])

    assert server.lists == [[0], [1, 3]]


async def test_a_caller_that_leaves_before_its_list_fails_is_not_asked_for_again():
    server = Server(2)
    batcher = Batcher(server, size=8, slots=1)
    futures = [batcher.ask(prompt(name)) for name in range(3)]
    await server.begun(1)

    futures[0].cancel()
    server.opened.set()
    await asyncio.gather(*futures, return_exceptions=True)

    assert server.lists == [[0, 1, 2], [1], [2]]


async def test_a_send_that_is_cancelled_by_itself_leaves_nobody_waiting():
    async def send(prompts):
        raise asyncio.CancelledError

    future = Batcher(send, size=8, slots=1).ask(prompt(0))
    await asyncio.wait([future], timeout=5)

    assert future.cancelled()


async def test_closing_ends_what_is_under_way_and_what_waits():
    server = Server()
    batcher = Batcher(server, size=2, slots=1)
    before = asyncio.all_tasks()
    futures = [batcher.ask(prompt(name)) for name in range(4)]
    await server.begun(1)

    await batcher.aclose()

    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(it) for it in results] == [ScorerError] * 4
    assert server.cancelled == [[0, 1]]
    assert asyncio.all_tasks() == before
    await batcher.aclose()
    await settled()
    assert server.lists == [[0, 1]]
