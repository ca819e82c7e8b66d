"""Why no candidate is listed, in words."""

import pytest

from mindscore.review.queue import CandidateQueue, why_empty
from mindscore.store import CandidateName, Listed, Review, RunRecord

from .client import Client


def _item(nats, decision=None, sinks=()):
    review = None if decision is None else Review(decision, "response", 1.0)
    name = CandidateName("m", round(nats * 100), f"{nats}")
    return Listed(name, nats, f"said {nats}", "", review, sinks)


def _search(found=0, threshold=1.0, largest=0.4, error=None, considered=12):
    name, cost = ("score-finetune", "m", 2e8), (1.0, 2, 3, None)
    return RunRecord(*name, *cost, found, considered, error, threshold, largest)


def why(items=(), search=None, faded=0, threshold=0.0, show="waiting"):
    return " ".join(why_empty(CandidateQueue(items, show, "", threshold), search, faded))


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (
            _search(),
            "(finetune.threshold). The largest divergence was 0.40 nats. A lower threshold finds",
        ),
        (_search(largest=3.0), "What reaches it is trained on already, or has no text."),
        (_search(), "looked at 12 responses: 0 not trained on reached the threshold of 1.00 nats"),
        (_search(considered=1), "looked at 1 response:"),
        (_search(error="cancelled"), "It did not end well: cancelled"),
        (None, "No search for candidates by this model is recorded."),
    ],
)
def test_a_search_says_what_it_has_seen_what_was_above_and_the_largest(search, told):
    assert told in why(search=search)


def test_a_lower_threshold_is_advised_only_where_it_helps():
    assert "lower threshold" not in why(search=_search(found=3, largest=9.0))
    assert "lower threshold" not in why(search=_search(considered=0))


def test_what_waits_below_the_threshold_is_counted():
    items = [_item(2.0), _item(1.5), _item(1.0, "accepted")]
    told = why(items, threshold=5.0)
    assert "2 candidates wait below the threshold of 5.00 nats: the largest has 2.00 nats." in told
    assert "Decided on already: 1 accepted." in told
    assert "1 candidate waits below" in why(items[:1], threshold=5.0)
    assert "below the threshold" not in why([_item(1.0, "accepted")], threshold=5.0)


def test_what_was_trained_on_or_decided_is_counted():
    items = [_item(3.0, sinks=("http",)), _item(2.0, "rejected"), _item(1.0, "rejected")]
    assert "Decided on already: 2 rejected, 1 trained." in why(items)


@pytest.mark.parametrize(
    ("faded", "show", "told"),
    [
        (1, "waiting", "1 more was rejected before the last 10: it is kept, and not listed."),
        (2, "rejected", "2 more were rejected before the last 10: they are kept, and not listed."),
        (2, "accepted", ""),
        (0, "waiting", "No search"),
    ],
)
def test_rejected_ones_that_have_faded_are_counted(faded, show, told):
    said = why(faded=faded, show=show)
    assert told in said
    assert ("rejected" in said) == (faded > 0 and show != "accepted")


def test_of_an_older_store_neither_threshold_nor_largest_is_known():
    told = why(search=_search(2, None, None))
    assert "looked at 12 responses: 2 not trained on reached its threshold." in told
    assert "largest" not in told


def test_a_page_without_candidates_says_what_the_last_search_saw(tables, transcript, reviewing):
    tables["finetune"]["threshold"] = 1000.0
    with reviewing(tables, transcript()) as page:
        client = Client(page).let_in()
        assert "No search for candidates" in client.ask("GET", "/candidates").text

        async def search():
            page.runs.start("score-finetune", alternates=False)
            await page.runs.quiet()

        page.run(search())
        text = " ".join(client.ask("GET", "/candidates").text.split())
    assert "looked at 5 responses: 0 not trained on reached the threshold of 1,000.00 nats" in text
    assert "The largest divergence was 70.22 nats." in text
    # As another process has it that was started since.
    with reviewing(tables) as page:
        text = " ".join(Client(page).let_in().ask("GET", "/candidates").text.split())
    assert "The largest divergence was 70.22 nats." in text
