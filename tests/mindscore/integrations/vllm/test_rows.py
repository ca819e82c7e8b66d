import math
from types import SimpleNamespace

import numpy as np
import pytest

from mindscore.integrations.vllm.engine import LIMIT
from mindscore.integrations.vllm.protocol import RowsError
from mindscore.integrations.vllm.rows import Rows, score_rows

PROMPT = [50, 51, 52, 53, 54, 55, 56, 57]
VALUES = {at: -float(at) for at in range(1, len(PROMPT))}
"""What the model gives each token."""


def listed(cached=0, *, whole=True, other=7):
    """Answer as the V1 runner (``whole``, rows from the cache unwritten) or the V2 runner."""
    rows = [None]
    for at in range(1, len(PROMPT)):
        # Row at - 1 is computed where the prefix from the cache is not longer.
        if at - 1 >= cached:
            rows.append({PROMPT[at]: SimpleNamespace(logprob=VALUES[at])})
        elif whole:
            rows.append({other: SimpleNamespace(logprob=-99.0)})
    return rows


def test_the_prefix_may_come_from_the_cache_up_to_the_row_of_the_first_scored_token():
    rows = Rows(PROMPT, [(6, 8), (4, 5)])
    assert rows.prefix_limit == 3
    assert rows.arguments(by_id=False, reuse=True)["extra_args"] == {LIMIT: 3}
    assert "extra_args" not in rows.arguments(by_id=False, reuse=False)


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("reuse", [True, False])
def test_an_engine_without_the_plugin_is_told_to_compute_it_all(by_id, reuse):
    arguments = Rows(PROMPT, [(4, 5)]).arguments(by_id=by_id, reuse=reuse)
    assert arguments["skip_reading_prefix_cache"] is True
    assert (arguments["max_tokens"], arguments["detokenize"]) == (1, False)


def test_only_scored_tokens_are_asked_of_a_runner_that_takes_ids():
    arguments = Rows(PROMPT, [(6, 8), (4, 5)]).arguments(by_id=True, reuse=True)
    assert arguments["prompt_logprob_start"] == 3
    # As many rows as the prompt has from the start on, but for the last, which predicts no token.
    assert arguments["prompt_logprob_token_ids"] == [[54], [-1], [56], [57]]
    assert len(arguments["prompt_logprob_token_ids"]) == len(PROMPT) - 1 - 3
    assert "prompt_logprobs" not in arguments


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cached", range(4))
def test_values_are_read_behind_a_cached_prefix(cached, whole):
    rows = Rows(PROMPT, [(4, 6), (7, 8), (5, 8)])
    values = rows.read_listed(listed(cached, whole=whole))
    assert rows.by_range(values) == [[-4.0, -5.0], [-7.0], [-5.0, -6.0, -7.0]]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cached", range(4, 8))
def test_rows_that_the_cache_hides_are_missing_not_wrong(cached, whole):
    assert Rows(PROMPT, [(4, 6)]).read_listed(listed(cached, whole=whole)) is None


@pytest.mark.parametrize("answer", [None, [], [None], [None] * 8, [None] * 20, [{}] * 8])
def test_a_list_of_another_shape_is_missing(answer):
    assert Rows(PROMPT, [(4, 6)]).read_listed(answer) is None


def test_scores_by_id_are_read_by_position():
    rows = Rows(PROMPT, [(6, 8), (4, 5)])
    scores = np.array([[-4.0], [-np.inf], [-6.0], [-7.0]], dtype=np.float32)
    assert rows.by_range(rows.read_scores(scores)) == [[-6.0, -7.0], [-4.0]]


@pytest.mark.parametrize("shape", [None, (3, 1), (5, 1), (4, 2), (4,), (0, 1)])
def test_scores_by_id_of_another_shape_are_missing(shape):
    scores = None if shape is None else np.zeros(shape, dtype=np.float32)
    assert Rows(PROMPT, [(4, 5)]).read_scores(scores) is None


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf, 0.5])
def test_a_value_that_no_log_probability_has_is_an_error(value):
    rows = Rows(PROMPT, [(4, 6)])
    with pytest.raises(RowsError, match="position 5"):
        rows.by_range({4: -1.0, 5: value})


class VLLM:
    """Answers prompts in turn, each with so many tokens from its cache; keeps what it was asked."""

    def __init__(self, *cached):
        self.cached = list(cached)
        self.asked = []

    async def __call__(self, arguments):
        self.asked.append(arguments)
        cached = self.cached.pop(0)
        scores = None
        if (rows := arguments.get("prompt_logprob_token_ids")) is not None:
            start = arguments["prompt_logprob_start"]
            if cached <= start:
                scores = np.array([[VALUES[start + 1 + at]] for at in range(len(rows))])
        return SimpleNamespace(
            num_cached_tokens=cached,
            prompt_logprobs=listed(cached or 0),
            prompt_token_id_logprobs=scores,
        )


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("cached", [0, 2, 3])
async def test_a_prefix_that_ends_before_the_first_scored_row_is_reused(cached, by_id):
    vllm = VLLM(cached)
    found = await score_rows(Rows(PROMPT, [(4, 6)]), vllm, by_id=by_id)
    assert found == ({4: -4.0, 5: -5.0}, cached)
    [arguments] = vllm.asked
    assert arguments["extra_args"] == {LIMIT: 3}


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("cached", [4, 7])
async def test_a_prefix_that_reaches_further_has_the_prompt_computed_in_full(cached, by_id, caplog):
    vllm = VLLM(cached, 0)
    found = await score_rows(Rows(PROMPT, [(4, 6)]), vllm, by_id=by_id)
    assert found == ({4: -4.0, 5: -5.0}, 0)
    assert ["extra_args" in it for it in vllm.asked] == [True, False]
    assert f"{cached} of it cached" in caplog.text


async def test_rows_of_the_very_prompt_but_from_the_cache_are_not_believed():
    # Unwritten memory may be that of an earlier answer for the same prompt.
    async def stale(arguments):
        cached = 7 if "extra_args" in arguments else 0
        values = (
            listed()
            if cached == 0
            else [None, *({id_: SimpleNamespace(logprob=-50.0)} for id_ in PROMPT[1:])]
        )
        return SimpleNamespace(num_cached_tokens=cached, prompt_logprobs=values)

    assert await score_rows(Rows(PROMPT, [(4, 6)]), stale, by_id=False) == ({4: -4.0, 5: -5.0}, 0)


async def test_rows_that_stay_away_are_an_error():
    with pytest.raises(RowsError, match="no log-probability for some"):
        await score_rows(Rows(PROMPT, [(4, 6)]), VLLM(4, 4), by_id=True)


async def test_a_prompt_scored_from_its_second_token_on_is_asked_for_once_in_full():
    vllm = VLLM(None)
    assert await score_rows(Rows(PROMPT, [(1, 2)]), vllm, by_id=False) == ({1: -1.0}, 0)
    assert "extra_args" not in vllm.asked[0]
