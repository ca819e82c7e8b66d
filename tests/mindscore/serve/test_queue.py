"""Who is served when: priorities, a full queue, clients that go."""

import asyncio

import pytest

from mindscore.http.request_queue import RETRY_AFTER_S, RequestQueue


async def waiting(client, held, bodies, path="/v1/score"):
    """Send one body at a time, each once the one before has its place."""
    tasks = []
    for number, body in enumerate(bodies):
        tasks.append(asyncio.create_task(client.post(path, body)))
        await client.until(busy=True, queued=number)
    return tasks


async def leave(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_is_computed_at_a_time(served, held, scored):
    async with served(held) as client:
        tasks = await waiting(client, held, [scored(1), scored(2), scored(3)])
        assert held.began == [1]
        held.release(3)
        answers = await asyncio.gather(*tasks)
    assert [it.status for it in answers] == [200] * 3
    assert held.began == [1, 2, 3]


async def test_a_larger_priority_is_later_and_equals_keep_their_order(served, held, scored):
    bodies = [scored(1)] + [
        scored(name, priority=priority)
        for name, priority in [(2, 5), (3, None), (4, 5), (5, -1), (6, 0)]
    ]
    async with served(held) as client:
        tasks = await waiting(client, held, bodies)
        held.release(6)
        await asyncio.gather(*tasks)
    assert held.began == [1, 5, 3, 6, 2, 4]


async def test_completions_stand_in_the_same_queue(served, held, scored):
    later = {"prompt": [2, 2], "max_tokens": 1, "prompt_logprobs": 0, "priority": 1}
    async with served(held) as client:
        first = await waiting(client, held, [scored(1), scored(3, priority=2)])
        completion = asyncio.create_task(client.post("/v1/completions", later))
        await client.until(queued=2)
        held.release(3)
        await asyncio.gather(*first, completion)
    assert held.began == [1, 2, 3]


async def test_texts_do_not_wait_for_scores(served, held, scored):
    async with served(held) as client:
        tasks = await waiting(client, held, [scored(1)])
        assert (await client.post("/tokenize", {"prompt": "tea"})).status == 200
        held.release()
        await asyncio.gather(*tasks)


async def test_a_full_queue_refuses_and_says_when_to_come_again(served, held, scored):
    async with served(held, queue_limit=1) as client:
        tasks = await waiting(client, held, [scored(1), scored(2)])
        answer = await client.post("/v1/score", scored(3, priority=-9))
        assert (answer.status, answer.error["type"]) == (429, "RateLimitError")
        assert answer.headers["Retry-After"] == str(RETRY_AFTER_S)
        held.release(2)
        await asyncio.gather(*tasks)
        held.release()
        assert (await client.post("/v1/score", scored(4))).status == 200
    assert held.began == [1, 2, 4]


async def test_a_client_that_goes_while_it_waits_is_dropped(served, held, scored):
    async with served(held) as client:
        tasks = await waiting(client, held, [scored(1), scored(2), scored(3)])
        await leave(tasks[1])
        await client.until(queued=1)
        held.release(2)
        await asyncio.gather(tasks[0], tasks[2])
    assert held.began == [1, 3]
    assert held.cancelled == []


@pytest.mark.parametrize("path", ["/v1/score", "/v1/completions"])
async def test_a_client_that_goes_while_it_is_served_ends_the_computation(
    path, served, held, scored
):
    async with served(held) as client:
        one, two = await waiting(
            client, held, [scored(1, prompt_logprobs=0), scored(2, prompt_logprobs=0)], path
        )
        await leave(one)
        await client.until(queued=0)
        assert held.cancelled == [1]
        held.release()
        assert (await two).status == 200
    assert held.began == [1, 2]


# The queue itself.


async def test_a_turn_that_comes_to_one_who_is_just_leaving_is_passed_on():
    queue, served = RequestQueue(9), []

    async def visit(name):
        async with queue.turn():
            served.append(name)

    async with queue.turn():
        leaving, staying = asyncio.create_task(visit("a")), asyncio.create_task(visit("b"))
        await asyncio.sleep(0)
    # The turn is a's by now, and a has not run yet.
    leaving.cancel()
    await asyncio.wait({leaving, staying})
    assert served == ["b"]
    assert not queue.busy


async def test_one_who_leaves_just_before_the_turn_comes_is_passed_over():
    queue, served = RequestQueue(9), []

    async def visit(name):
        async with queue.turn():
            served.append(name)

    async with queue.turn():
        leaving, staying = asyncio.create_task(visit("a")), asyncio.create_task(visit("b"))
        await asyncio.sleep(0)
        leaving.cancel()
    await asyncio.wait({leaving, staying})
    assert served == ["b"]
    assert (queue.busy, queue.queued) == (False, 0)


async def test_a_turn_that_fails_is_passed_on():
    queue = RequestQueue(1)
    with pytest.raises(ValueError, match="x"):
        async with queue.turn():
            raise ValueError("x")
    async with asyncio.timeout(1), queue.turn():
        assert queue.busy
