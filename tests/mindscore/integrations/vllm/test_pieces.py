import asyncio
import random
from types import SimpleNamespace

import pytest

from mindscore.integrations.vllm.engine import LIMIT
from mindscore.integrations.vllm.pieces import block_of, score_prompt, split_ranges

BLOCK = 16


def value(prompt, at):
    return -float(sum(prompt[: at + 1]) % 97) / 10


class VLLM:
    """A vLLM of the V1 runner with a prefix cache of whole blocks; ``sent`` are its requests."""

    def __init__(self):
        self.cache = set()
        self.sent = []
        self.running = self.most = 0

    async def __call__(self, tokens, arguments):
        limit = (arguments.get("extra_args") or {}).get(LIMIT, 0)
        cached = 0
        while cached + BLOCK <= limit and tuple(tokens[: cached + BLOCK]) in self.cache:
            cached += BLOCK
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.sent.append((len(tokens), cached))
        for end in range(BLOCK, len(tokens) + 1, BLOCK):
            self.cache.add(tuple(tokens[:end]))
        rows = [None] + [
            {tokens[at]: SimpleNamespace(logprob=value(tokens, at))} if at > cached else {}
            for at in range(1, len(tokens))
        ]
        return SimpleNamespace(num_cached_tokens=cached, prompt_logprobs=rows)


PROMPT = list(range(300, 500))
RANGES = [(20, 25), (100, 110), (180, 182)]


def score(vllm, prompt=PROMPT, ranges=RANGES, block=BLOCK):
    found = asyncio.run(score_prompt(prompt, ranges, vllm, by_id=False, block=block))
    for start, end in ranges:
        assert [found[0][at] for at in range(start, end)] == [
            value(prompt, at) for at in range(start, end)
        ]
    return found[1]


def test_ranges_are_apart_where_enough_tokens_lie_between_them():
    assert split_ranges(100, [(40, 45), (5, 10)], BLOCK) == [[(5, 10)], [(40, 45)]]
    # The row before a token scores it: that of 33 is the first of a block.
    assert split_ranges(100, [(5, 17), (33, 45)], BLOCK) == [[(5, 17)], [(33, 45)]]
    assert split_ranges(100, [(5, 17), (32, 45)], BLOCK) == [[(5, 17), (32, 45)]]
    assert split_ranges(100, [(5, 60), (6, 8), (66, 67)], BLOCK) == [[(5, 60), (6, 8), (66, 67)]]


def test_ranges_stay_together_where_less_is_saved_than_may_be_lost():
    # Fifteen tokens could be computed twice: four times as many must lie between and behind.
    assert len(split_ranges(80 + 27, [(20, 31), (64, 80)], BLOCK)) == 1
    assert len(split_ranges(80 + 44, [(20, 31), (65, 80)], BLOCK)) == 2


def test_a_prompt_that_is_not_cached_takes_two_requests_and_one_block_more_at_most():
    vllm = VLLM()
    computed = score(vllm)
    assert vllm.sent == [(25, 0), (182, 16)]
    assert computed <= len(PROMPT) + BLOCK


def test_a_cached_prompt_is_computed_at_its_ranges_only():
    vllm = VLLM()
    score(vllm)
    vllm.sent.clear()
    computed = score(vllm)
    assert sorted(vllm.sent) == [(25, 16), (110, 96), (182, 176)]
    assert computed == (25 - 16) + (110 - 96) + (182 - 176)
    assert vllm.most == 2


def test_a_first_range_in_the_first_block_shows_nothing_of_the_cache():
    vllm = VLLM()
    ranges = [(3, 5), (100, 110), (180, 182)]
    score(vllm, ranges=ranges)
    vllm.sent.clear()
    score(vllm, ranges=ranges)
    assert len(vllm.sent) == 2


@pytest.mark.parametrize("block", [None, BLOCK])
def test_ranges_close_together_or_without_a_cache_are_one_request_of_the_whole_prompt(block):
    vllm = VLLM()
    ranges = [(100, 110), (112, 120)] if block else RANGES
    assert score(vllm, ranges=ranges, block=block) == len(PROMPT)
    assert vllm.sent == [(len(PROMPT), 0)]


def test_any_ranges_in_any_order_have_the_values_of_the_whole_prompt():
    rng = random.Random(5)
    vllm = VLLM()
    for _ in range(200):
        prompt = PROMPT[: rng.randrange(2, 200)] + [rng.randrange(9) for _ in range(30)]
        starts = [rng.randrange(1, len(prompt)) for _ in range(rng.randrange(1, 6))]
        ranges = [(it, min(len(prompt), it + rng.randrange(1, 40))) for it in starts]
        score(vllm, prompt, ranges)


async def test_the_other_pieces_end_with_one_that_fails():
    vllm = VLLM()
    await score_prompt(PROMPT, RANGES, vllm, by_id=False, block=BLOCK)
    cancelled = []

    async def failing(tokens, arguments):
        if len(tokens) == 110:
            raise ConnectionError("the engine is gone")
        if len(tokens) == 182:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(len(tokens))
                raise
        return await vllm(tokens, arguments)

    with pytest.raises(ConnectionError):
        await score_prompt(PROMPT, RANGES, failing, by_id=False, block=BLOCK)
    await asyncio.sleep(0)
    assert cancelled == [182]


@pytest.mark.parametrize(
    ("part", "settings", "block"),
    [
        ("cache_config", {}, 16),
        ("cache_config", {"enable_prefix_caching": False}, None),
        ("scheduler_config", {"max_num_queued_reqs": 9}, None),
        ("scheduler_config", {"max_num_queued_tokens": 9}, None),
        # Each engine has a cache of its own.
        ("parallel_config", {"data_parallel_size": 2}, None),
    ],
)
def test_where_pieces_may_be_turned_away_or_computed_anew_prompts_are_sent_whole(
    part, settings, block
):
    config = {
        "cache_config": {"enable_prefix_caching": True, "block_size": 16},
        "scheduler_config": {"max_num_queued_reqs": None, "max_num_queued_tokens": None},
        "parallel_config": {"data_parallel_size": 1},
    }
    config[part] |= settings
    parts = {name: SimpleNamespace(**each) for name, each in config.items()}
    assert block_of(SimpleNamespace(**parts)) == block
