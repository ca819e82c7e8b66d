import json

import pytest
from tests.benchmarks.attribution.invented import write_sets
from tests.mindscore.conftest import tokenizer_file  # noqa: F401
from tests.mindscore.tiny_model import write_tiny_model

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


@pytest.fixture
def tiny_model(tmp_path, tokenizer_file):  # noqa: F811
    """The folder of a model with random weights."""
    pytest.importorskip("torch")
    return str(write_tiny_model(tmp_path / "tiny", tokenizer_file))


@pytest.fixture
def short_case(folder):
    """A case that the tiny model can read."""
    file = folder / "causal_locomo_3.jsonl"
    item = json.loads(file.read_text().splitlines()[0])
    file.write_text(json.dumps(item | {"memory_bank": item["memory_bank"][:2]}))
    return next(read_cases(folder, "causal-locomo", 0))
