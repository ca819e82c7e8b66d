import numpy as np
import pytest

from benchmarks.attribution.ablations import PENALTY, lasso, logit, random_masks


def test_the_first_of_many_masks_are_those_of_few():
    assert (random_masks(64, 9)[:8] == random_masks(8, 9)).all()
    assert random_masks(400, 10).mean() == pytest.approx(0.5, abs=0.02)
    assert random_masks(0, 9).shape == (0, 9)


def test_the_masks_are_those_of_the_package():
    # Of context-cite 0.0.4, utils._create_mask(5, 0.5, seed) for the seeds 0 and 1.
    assert random_masks(2, 5).tolist() == [
        [True, True, True, True, False],
        [False, True, False, False, False],
    ]


def test_a_logit_is_finite_for_a_certain_answer():
    assert logit([np.log(0.5)])[0] == pytest.approx(0.0)
    assert logit([-1000.0])[0] == pytest.approx(-1000.0)
    assert np.isfinite(logit([0.0, -1e-18])).all()


def test_few_memories_that_matter_are_found_and_the_others_are_zero():
    masks = random_masks(64, 12)
    truth = np.zeros(12)
    truth[[2, 7]] = 6.0, -4.0
    found = lasso(masks, masks @ truth + 1.5, tokens=4)
    assert found[[2, 7]] == pytest.approx(truth[[2, 7]], abs=4 * 4 * PENALTY)
    assert np.abs(np.delete(found, [2, 7])).max() < 0.01


def test_a_memory_that_every_mask_keeps_has_no_coefficient():
    masks = random_masks(32, 4)
    masks[:, 1] = True
    assert lasso(masks, masks @ np.ones(4), tokens=1)[1] == 0.0


def test_the_fit_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    scaling = pytest.importorskip("sklearn.preprocessing")
    random = np.random.default_rng(5)
    masks, tokens = random_masks(64, 20), 3
    values = masks @ random.normal(size=20) + random.normal(size=64)
    scaler, fit = scaling.StandardScaler(), linear.Lasso(alpha=PENALTY, tol=1e-8, max_iter=10_000)
    fit.fit(scaler.fit_transform(masks.astype(float)), values / tokens)
    assert lasso(masks, values, tokens) == pytest.approx(
        fit.coef_ / scaler.scale_ * tokens, abs=1e-5
    )
