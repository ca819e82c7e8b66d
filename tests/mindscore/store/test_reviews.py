"""What an operator decided about candidates, in real stores."""

import time
from dataclasses import replace

import pytest

from mindhooks import FinetuneCandidate
from mindscore._util.errors import StoreError, UsageError
from mindscore.config.settings import StoreSettings
from mindscore.store import CandidateName, ConflictError, Listed, Review, Reviews, Store

SAID = FinetuneCandidate(3, "n", 2.0, "said", "[user]", (1, 2), (2,), (3, 9), "else", (4, 9), 7)
ACCEPTED = Review("accepted", "response", 1.0)
REJECTED = Review("rejected", "response", 2.0)
EDITED = Review("accepted", "edited", 3.0, "so", (5, 9))


@pytest.fixture
def settings(url):
    return StoreSettings(url)


@pytest.fixture
def store(settings):
    return Store(settings)


@pytest.fixture
def reviews(settings):
    return Reviews(settings)


async def test_candidates_come_with_the_largest_divergence_first(store, reviews):
    for stamp, divergence in enumerate((1.0, 3.0, 2.0)):
        found = replace(SAID, divergence=divergence, timestamp_ns=stamp)
        await store.record_candidate(found, "m")
    await store.record_candidate(replace(SAID, divergence=9.0), "other")
    assert [it.candidate.divergence for it in await reviews.queue("m")] == [3.0, 2.0, 1.0]
    assert [it.model for it in await reviews.queue()] == ["other", "m", "m", "m"]


async def test_a_decision_counts_until_it_is_taken_back(store, reviews):
    await store.record_candidate(SAID, "m")
    [waiting] = await reviews.queue()
    assert waiting.candidate == SAID
    assert waiting.review is None
    for review in (ACCEPTED, REJECTED, EDITED):
        await reviews.decide(waiting.name, review)
        assert (await reviews.one(waiting.name)).review == review
        with pytest.raises(ConflictError, match=f"was {review.decision} meanwhile"):
            await reviews.decide(waiting.name, ACCEPTED)
        with pytest.raises(ConflictError, match="was undone meanwhile"):
            await reviews.undo(waiting.name, review.decided_at + 0.5)
        assert [it.review for it in await reviews.queue()] == [review]
        await reviews.undo(waiting.name, review.decided_at)
        assert [it.review for it in await reviews.queue()] == [None]
        with pytest.raises(ConflictError, match="was undone meanwhile"):
            await reviews.undo(waiting.name, review.decided_at)


async def test_what_is_trained_on_is_not_taken_back(store, reviews):
    await store.record_candidate(SAID, "m")
    [waiting] = await reviews.queue()
    await reviews.decide(waiting.name, ACCEPTED)
    await store.mark_trained([(7, (3, 9))], "job", "http")
    with pytest.raises(ConflictError, match="trained on already"):
        await reviews.undo(waiting.name, ACCEPTED.decided_at)
    assert [it.review for it in await reviews.queue()] == [ACCEPTED]


async def test_a_list_names_what_the_queue_holds(store, reviews):
    for stamp in range(3):
        await store.record_candidate(replace(SAID, divergence=1.0 + stamp, timestamp_ns=stamp), "m")
    await store.record_candidate(SAID, "other")
    await store.import_trained([0])
    queue = await reviews.queue("m")
    await reviews.decide(queue[0].name, REJECTED)
    queue = await reviews.queue("m")
    listed = await reviews.listed("m")
    for whole, brief in zip(queue, listed, strict=True):
        assert brief == Listed(
            whole.name,
            whole.candidate.divergence,
            "said",
            SAID.prior_context,
            whole.review,
            whole.sinks,
        )
        assert await reviews.one(whole.name) == whole
    assert await reviews.one(CandidateName("m", 9, "none")) is None


async def test_an_alternate_is_chosen_as_it_was_seen(store, reviews):
    await store.record_candidate(SAID, "m")
    [waiting] = await reviews.queue()
    seen = replace(ACCEPTED, answer="alternate", ids=SAID.alternate_ids)
    await store.record_candidate(replace(SAID, alternate_text="new", alternate_ids=(8, 9)), "m")
    with pytest.raises(ConflictError, match="found again with another answer"):
        await reviews.decide(waiting.name, seen)
    await reviews.decide(waiting.name, replace(seen, ids=(8, 9)))
    assert (await reviews.one(waiting.name)).review.text == "new"


async def test_a_candidate_found_again_without_an_alternate_keeps_its_own(store, reviews):
    await store.record_candidate(SAID, "m")
    bare = replace(SAID, divergence=5.0, alternate_text=None, alternate_ids=None)
    await store.record_candidate(bare, "m")
    assert [it.candidate for it in await reviews.queue()] == [replace(SAID, divergence=5.0)]
    # Another response's is not taken over, nor one without ids left as it was.
    await store.record_candidate(replace(bare, timestamp_ns=8), "m")
    await store.record_candidate(replace(SAID, alternate_text="new", alternate_ids=None), "m")
    found = {it.candidate.timestamp_ns: it.candidate for it in await reviews.queue()}
    assert found[8].alternate_text is None
    assert (found[7].alternate_text, found[7].alternate_ids) == ("new", None)


@pytest.mark.parametrize(
    ("review", "ids"),
    [
        (None, (3, 9)),
        (ACCEPTED, (3, 9)),
        (replace(ACCEPTED, answer="alternate"), (4, 9)),
        (EDITED, (5, 9)),
    ],
)
async def test_the_answer_to_train_on_is_the_chosen_one(store, reviews, review, ids):
    await store.record_candidate(SAID, "m")
    [waiting] = await reviews.queue()
    if review is not None:
        await reviews.decide(waiting.name, review)
    [now] = await reviews.queue()
    assert now.answer_ids == ids


async def test_a_decision_is_about_one_candidate_of_one_model(store, reviews):
    others = [replace(SAID, timestamp_ns=8), replace(SAID, continuation_ids=(4, 9))]
    for found in (SAID, *others):
        await store.record_candidate(found, "m")
    await store.record_candidate(SAID, "other")
    [name] = [it.name for it in await reviews.queue("m") if it.candidate == SAID]
    await reviews.decide(name, ACCEPTED)
    decided = [it.name for it in await reviews.queue() if it.review is not None]
    assert decided == [name]


async def test_a_candidate_found_again_keeps_its_review(store, reviews):
    await store.record_candidate(SAID, "m")
    [waiting] = await reviews.queue()
    await reviews.decide(waiting.name, REJECTED)
    await store.record_candidate(replace(SAID, divergence=5.0), "m")
    [again] = await reviews.queue()
    assert again.candidate.divergence == 5.0
    assert again.review == REJECTED


async def test_what_is_not_kept_cannot_be_decided(store, reviews):
    await store.record_candidate(SAID, "m")
    with pytest.raises(StoreError, match="not kept any more"):
        await reviews.decide(CandidateName("m", 7, "no such hash"), ACCEPTED)
    assert [it.review for it in await reviews.queue()] == [None]


async def test_an_alternate_without_ids_cannot_be_the_answer_to_train_on(store, reviews):
    await store.record_candidate(replace(SAID, alternate_ids=None), "m")
    [waiting] = await reviews.queue()
    with pytest.raises(UsageError, match="ids of that answer are unknown"):
        await reviews.decide(waiting.name, replace(ACCEPTED, answer="alternate"))
    assert [it.review for it in await reviews.queue()] == [None]


async def test_a_chosen_alternate_stays_chosen_when_the_candidate_is_found_without_one(
    store, reviews
):
    await store.record_candidate(SAID, "m")
    [waiting] = await reviews.queue()
    await reviews.decide(waiting.name, replace(ACCEPTED, answer="alternate"))
    await store.record_candidate(replace(SAID, alternate_text=None, alternate_ids=None), "m")
    [again] = await reviews.queue()
    assert again.answer_ids == SAID.alternate_ids
    assert again.review.text == SAID.alternate_text


async def test_what_is_trained_on_cannot_be_decided_and_says_by_which_sinks(store, reviews):
    await store.record_candidate(SAID, "m")
    for sink in ("jsonl", "http"):
        await store.mark_trained([(7, (3, 9))], "job", sink)
    [trained] = await reviews.queue()
    assert trained.sinks == ("http", "jsonl")
    with pytest.raises(StoreError, match="trained on already"):
        await reviews.decide(trained.name, REJECTED)


async def test_a_review_goes_with_its_candidate(settings, reviews, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3 * 24 * 3600)
    await Store(settings).record_candidate(SAID, "m")
    monkeypatch.undo()
    [old] = await reviews.queue()
    await reviews.decide(old.name, EDITED)
    days = StoreSettings(settings.url, retention_days=2.0)
    fresh = replace(SAID, timestamp_ns=8)
    await Store(days).record_candidate(fresh, "m")
    assert [it.candidate for it in await reviews.queue()] == [fresh]
    # Found anew, it has not been decided on.
    await Store(days).record_candidate(SAID, "m")
    assert [it.review for it in await reviews.queue()] == [None, None]


async def test_a_review_stays_with_a_candidate_that_is_found_again_after_the_retention(
    settings, reviews, monkeypatch
):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3 * 24 * 3600)
    await Store(settings).record_candidate(SAID, "m")
    monkeypatch.undo()
    [old] = await reviews.queue()
    await reviews.decide(old.name, REJECTED)
    await Store(StoreSettings(settings.url, retention_days=2.0)).record_candidate(SAID, "m")
    [found] = await reviews.queue()
    assert found.review is not None
    assert found.review.decision == "rejected"


async def test_a_store_that_is_not_there_has_an_empty_queue(reviews, tmp_path):
    assert await reviews.queue() == []
    assert list(tmp_path.glob("*.sqlite3")) == []


async def test_a_queue_can_be_of_one_conversation(store, reviews):
    for stamp, conversation in enumerate(("one", "two")):
        found = replace(SAID, timestamp_ns=stamp)
        await store.record_candidate(found, "m", conversation=conversation)
    for stamp, conversation in enumerate(("one", "two")):
        [kept] = await reviews.queue("m", conversation)
        assert kept.candidate.timestamp_ns == stamp
    assert await reviews.queue("m", "three") == []


async def test_a_verdict_says_what_was_decided_when_and_who_took_it(store, reviews):
    await store.record_candidate(SAID, "m")
    [kept] = await reviews.queue()
    assert kept.verdict == "not decided"
    edited = replace(kept, review=replace(EDITED, decided_at=time.time() - 3 * 3600))
    assert edited.verdict.startswith("accepted (edited) 20")
    assert edited.verdict.endswith(", 3 hours ago")
    assert replace(kept, sinks=("", "jsonl")).verdict == (
        "not decided; trained: imported as trained, jsonl"
    )
