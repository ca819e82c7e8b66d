import pytest
from tests.benchmarks.attribution.invented import write_sets

from benchmarks.attribution.cases import read_cases
from benchmarks.attribution.measuring import RecordingScorer, measuring
from mindscore.scorers.toy import ToyScorer


class CountingToy(ToyScorer):
    """The toy scorer, with the prompts that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    async def score(self, prompts):
        self.asked += prompts
        return await super().score(prompts)


@pytest.fixture
def folder(tmp_path):
    return write_sets(tmp_path / "sets")


@pytest.fixture
def toy():
    return CountingToy()


@pytest.fixture
async def measured(folder, toy):
    """A case of hotpotqa, ready to be measured, with all subsets of its sentences."""
    case = next(read_cases(folder, "hotpotqa", 0))
    keys = case.transcript.keys()
    without = [
        {key for at, key in enumerate(keys) if number >> at & 1} for number in range(2 ** len(keys))
    ]
    async with measuring(case, RecordingScorer(toy), without) as found:
        yield found
