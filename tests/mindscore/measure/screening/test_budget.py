"""The tokens of a screened matrix, and what still fits."""

import pytest

from mindhooks import WirePrompt
from mindscore.measure.screening.budget import ScreenBudget
from mindscore.measure.screening.spans import MemorySpans, Tokens
from mindscore.measure.usage import Usage


@pytest.fixture
def spans():
    """Three memories of one, of five and of ten tokens before a response, in 40 tokens."""
    prompt = WirePrompt(tuple(range(40)), (), ((30, 40),), ("r",))
    its = {"short": [[(2, 3)]], "mid": [[(3, 8)]], "long": [[(8, 18)]]}
    return MemorySpans([prompt], its, reuses=True)


def test_a_call_that_fails_does_not_make_what_was_computed_the_number_of_tokens_sent(spans):
    usage = Usage()
    usage.prompt_tokens, usage.computed_tokens, usage.known_computed = 400, 40, 40
    budget = ScreenBudget(spans, usage, spans.spans, hold=False, max_tokens=0)
    assert budget.unit == "computed"
    usage.prompt_tokens, usage.computed_tokens = 440, None
    assert budget.fits(budget.cost(["mid"]))
    assert budget.unit == "sent"
    assert budget.in_unit(budget.spent) == 440
    # What is sent is limited still.
    usage.prompt_tokens = budget.exact.sent
    assert not budget.fits(budget.cost(["mid"]))


@pytest.mark.parametrize(("limit", "many"), [(0, 3), (38, 0), (39, 1), (73, 1), (74, 2)])
def test_so_many_fit_as_the_dearest_do(limit, many, spans):
    budget = ScreenBudget(spans, Usage(), spans.spans, hold=False, max_tokens=limit)
    assert budget.affordable_any(spans.spans, 8) == many
    assert budget.affordable_any(spans.spans, 1) == min(1, many)
    assert Tokens(39, 37) == budget.cost(["short"])
