import math
from contextlib import aclosing

import pytest

from benchmarks.attribution.distributions import Distributions
from benchmarks.attribution.measuring import RecordingScorer, measuring
from benchmarks.attribution.methods import METHODS
from mindhooks import ScorerError, WirePrompt
from mindscore.measure.memories import skip_none, skip_only
from mindscore.scorers.local.scorer import LocalScorer

torch = pytest.importorskip("torch")


def by_hand(one, other):
    """The Jensen-Shannon divergence of two rows of logits, in nats."""
    p, q = one.double().softmax(-1), other.double().softmax(-1)
    middle = (p + q) / 2
    return (((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2).item()


async def test_the_divergence_is_that_of_the_models_whole_distributions(short_case, tiny_model):
    async with aclosing(LocalScorer({"model": tiny_model})) as scorer:
        distributions = Distributions()
        await distributions.watch(scorer)
        async with measuring(short_case, RecordingScorer(scorer, distributions), ()) as measured:
            found = (await METHODS["jsd"](measured))["answer-0"]
            loaded = (await scorer._load())._model

            def rows(prompt):
                start, end = prompt.ranges[0]
                with torch.inference_mode():
                    logits = loaded(input_ids=torch.tensor([prompt.tokens])).logits
                return logits[0, start - 1 : end - 1]

            [prompt] = await measured.prompts(skip_none)
            whole = rows(prompt)
            without = [await measured.prompts(skip_only(key)) for key in measured.keys]
            expected = [sum(map(by_hand, whole, rows(prompt))) for [prompt] in without]
    assert found == pytest.approx(expected, abs=1e-5)
    assert 0 < min(found) <= max(found) <= math.log(2) * len(measured.answer("answer-0"))


async def test_what_was_not_noted_is_no_distribution():
    prompt = WirePrompt((1, 2, 3), (), ((1, 3),), ("a",))
    with pytest.raises(ScorerError, match="logits of the responses"):
        Distributions().shifts(prompt)


async def test_a_prompt_that_two_conversations_share_is_computed_for_each(short_case, tiny_model):
    async with aclosing(LocalScorer({"model": tiny_model})) as scorer:
        distributions = Distributions()
        await distributions.watch(scorer)
        found = []
        for _ in range(2):
            distributions.begin()
            recording = RecordingScorer(scorer, distributions)
            async with measuring(short_case, recording, ()) as measured:
                found.append(await METHODS["jsd"](measured))
    assert found[0] == found[1]
