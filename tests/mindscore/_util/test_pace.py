"""``Pace``: pieces of work of many tasks leave the loop's other users their turns."""

import asyncio

from mindscore._util.aio import Pace


async def test_one_piece_a_turn_however_many_tasks_have_one_ready():
    pace, turn, worked_in = Pace(), 0, []

    async def work():
        await pace.yield_to_loop()
        worked_in.append(turn)

    tasks = [asyncio.create_task(work()) for _ in range(20)]
    while not all(task.done() for task in tasks):
        turn += 1
        await asyncio.sleep(0)
    assert len(set(worked_in)) == 20


async def test_a_timer_that_comes_due_during_a_piece_is_called_before_the_next():
    pace, called = Pace(), []
    loop = asyncio.get_running_loop()
    order = []

    async def work(name):
        await pace.yield_to_loop()
        # Due at once, as a timer is that came due while this piece was at work.
        loop.call_at(loop.time(), called.append, name)
        order.append((name, list(called)))

    await asyncio.gather(*(work(name) for name in "abcd"))
    assert order == [("a", []), ("b", ["a"]), ("c", ["a", "b"]), ("d", ["a", "b", "c"])]


async def test_a_cancelled_task_passes_its_turn_on():
    pace = Pace()
    waiting = [asyncio.create_task(pace.yield_to_loop()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 5)
    assert waiting[0].cancelled()
    assert waiting[1].cancelled()
