"""Prefixes that prompts share, and who waits for whom."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.measure import prefixes
from mindscore.measure.prefixes import PrefixIndex, PrefixQueue, prefix_key
from mindscore.measure.prompts import common_prefix

PROMPTS = st.lists(st.integers(0, 2), max_size=8).map(tuple)


@given(st.lists(PROMPTS, max_size=8), PROMPTS)
def test_the_longest_prefix_is_found_among_all(added, prompt):
    index = PrefixIndex()
    for it in added:
        index.add(prefix_key(it))
    assert index.longest(prefix_key(prompt)) == max(
        (common_prefix(it, prompt) for it in added), default=0
    )
    index.add(prefix_key(prompt))
    others = max((common_prefix(it, prompt) for it in added), default=0)
    assert index.longest(prefix_key(prompt), is_added=True) == others
    assert index.size == 8 * sum(map(len, [*added, prompt]))


def test_ids_of_any_size_and_sign_are_told_apart():
    index = PrefixIndex()
    index.add(prefix_key((1, -1, 2**40)))
    assert [
        index.longest(prefix_key(it)) for it in [(1, -1, 2**40), (1, -1, 2**41), (1, 255), (2,)]
    ] == [*(3, 2, 1, 0)]


class Server:
    """Answers when it is told to, and notes who is under way."""

    def __init__(self, block=4):
        self.queue = PrefixQueue(block)
        self.under_way = []
        self._ends = {}

    def send(self, name, prompt, limit=100):
        async def run():
            async with self.queue.turn(prefix_key(prompt), limit):
                self.under_way.append(name)
                try:
                    await self._ends[name]
                finally:
                    self.under_way.remove(name)

        self._ends[name] = asyncio.get_running_loop().create_future()
        return asyncio.create_task(run())

    async def end(self, name, error=None):
        if error is None:
            self._ends[name].set_result(None)
        else:
            self._ends[name].set_exception(error)
        await self.settle()

    @staticmethod
    async def settle():
        for _ in range(10):
            await asyncio.sleep(0)


A = (1,) * 20


async def test_who_shares_more_with_one_under_way_waits_for_it_and_others_do_not():
    it = Server()
    tasks = [it.send("a", A), it.send("b", (*A[:12], 2)), it.send("c", (3, *A))]
    tasks += [it.send("d", (*A[:3], 4, 4, 4)), it.send("e", (*A[:12], 5), limit=3)]
    await it.settle()
    # Below a block there is nothing to wait for.
    assert it.under_way == ["a", "c", "d", "e"]
    await it.end("a")
    assert it.under_way == ["c", "d", "e", "b"]
    # With the one that is answered it shares as much as with the other under way.
    tasks.append(it.send("f", (*A[:12], 2, 2)))
    await it.settle()
    assert it.under_way[-1] == "f"
    for name in "bcdef":
        await it.end(name)
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_when_the_one_ahead_ends_otherwise_the_next_goes_alone(how):
    it = Server()
    first = it.send("a", A)
    others = [it.send(name, (*A, index)) for index, name in enumerate("bcd")]
    await it.settle()
    assert it.under_way == ["a"]
    if how == "fails":
        await it.end("a", OSError())
    else:
        first.cancel()
        await it.settle()
    assert it.under_way == ["b"]
    others[1].cancel()
    await it.end("b")
    assert it.under_way == ["d"]
    await it.end("d")
    found = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(error) for error in found[1:]] == [
        *(type(None), asyncio.CancelledError, type(None))
    ]


async def test_what_is_forgotten_counts_as_not_answered():
    it = Server()
    await it.settle()
    done = it.send("a", A)
    await it.settle()
    await it.end("a")
    await done
    it.queue.forget()
    tasks = [it.send("b", A), it.send("c", A)]
    await it.settle()
    assert it.under_way == ["b"]
    await it.end("b")
    await it.end("c")
    await asyncio.gather(*tasks)


async def test_what_is_remembered_takes_so_much_memory_at_most(monkeypatch):
    monkeypatch.setattr(prefixes, "MOST_BYTES", 8 * 100)
    queue = PrefixQueue(4)
    for number in range(50):
        async with queue.turn(prefix_key([number, *range(39)]), 20):
            pass
        assert queue._answered.size <= 8 * (100 + 40)
    assert queue._answered.longest(prefix_key([49, *range(39)])) == 40
