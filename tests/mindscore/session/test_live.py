"""What attached agents do by themselves: candidates, and the tokens of an hour."""

import asyncio
import hashlib
import logging
import time

import pytest

from mindhooks import MindCommand
from mindscore.config.settings import StoreSettings
from mindscore.measure.prompts import response_hash
from mindscore.store import CandidateName, History, Review, Reviews, Store

from ..living import DOG, MEMORIES, PATIENCE_S, TEA, Agent, eventually

HOUR_S = 3600.0


@pytest.fixture
def live(tmp_path):
    """Makes agents that live in one store; they are closed at the end."""
    made = []

    def make(clock=None, folder=tmp_path, **options):
        made.append(Agent(folder, clock, **options))
        return made[-1]

    yield make
    for it in made:
        it.mind.close()


def stored(tmp_path):
    return StoreSettings(url=f"sqlite:///{tmp_path}/store.sqlite3")


def runs(tmp_path):
    """The runs so far, the oldest first."""
    return asyncio.run(History(stored(tmp_path)).runs())[::-1]


def sent(tmp_path):
    return sum(it.prompt_tokens for it in runs(tmp_path))


def decide(tmp_path, candidate, decision):
    hash_ = response_hash(candidate.continuation_ids)
    name = CandidateName("toy", candidate.timestamp_ns, hash_)
    review = Review(decision, "response", time.time())
    asyncio.run(Reviews(stored(tmp_path)).decide(name, review))


def train(tmp_path, candidate):
    accepted = [(candidate.timestamp_ns, candidate.continuation_ids)]
    asyncio.run(Store(stored(tmp_path)).mark_trained(accepted, "job"))


def verdicts(tmp_path):
    listed = asyncio.run(Reviews(stored(tmp_path)).listed("toy"))
    return {it.response_text: it.review.decision if it.review else None for it in listed}


# -- candidates -----------------------------------------------------------------------------------


def test_candidates_are_looked_for_after_a_turn_only_if_the_settings_say_so(live):
    agent = live()
    agent.turn()
    assert (agent.shown, agent.mind.state.finetune_last_run) == ([], None)
    agent = live(live={"candidates": True})
    agent.turn()
    assert agent.shown == ["A pot of rooibos in the evening."]


def test_an_idle_agent_looks_for_candidates_too(live):
    agent = live(live={"candidates": True}, every_turns=0, idle_s=60.0)
    agent.turn()
    eventually(lambda: agent.clock.sleepers)
    assert agent.shown == []
    agent.clock.pass_s(60)
    eventually(lambda: agent.shown == ["A pot of rooibos in the evening."])


def test_a_conversation_without_a_new_response_is_not_searched_again(live, tmp_path):
    agent = live(live={"candidates": True})
    agent.turn()
    for _ in range(3):
        agent.mind.turn_ended()
        agent.mind._under_way.result(PATIENCE_S)
    searches = [it for it in runs(tmp_path) if it.command == MindCommand.SCORE_FINETUNE]
    assert len(searches) == 1
    assert agent.shown == ["A pot of rooibos in the evening."]


def searching(live, count):
    """An agent with so many secrets that looks for candidates, and its answers with them."""
    secrets = [secret(number) for number in range(count)]
    memories = {f"m{number}": text for number, text in enumerate(secrets)}
    finetune = {"window_fraction": 1.0, "threshold": 5.0}
    return live(memories=memories, live={"candidates": True}, finetune=finetune), secrets


def secret(number):
    word = hashlib.sha256(str(number).encode()).hexdigest()
    return f"{word[:9]} {word[9:18]} {word[18:27]}"


def test_decisions_survive_later_runs_restarts_and_the_growth_of_the_conversation(live, tmp_path):
    first, said = searching(live, 6)
    for number in range(4):
        first.turn(f"Secret {number}?", said[number])
    found = {it.response_text: it for it in first.mind.state.finetune_candidates}
    assert set(found) == set(said[:4])
    decide(tmp_path, found[said[0]], "rejected")
    decide(tmp_path, found[said[1]], "accepted")
    decide(tmp_path, found[said[2]], "accepted")
    train(tmp_path, found[said[2]])
    first.turn("Secret 4?", said[4])
    expected = dict(zip(said[:5], ["rejected", "accepted", "accepted", None, None], strict=True))
    assert verdicts(tmp_path) == expected
    assert set(first.shown) == {*said[:5]} - {said[2]}
    first.mind.close()
    # As another process: the host prints the date, too, and another order of memories.
    second, _ = searching(live, 6)
    facts = second.messages[0]["content"].splitlines()
    head = "\n".join([facts[0], "Today is Friday.", *facts[:0:-1]])
    second.messages[:] = [{"role": "system", "content": head}, *first.messages[1:]]
    second.turn("Secret 5?", said[5])
    assert verdicts(tmp_path) == {**expected, said[5]: None}
    assert set(second.shown) == {*said} - {said[2]}


def test_a_candidate_that_is_sent_leaves_the_screen_with_the_next_run(live, tmp_path):
    agent = live(live={"candidates": True})
    agent.turn()
    [candidate] = agent.mind.state.finetune_candidates
    train(tmp_path, candidate)
    # Nothing new was said: the run is not one of finetune-scoring.
    agent.mind.turn_ended()
    agent.mind._under_way.result(PATIENCE_S)
    assert agent.shown == []


def test_of_the_rejected_ones_the_ten_latest_are_listed_and_the_others_kept(live, tmp_path):
    agent, said = searching(live, 14)
    for number in range(12):
        agent.say(f"Secret {number}?", said[number])
    agent.turn("The last?", said[12])
    found = {it.response_text: it for it in agent.mind.state.finetune_candidates}
    assert set(found) == set(said[:13])
    for text in said[:12]:
        decide(tmp_path, found[text], "rejected")
    agent.turn("And more?", said[13])
    assert set(agent.shown) == verdicts(tmp_path).keys() == set(said[2:])
    reviews = Reviews(stored(tmp_path))
    kept = asyncio.run(reviews.queue("toy"))
    assert len(kept) == 14
    # One is undone: the next older one is listed again.
    last = next(it for it in kept if it.candidate.response_text == said[11])
    asyncio.run(reviews.undo(last.name, last.review.decided_at))
    assert verdicts(tmp_path).keys() == set(said[1:])


# -- the tokens of an hour ------------------------------------------------------------------------


def memories_of(count):
    return {
        f"m{number}": f"Fact {number} is about tea of kind {number}." for number in range(count)
    }


def budgeted(live, tokens, **options):
    settings = {"memory": {"token_cutoff": 1.0, "interval_s": 7200}}
    limits = {"tokens_per_hour": tokens, "candidates": options.pop("candidates", False)}
    return live(memories=memories_of(8), live=limits, **settings, **options)


def test_what_does_not_fit_into_the_hour_waits_is_said_and_is_scored_later(live, tmp_path, caplog):
    agent = budgeted(live, 400)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    statuses = [it.status for it in agent.mind.state.memory_last_run.outcomes.values()]
    assert {"scored", "left-out"} == set(statuses)
    first = statuses.count("scored")
    assert sent(tmp_path) <= 400
    assert agent.mind.remarks == (
        f"{8 - first} memories waiting for tokens (live.tokens_per_hour = 400)",
    )
    for _ in range(3):
        agent.turn("And?", "So.")
    logged = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
    assert [line.partition(":")[0] for line in logged] == ["live.tokens_per_hour is used up"]
    assert sent(tmp_path) <= 400
    agent.clock.pass_s(HOUR_S)
    agent.turn("Again?", "Again.")
    assert 400 < sent(tmp_path) <= 800
    assert sum(it.found for it in runs(tmp_path)) > first


def test_an_idle_agent_goes_on_once_tokens_are_free_and_none_is_lost(live, tmp_path):
    agent = budgeted(live, 400, idle_s=60.0, every_turns=0)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    heard = agent.mind.state.memory_scores
    eventually(lambda: agent.clock.sleepers)
    agent.clock.pass_s(60)
    for hour in range(1, 8):
        eventually(lambda: agent.clock.sleepers)
        before = len(heard)
        if before == 8:
            break
        eventually(lambda: agent.mind._live.retry_s is not None)
        agent.clock.pass_s(HOUR_S)
        eventually(lambda: len(heard) > before, f"nothing in hour {hour}")  # noqa: B023
    assert heard.keys() == memories_of(8).keys()
    eventually(lambda: agent.mind.remarks == ())
    assert sum(it.found for it in runs(tmp_path)) == 8


def test_memories_that_no_hour_has_tokens_for_are_named_and_not_waited_for(live, tmp_path, caplog):
    agent = budgeted(live, 20)
    agent.turn()
    [remark] = agent.mind.remarks
    assert remark == (
        "some memories need more tokens than live.tokens_per_hour = 20: raise it, or score by hand"
    )
    assert remark in caplog.messages
    assert agent.mind._live.retry_s is None
    assert agent.mind.score().result(PATIENCE_S).scores.keys() == memories_of(8).keys()


def test_the_search_for_candidates_waits_for_its_tokens_and_then_goes_first(live, tmp_path):
    agent = budgeted(live, 400, candidates=True)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    assert agent.mind.state.finetune_last_run is None
    assert "the search for candidates waits for" in agent.mind.remarks[-1]
    for _ in range(5):
        agent.clock.pass_s(HOUR_S / 4)
        agent.turn("And?", "So.")
    assert agent.mind.state.finetune_last_run is not None
    assert agent.mind.state.finetune_last_run.error is None


def test_alternates_that_are_generated_count(live, tmp_path):
    finetune = {"generate_alternates": True, "max_alternate_tokens": 400, "window_fraction": 1.0}
    tables = {"live": {"tokens_per_hour": 400, "candidates": True}, "finetune": finetune}
    agent = live(**tables)
    agent.turn()
    assert any("the search for candidates needs more tokens" in it for it in agent.mind.remarks)
    agent = live(**tables | {"live": {"tokens_per_hour": 40_000, "candidates": True}})
    agent.turn()
    assert agent.shown == ["A pot of rooibos in the evening."]


def test_what_another_process_has_sent_counts_and_what_is_scored_by_hand(live, tmp_path):
    agent = budgeted(live, 4000)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    from mindscore.session import hourly_tokens

    # As a process that was started anew: it knows what the store has.
    hourly_tokens.hourly_tokens.cache_clear()
    before = sent(tmp_path)
    assert before > 0
    again = budgeted(live, before + 10, folder=tmp_path)
    again.turn("Which tea is it, then?", "Tea of kind 4, fact 4.")
    assert sent(tmp_path) <= before + 10
    assert {it.status for it in again.mind.state.memory_last_run.outcomes.values()} == {"left-out"}


def test_several_agents_of_one_store_share_the_hour(live, tmp_path):
    one, other = budgeted(live, 400), budgeted(live, 400)
    other.clock.seconds = one.clock.seconds
    one.turn("Which tea?", "Tea of kind 3, fact 3.")
    other.turn("Another talk?", "Tea of kind 5, fact 5.")
    assert sent(tmp_path) <= 400


def test_a_conversation_that_waits_is_scored_though_another_one_has_begun(live, tmp_path):
    agent = budgeted(live, 500)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    talk = agent.mind._session.transcript.id
    del agent.messages[1:]
    agent.turn("A new talk?", "Tea of kind 5, fact 5.")
    assert agent.mind._session.transcript.id != talk
    assert "1 earlier conversation waiting for tokens" in agent.mind.remarks
    for _ in range(12):
        agent.clock.pass_s(HOUR_S)
        agent.mind.turn_ended()
        agent.mind._under_way.result(PATIENCE_S)
    scores = asyncio.run(Store(stored(tmp_path)).known_scores("toy", talk))
    assert {it.key for it in scores} == memories_of(8).keys()
    assert "1 earlier conversation waiting for tokens" not in agent.mind.remarks
    # The screen is of the present one.
    responses = {id_ for _, id_ in agent.mind._session.transcript.responses()}
    assert agent.mind.leaned_on() is not None
    assert {it.node_id for it in agent.mind.leaned_on()} <= responses


def test_a_conversation_that_waits_is_not_tokenised_again_until_tokens_may_be_free(live):
    agent = budgeted(live, 300)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    del agent.messages[1:]
    agent.turn("A new talk?", "Tea of kind 5, fact 5.")
    assert "1 earlier conversation waiting for tokens" in agent.mind.remarks
    scorer = agent.mind.registry.submit(agent.mind.registry.registry.scorer()).result(PATIENCE_S)
    tokenize, asked = scorer.tokenize, []

    async def noted(text):
        asked.append(text)
        return await tokenize(text)

    scorer.tokenize = noted
    agent.turn("And now?", "So.")
    assert not any("Which tea?" in it for it in asked)
    assert "1 earlier conversation waiting for tokens" in agent.mind.remarks
    agent.clock.pass_s(HOUR_S)
    agent.turn("And then?", "Well.")
    assert any("Which tea?" in it for it in asked)


@pytest.mark.parametrize("jump", [-10 * 365 * 86400.0, -1800.0, 5 * 86400.0])
def test_a_clock_that_is_set_frees_no_tokens_and_holds_back_nothing(
    jump, live, tmp_path, monkeypatch
):
    now, jumped = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + jumped[0])
    agent = budgeted(live, 400)
    agent.turn("Which tea?", "Tea of kind 3, fact 3.")
    before = sent(tmp_path)
    jumped[0] = jump
    agent.turn("And?", "So.")
    assert sent(tmp_path) <= max(400, before)
    for _ in range(9):
        agent.clock.pass_s(HOUR_S)
        jumped[0] += HOUR_S
        agent.turn("And?", "So.")
    scores = asyncio.run(Store(stored(tmp_path)).known_scores("toy"))
    assert {it.key for it in scores} == memories_of(8).keys()


def test_without_a_limit_no_run_is_counted_beforehand(live, monkeypatch):
    from mindscore.session import hourly_tokens

    monkeypatch.setattr(hourly_tokens, "count_calls", None)
    agent = live(live={"candidates": True})
    agent.turn()
    assert agent.shown == ["A pot of rooibos in the evening."]


# -- what a response leaned on --------------------------------------------------------------------


def test_what_a_response_leaned_on_is_told_strongest_first_and_the_reverse(live):
    agent = live()
    assert agent.mind.leaned_on() is None
    agent.turn("My dog?", DOG)
    agent.turn("And the evening?", f"{TEA} {DOG}")
    agent.mind.score("score-full").result(PATIENCE_S)
    [first, second] = [id_ for _, id_ in agent.mind._session.transcript.responses()]
    leaned = agent.mind.leaned_on()
    assert [it.key for it in leaned] == ["tea", "dog"]
    assert leaned == agent.mind.leaned_on(second)
    assert leaned[0].nats > leaned[1].nats > 1
    assert [it.key for it in agent.mind.leaned_on(first)] == ["dog"]
    assert [it.node_id for it in agent.mind.responses_of("dog")] == [first, second]
    assert [it.node_id for it in agent.mind.responses_of("tea")] == [second]
    assert agent.mind.responses_of("nobody") == ()
    assert agent.mind.leaned_on("nothing") is None


def test_what_was_measured_before_a_restart_is_told_after_it(live):
    hourly = {"memory": {"token_cutoff": 1.0, "interval_s": 3600}}
    first = live(**hourly)
    first.turn("My dog?", DOG)
    first.turn("And the evening?", f"{TEA} {DOG}")
    first.mind.score("score-full").result(PATIENCE_S)
    responses = [id_ for _, id_ in first.mind._session.transcript.responses()]
    before = [first.mind.leaned_on(it) for it in responses]
    assert all(before)
    first.mind.close()
    second = live(**hourly)
    second.messages[:] = first.messages
    second.mind.turn_ended()
    second.mind._under_way.result(PATIENCE_S)
    # Nothing is due.
    assert second.mind.state.memory_scores == {}
    assert [second.mind.leaned_on(it) for it in responses] == before
    assert second.mind.leaned_on() == before[-1]
    assert second.mind.responses_of("dog") == first.mind.responses_of("dog")
    # A memory that says something else now is another one.
    third = live(memories={"tea": TEA, "dog": "Snow falls on hills."}, **hourly)
    third.messages[1:] = first.messages[1:]
    third.turn("Bye.", "Bye.")
    assert third.mind.responses_of("dog") == ()


def test_what_is_within_noise_is_no_leaning(live):
    agent = live()
    agent.turn("What is on?", "Nothing at all today.")
    assert agent.mind.leaned_on() == ()


def test_leanings_are_of_the_memories_and_responses_that_are_still_there(live):
    agent = live()
    agent.turn()
    agent.mind.score("score-full").result(PATIENCE_S)
    [gone] = [it.node_id for it in agent.mind.leaned_on()]
    agent.messages[0]["content"] = f"You help Nora.\n- Nora drinks coffee.\n- {DOG}"
    del agent.messages[1:]
    agent.mind._host._memories = {"tea": "Nora drinks coffee.", "dog": DOG}
    agent.turn("And in the morning?", "Nora drinks coffee.")
    assert agent.mind.leaned_on(gone) is None
    assert [it.key for it in agent.mind.leaned_on()] == ["tea"]
    assert MEMORIES["tea"] == TEA


def test_the_same_words_in_another_conversation_are_another_response(live):
    agent = live(live={"tokens_per_hour": 1000})
    agent.turn()
    assert [it.key for it in agent.mind.leaned_on()] == ["tea"]
    agent.turn("Bye.", "See you.")
    del agent.messages[1:]
    agent.tables["live"]["tokens_per_hour"] = 1
    agent.turn("Which song is that?")
    assert agent.mind.remarks
    assert agent.mind.leaned_on() is None
