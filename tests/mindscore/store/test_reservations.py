"""Tokens that runs reserve of those that an hour has, on SQLite and on PostgreSQL."""

import asyncio
import time
from dataclasses import replace

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.store import Grant, History, Reservations, RunRecord

LIMIT = 100


@pytest.fixture
def reservations(url):
    """Opens the reservations of a namespace."""
    return lambda namespace="default": Reservations(StoreSettings(url, namespace))


def taking(tokens):
    """Grant so many tokens of what is left."""

    def decide(sent, reserved):
        taken = sum(it for _, it in sent) + sum(it.tokens for it in reserved)
        return Grant(max(0, min(tokens, LIMIT - taken)))

    return decide


async def reserved(reservations):
    """What is reserved, and what runs have sent."""
    found = []

    def look(sent, its):
        found.extend([{it.id: it.tokens for it in its}, [it for _, it in sent]])
        return Grant(0)

    await reservations.reserve("nobody", look)
    return found


async def test_many_at_once_get_no_more_than_there_is(reservations):
    asked = (reservations().reserve(f"r{it}", taking(30)) for it in range(12))
    granted = await asyncio.gather(*asked)
    assert sorted(granted) == [0] * 8 + [10, 30, 30, 30]
    [found, _] = await reserved(reservations())
    assert sum(found.values()) == LIMIT
    assert len(found) == 4
    # Each agent has an hour of its own.
    assert await reservations("other").reserve("mine", taking(70)) == 70


async def test_a_reservation_is_renewed_and_goes_with_its_run(reservations):
    seen = []

    def look(_, its):
        seen.append(*its)
        return Grant(0)

    assert await reservations().reserve("mine", taking(70)) == 70
    for act in (reservations("other").release, reservations().renew):
        await act("mine")
        await reservations().reserve("nobody", look)
    assert seen[1].renewed_at > seen[0].renewed_at
    assert replace(seen[1], renewed_at=0.0) == replace(seen[0], renewed_at=0.0)
    await reservations().release("mine")
    assert await reserved(reservations()) == [{}, []]


async def test_damaged_rows_free_no_tokens(reservations, url):
    for id_, tokens in (("sound", 30), ("damaged", -1000)):
        await reservations().reserve(id_, lambda *_, tokens=tokens: Grant(tokens))
    about = ("score", "m", time.time(), 1.0, 1, 10, None, 1, 1, None)
    for tokens in (25, -1000):
        await History(StoreSettings(url)).record_run(RunRecord(*about, sent_tokens=tokens))
    assert await reserved(reservations()) == [{"sound": 30}, [25]]


async def test_what_has_lapsed_is_removed_and_what_runs_have_sent_is_known(reservations, url):
    await reservations().reserve("dead", taking(70))
    about = ("score", "m", time.time(), 1.0, 1, 10, None, 1, 1, None)
    await History(StoreSettings(url)).record_run(RunRecord(*about, sent_tokens=25))
    assert await reserved(reservations()) == [{"dead": 70}, [25]]

    def replace_dead(_, its):
        return Grant(5, its)

    assert await reservations().reserve("mine", replace_dead) == 5
    assert await reserved(reservations()) == [{"mine": 5}, [25]]
