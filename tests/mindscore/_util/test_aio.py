"""``gather_ordered``: a bounded number of calls at once, their results in order."""

import asyncio

import pytest

from mindscore._util.aio import gather_ordered


async def test_results_are_in_order_and_no_more_run_at_once_than_asked_for():
    running, most = 0, 0

    async def work(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - number):
            await asyncio.sleep(0)
        running -= 1
        return number * number

    assert await gather_ordered(work, range(10), 3) == [it * it for it in range(10)]
    assert most == 3


async def test_the_first_failure_is_raised_and_the_rest_not_begun():
    begun = []

    async def work(number):
        begun.append(number)
        await asyncio.sleep(0)
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        await gather_ordered(work, range(1000), 4)
    assert len(begun) < 10
