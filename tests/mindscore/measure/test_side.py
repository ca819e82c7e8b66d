"""The limit within which a difference of two models may be noise."""

import random

import pytest

from mindhooks import Context
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache, Usage
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.retry import Retry
from mindscore.measure.side import Side
from mindscore.scorers.toy import ToyScorer


@pytest.fixture
def side():
    """Makes a side whose responses' totals have varied: ``side({"a": 0.5}, noisy=True)``."""

    def make(spread, noisy):
        scorer, server, context = ToyScorer(), ServerSettings(), Context((), (), ())
        scorer.noisy = noisy
        cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(server))
        noise = NoiseFloor(cached, 0)
        noise.spread.update(spread)
        return Side(scorer, server, context, cached, noise, LeaveOneOut(cached, context, noise))

    return make


def test_noise_is_exceeded_by_chance_in_few_of_many_comparisons(side):
    """Two totals of normal noise, repeated once each: the limit of 18 responses holds mostly."""
    draw, wrong = random.Random(5), 0
    for _ in range(300):
        spread = {f"{at}": abs(draw.gauss(0, 0.2) - draw.gauss(0, 0.2)) for at in range(18)}
        it = side(spread, noisy=True)
        # Against an exact model.
        wrong += any(abs(draw.gauss(0, 0.2)) > it.noise_limit(f"{at}", 18) for at in range(18))
    assert wrong <= 0.05 * 300


def test_an_effect_has_more_noise_than_a_total_and_many_more_than_one(side):
    it = side(dict.fromkeys("abcdef", 0.2), noisy=True)
    one, many = it.noise_limit("a", 1), it.noise_limit("a", 400)
    assert 0.2 < one < many < it.noise_limit("a", 400, differences=True)


def test_a_response_that_varies_more_than_most_has_its_own_noise(side):
    it = side({**dict.fromkeys("abcdef", 0.01), "g": 3.0}, noisy=True)
    assert it.noise_limit("g", 7) == 3.0
    assert it.noise_limit("a", 7) < 0.1


def test_few_repetitions_say_no_more_than_of_themselves(side):
    assert side({"a": 0.2, "b": 0.3}, noisy=True).noise_limit("a", 100) == 0.2


def test_an_exact_model_has_none_and_an_unknown_noise_is_assumed(side):
    assert side({}, noisy=False).noise_limit("a", 5) == 0.0
    assert side({}, noisy=True).noise_limit("a", 5) == 1.0
