"""Intervals and tests over conversations."""

from itertools import product

import numpy as np
import pytest
from tests.mindscore.measure.planted import archive, columns

from mindscore.measure.bootstrap import (
    FEWEST_CONVERSATIONS,
    FLIPS,
    discoveries,
    largest_p_values,
    resampled_means,
    sign_flip_p_values,
)
from mindscore.measure.evidence import MemoryVersion, judged_cells


def one_memory(effects):
    """Cells of a memory with one response in each conversation."""
    rows = [(0, at, at, effect) for at, effect in enumerate(effects)]
    return judged_cells(columns([MemoryVersion("m")], rows))


def means(cells):
    seen = np.unique(cells.conversation * cells.memories + cells.memory) % cells.memories
    return resampled_means(cells, cells.effect, np.bincount(seen, minlength=cells.memories))


def interval(effects, confidence=0.95):
    low, high = means(one_memory(effects)).intervals(confidence)
    return low[0], high[0]


def shares_that_have(mean, effects):
    """Share of intervals with the true mean in them; ``effects`` is (archives, conversations)."""
    memories, conversations = effects.shape
    # One memory for each archive, each with responses of its own.
    rows = [
        (memory, at, memory * conversations + at, effects[memory, at])
        for memory in range(memories)
        for at in range(conversations)
    ]
    versions = [MemoryVersion(str(memory)) for memory in range(memories)]
    low, high = means(judged_cells(columns(versions, rows))).intervals(0.95)
    return np.mean((low <= mean) & (mean <= high))


@pytest.mark.parametrize("conversations", [10, 15, 40])
def test_an_interval_has_the_mean_in_95_of_100_archives(conversations):
    random = np.random.default_rng(5)
    shape = (1000, conversations)
    assert 0.93 <= shares_that_have(1.0, random.normal(1.0, 1.0, shape)) <= 0.97
    # Heavy tails and long ones make any interval from few values too narrow.
    assert 0.90 <= shares_that_have(1.0, 1.0 + 0.7 * random.standard_t(4, shape)) <= 0.97
    assert 0.90 <= shares_that_have(1.0, random.exponential(1.0, shape)) <= 0.97


def test_more_evidence_narrows_an_interval_with_its_root():
    effects = np.random.default_rng(7).normal(2, 1, 1600)
    widths = [np.diff(interval(effects[:number]))[0] for number in (25, 400, 1600)]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.3)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.15)


def test_more_confidence_widens_an_interval():
    effects = np.random.default_rng(8).normal(2, 1, 30)
    (low, high), (lower, higher) = interval(effects, 0.8), interval(effects, 0.99)
    assert lower < low < high < higher


def test_of_few_conversations_there_is_no_interval():
    low, high = interval([1.0, 2.0, 3.0, 4.0][: FEWEST_CONVERSATIONS - 1])
    assert np.isnan([low, high]).all()


def test_conversations_of_many_responses_count_as_one_each():
    """A conversation's responses are not independent: ten times the responses are no evidence."""
    effects = np.random.default_rng(9).normal(1, 1, 30)
    rows = [(0, at, 10 * at + more, effects[at]) for at in range(30) for more in range(10)]
    low, high = means(judged_cells(columns([MemoryVersion("m")], rows))).intervals(0.95)
    assert (low[0], high[0]) == pytest.approx(interval(effects), rel=1e-6)


def test_a_mean_far_below_a_threshold_is_said_to_be_below_it():
    found = means(one_memory(np.random.default_rng(10).normal(0, 1, 100) + 0.001))
    far, near, above = (found.p_values_below(it)[0] for it in (1.0, 0.1, -1.0))
    assert far < 0.001 < near < 0.5 < above


def test_the_sign_flip_test_has_the_p_value_of_all_signs():
    # Each is beyond the first level alone, and cut off there: it counts one way or the other.
    effects = np.array([2.0, 1.5, 2.5, 1.2, 2.9, -1.5, 2.2, 1.1])
    exact = np.mean([sum(signs) >= 6 for signs in product((-1, 1), repeat=8)])
    helps, harms = (it[0] for it in sign_flip_p_values(one_memory(effects)))
    assert helps == pytest.approx(exact, abs=0.01)
    assert harms > 0.9
    assert sign_flip_p_values(one_memory(-effects))[1][0] == pytest.approx(helps, abs=0.005)


def test_the_smallest_p_value_is_that_of_the_draws():
    helps, _ = sign_flip_p_values(one_memory(np.full(100, 4.0)))
    assert helps[0] == 1 / (FLIPS + 1)


def test_rare_large_helps_are_found_among_many_small_effects():
    effects = 0.3 * np.random.default_rng(11).standard_t(4, 1000)
    effects[::90] = 20.0
    assert sign_flip_p_values(one_memory(effects))[0][0] < 0.01


def test_a_typical_largest_effect_is_chance_and_ten_times_that_is_not():
    chance, responses = np.full(9, 2.0), np.full(9, 100)
    p_values = largest_p_values(np.array([2.0, 20.0, 0.0] + [2.0] * 6), chance, responses)
    assert p_values[:3] == pytest.approx([0.5, 7e-4, 1.0], abs=1e-4)


def test_the_largest_of_more_responses_is_more_likely_chance():
    chance, responses = np.full(3, 2.0), np.array([100, 100, 10_000])
    p_values = largest_p_values(np.full(3, 20.0), chance, responses)
    assert p_values[2] > 50 * p_values[0]


def test_of_unseen_memories_nothing_is_known():
    assert largest_p_values(np.zeros(2), np.zeros(2), np.zeros(2, int)).tolist() == [1.0, 1.0]


def test_discoveries_are_those_of_benjamini_and_hochberg():
    p_values = np.array([0.9, 0.012, 0.001, 0.02, 0.3])
    assert discoveries(p_values, 0.05).tolist() == [False, True, True, True, False]
    assert not discoveries(p_values + 0.05, 0.05).any()
    assert not len(discoveries(np.zeros(0), 0.05))


def test_many_conversations_are_handled_in_blocks(monkeypatch):
    """Sums over blocks of conversations are sums over all."""
    cells = judged_cells(archive(50, 1))
    whole = means(cells)
    monkeypatch.setattr("mindscore.measure.bootstrap._CONVERSATIONS", 7)
    blocks = means(cells)
    assert blocks.means == pytest.approx(whole.means)
    assert blocks.errors == pytest.approx(whole.errors)
    for one, other in zip(blocks.intervals(0.9), whole.intervals(0.9), strict=True):
        assert one == pytest.approx(other, abs=0.25 * np.nanmax(whole.errors))


def test_many_memories_are_handled_in_groups_with_equal_results(monkeypatch):
    cells = judged_cells(archive(20, 1))
    whole, whole_p = means(cells), sign_flip_p_values(cells)
    monkeypatch.setattr("mindscore.measure.bootstrap._MEMORIES", 7)
    groups, groups_p = means(cells), sign_flip_p_values(cells)
    assert groups.resampled == pytest.approx(whole.resampled)
    assert np.array(groups_p) == pytest.approx(np.array(whole_p), abs=2 / FLIPS)
