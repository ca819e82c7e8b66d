"""``mindscore plan PATH…`` over an archive: what a pass then sends, before it is paid for."""

import json
import re

import pytest

COMMANDS = {"score": (), "score-full": ("--full",), "score-finetune": ("--finetune",)}
COUNTS = ("calls", "prompt_tokens", "computed_tokens")


@pytest.fixture
def plan(archive, mindscore):
    """Runs ``plan`` over the archive: ``plan("--full", store="other")``."""
    folder, memories = archive / "conversations", archive / "memories.json"
    return lambda *arguments, **named: mindscore(
        "plan", folder, "--memories", memories, *arguments, **named
    )


@pytest.fixture
def planned(plan):
    """The document of a plan."""

    def planned(*arguments, **named):
        ran = plan(*arguments, "--json", **named)
        assert (ran.status, ran.err) == (0, "")
        [document] = ran.documents
        return document

    return planned


def sent(documents):
    """What a pass has sent, by its documents."""
    return {name: sum(it["stats"][name] for it in documents) for name in COUNTS}


def counts(document):
    return {name: document[name] for name in COUNTS}


@pytest.mark.parametrize(
    "options",
    [
        *COMMANDS.values(),
        ("--full", "--set", "memory.noise_repeats=1"),
        ("--memory", "helping-0"),
        ("--set", "memory.response_window=1"),
    ],
    ids=str,
)
def test_the_plan_is_what_the_pass_then_sends(planned, over, options):
    document = planned(*options)
    documents = over(*options, "--json").documents
    assert document["prompt_tokens"] > 1000
    assert counts(document) == sent(documents)
    assert document["conversations"] == len(documents)
    assert (document["unchanged"], document["failed"]) == (0, [])


def test_with_hold_the_plan_is_a_bound_that_confirming_may_not_exceed(planned, over):
    """Which groups are confirmed is known only once all is measured."""
    document = planned("--full", "--hold")
    found = sent(over("--full", "--hold", "--json").documents)
    assert found["calls"] <= document["calls"]
    assert found["prompt_tokens"] <= document["prompt_tokens"]


def test_responses_are_those_of_the_conversations_that_are_chosen(planned, over):
    document = planned("--full", "--sample", "4")
    documents = over("--full", "--sample", "4", "--json").documents
    assert document["responses"] == sum(len(it["responses"]) for it in documents)


@pytest.mark.parametrize("options", [(), ("--seed", "7")], ids=str)
def test_a_sample_is_the_one_that_the_pass_takes(planned, over, options):
    chosen = ("--full", "--sample", "3", *options)
    document = planned(*chosen)
    assert document["conversations"] == 3
    assert counts(document) == sent(over(*chosen, "--json").documents)
    assert document["prompt_tokens"] < planned("--full", store="other")["prompt_tokens"]


def test_of_a_time_only_what_was_said_since_is_planned(plan, over):
    since = ("--full", "--since", "2026-01-01T04:00:00Z", "--json")
    ran = plan(*since)
    [document] = ran.documents
    assert (ran.status, document["conversations"]) == (0, 9)
    assert counts(document) == sent(over(*since).documents)
    shown = plan("--full", "--since", "2026-01-01T04:00:00Z").out
    assert re.search(r"to score +9 ", shown)
    assert re.search(r"left out +1 ", shown)
    assert "8 conversations without times: --since goes by their files'" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_what_has_not_changed_is_planned_as_nothing(planned, over, command):
    options = COMMANDS[command]
    over(*options)
    document = planned(*options)
    assert counts(document) == dict.fromkeys(COUNTS, 0)
    assert (document["conversations"], document["unchanged"]) == (0, 10)
    assert document["seconds"] == 0.0
    again = planned(*options, "--all")
    assert (again["conversations"], again["unchanged"]) == (10, 0)
    assert counts(again) == sent(over(*options, "--all", "--json").documents)


def test_what_is_left_of_a_pass_is_planned(planned, over):
    over("--full", "--max-tokens", "20000")
    document = planned("--full")
    assert 0 < document["unchanged"] < 10
    assert counts(document) == sent(over("--full", "--json").documents)


def test_a_plan_keeps_nothing(planned, over, evidence, passes):
    before = planned("--full")
    assert not passes.__name__.startswith("never")
    over("--full", "--sample", "2")
    kept, done = evidence(), passes()
    planned("--full")
    planned()
    planned("--finetune")
    assert (evidence(), passes()) == (kept, done)
    assert planned("--full", store="other") == before


def test_a_price_is_of_a_million_tokens_that_are_sent(plan, planned):
    plain = planned("--full")
    assert "money" not in plain
    document = planned("--full", "--price", "250")
    assert document["price"] == 250
    assert document["money"] == pytest.approx(250 * plain["prompt_tokens"] / 1e6)
    shown = " ".join(plan("--full", "--price", "250").out.split())
    assert f"money: {document['money']:,.2f}, at 250 per million tokens sent" in shown
    assert "money: 0" in " ".join(plan("--full", "--price", "0").out.split())


def test_time_is_known_once_something_was_scored(plan, planned, over):
    assert planned("--full")["seconds"] is None
    assert "time: no speed is known of toy: score one conversation first" in plan("--full").out
    over("--full", "--sample", "1")
    assert planned("--full")["seconds"] > 0
    assert "at the speed of earlier runs" in plan("--full").out


def test_servers_divide_the_time_and_not_what_is_sent(planned, over, plan):
    over("--full", "--sample", "1")
    one = planned("--full")
    urls = ("--set", "server.base_urls=['http://127.0.0.1:1', 'http://127.0.0.1:2']")
    two = planned("--full", "--all", *urls, store="store")
    every = planned("--full", "--all")
    assert counts(two) == counts(every)
    assert two["seconds"] is None or two["seconds"] < every["seconds"]
    assert "divided among 2 servers of one speed" in plan("--full", *urls).out
    assert one["unchanged"] == 1


def test_files_of_no_known_format_are_counted_in_a_folder_and_an_error_by_name(
    plan, planned, archive, mindscore
):
    before = planned("--full")
    (archive / "conversations" / "note.txt").write_text("Buy rooibos.")
    (archive / "conversations" / "data.csv").write_text("a,b\n1,2\n")
    ran = plan("--full", "--json")
    assert (ran.status, ran.documents) == (0, [before])
    assert "2 files of no known format" in plan("--full").out
    named = mindscore("plan", archive / "conversations", archive / "conversations" / "note.txt")
    assert (named.status, named.out) == (2, "")
    assert "note.txt" in named.err


def test_a_file_that_is_damaged_is_named_and_the_rest_is_planned(plan, planned, archive):
    before = planned("--full")
    broken = archive / "conversations" / "broken.jsonl"
    broken.write_text('{"role": "user", "content": "Hi."}\n{"role": "assistant", "con')
    ran = plan("--full", "--json")
    assert ran.status == 1
    assert ran.documents == [before]
    assert f"{broken}: line 2" in ran.err


def test_a_conversation_that_cannot_be_rendered_is_named_and_the_rest_is_planned(
    plan, planned, archive
):
    before = planned("--full")
    lines = [
        {"role": "memory", "key": "tea", "content": "Tea."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Tea.", "id": "twice"},
        {"role": "assistant", "content": "Tea!", "id": "twice"},
    ]
    twice = archive / "conversations" / "twice.jsonl"
    twice.write_text("".join(json.dumps(it) + "\n" for it in lines))
    ran = plan("--full", "--json")
    [document] = ran.documents
    assert ran.status == 1
    assert counts(document) == counts(before)
    assert "twice" in ran.err
