from contextlib import aclosing

import pytest

from benchmarks.attribution.feature_ablation import is_installed
from benchmarks.attribution.measuring import RecordingScorer, measuring
from benchmarks.attribution.methods import METHODS
from mindscore.scorers.local.scorer import LocalScorer


@pytest.mark.skipif(not is_installed(), reason="captum is not installed: the extra bench")
@pytest.mark.filterwarnings("ignore")
async def test_captums_leave_one_out_has_our_values(short_case, tiny_model):
    async with (
        aclosing(LocalScorer({"model": tiny_model})) as scorer,
        measuring(short_case, RecordingScorer(scorer), ()) as measured,
    ):
        ours = await METHODS["drop"](measured)
        with measured.scorer.charged() as cost:
            theirs = await METHODS["captum"](measured)
    assert theirs["answer-0"] == pytest.approx(ours["answer-0"], abs=1e-4)
    assert cost.calls >= 1 + len(measured.keys)
