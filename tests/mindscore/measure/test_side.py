"""The limit within which a difference of two models may be noise."""

import random

import pytest

from mindhooks import Context
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.retry import Retry
from mindscore.measure.side import Side
from mindscore.measure.usage import Usage
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


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_repetitions_say_little_so_that_noise_is_seldom_a_difference(side, count):
    """As with many, although each limit rests on one to four repetitions."""
    draw, wrong = random.Random(count), 0
    for _ in range(1000):
        spread = {f"{at}": abs(draw.gauss(0, 0.2) - draw.gauss(0, 0.2)) for at in range(count)}
        it = side(spread, noisy=True)
        wrong += any(abs(draw.gauss(0, 0.2)) > it.noise_limit(f"{at}", count) for at in spread)
    assert wrong <= 0.05 * 1000


@pytest.mark.parametrize(("count", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776)])
def test_the_limit_of_few_is_student_s_t_of_their_root_mean_square(side, count, quantile):
    it = side(dict.fromkeys("abcd"[:count], 0.2), noisy=True)
    assert it.noise_limit("a", 1) == pytest.approx(0.2 * quantile, rel=1e-3)


def test_few_repetitions_that_vary_by_nothing_are_of_an_exact_model(side):
    assert side({"a": 0.0, "b": 0.0}, noisy=True).noise_limit("a", 2) == 0.0


def test_an_exact_model_has_none_and_an_unknown_noise_is_assumed(side):
    assert side({}, noisy=False).noise_limit("a", 5) == 0.0
    assert side({}, noisy=True).noise_limit("a", 5) == 1.0
