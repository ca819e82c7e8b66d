"""A pass over an archive: once each, on from where it was, and what has grown."""

import json
import random
import re
import select
import signal

import pytest
from tests.cases import mostly_slow

from mindhooks import ScorerError
from mindscore.scorers.toy import ToyScorer

COMMANDS = {"score": [], "score-full": ["--full"], "score-finetune": ["--finetune"]}


def native(*turns, memories=(("tea", "The user drinks green tea."),)):
    lines = [{"role": "memory", "key": key, "content": text} for key, text in memories]
    for number, (asked, answered) in enumerate(turns):
        lines.append({"role": "user", "content": asked, "id": f"u{number}"})
        lines.append({"role": "assistant", "content": answered, "id": f"a{number}"})
    return "".join(json.dumps(it) + "\n" for it in lines)


TURNS = [
    ("What do I drink?", "You drink green tea."),
    ("And at night?", "Green tea, too."),
    ("Why?", "The user drinks what the user likes."),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_conversation_is_scored_once_and_has_a_document(command, over, passes):
    ran = over(*COMMANDS[command], "--json")
    assert ran.status == 0, ran.err
    assert len(ran.documents) == 10
    assert {it["command"] for it in ran.documents} == {command}
    assert {it["conversation"] for it in ran.documents} == passes().keys()
    assert all(it["stats"]["error"] is None for it in ran.documents)
    suffixes = {it["source"].rsplit(".")[-1] for it in ran.documents}
    assert suffixes == {"json", "jsonl"}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_has_not_changed_is_not_paid_for_again(command, over, evidence):
    over(*COMMANDS[command])
    before = evidence()
    again = over(*COMMANDS[command], "--json")
    assert (again.status, again.documents) == (0, [])
    assert re.search(r"unchanged +10 ", again.err)
    assert evidence() == before


def test_all_measures_again(over):
    over("--full")
    assert len(over("--full", "--json", "--all").documents) == 10


def test_settings_that_change_values_measure_again_and_others_do_not(over):
    over()
    other = ("--json", "--set", "memory.response_window=2")
    assert len(over(*other).documents) == 10
    assert over(*other, "--set", "memory.interval_s=7").documents == []


def test_a_sample_is_the_same_for_the_same_seed(over):
    ids = [
        {it["conversation"] for it in over("--json", "--all", "--sample", "5", *seed).documents}
        for seed in ([], [], ["--seed", "1"])
    ]
    assert [len(it) for it in ids] == [5, 5, 5]
    assert ids[0] == ids[1] != ids[2]


def test_conversations_are_chosen_by_their_last_message_or_file(over, archive):
    ran = over("--json", "--since", "2026-01-01T04:00:00Z")
    natives = [it for it in ran.documents if "/native/" in it["source"]]
    assert len(natives) == 1
    assert len(ran.documents) == 9
    assert "8 conversations without times: --since goes by their files'" in ran.err


def test_a_conversation_that_fails_stops_no_other(over, archive, monkeypatch):
    well = ToyScorer.score

    async def burning(self, prompts):
        if any(len(it.tokens) % 7 == 0 for it in prompts):
            raise ScorerError("the GPU is on fire")
        return await well(self, prompts)

    monkeypatch.setattr(ToyScorer, "score", burning)
    ran = over("--full", "--json")
    assert ran.status == 1
    assert len(ran.documents) == 10
    failed = [it for it in ran.documents if it["stats"]["error"]]
    assert 0 < len(failed) < 10
    assert ran.err.count("the GPU is on fire") >= len(failed)
    monkeypatch.setattr(ToyScorer, "score", well)
    again = over("--full", "--json")
    assert again.status == 0
    assert len(again.documents) == len(failed)


KILLED = {"score": "score", "score-full": "score-full"}


@pytest.mark.parametrize("command", mostly_slow(KILLED, "score-full"))
def test_a_pass_that_is_killed_goes_on_and_finds_the_same(command, over, start, evidence):
    options = COMMANDS[command]
    over(*options, "--hold" if command == "score-full" else "--json", store="whole")
    more = ["--hold"] if command == "score-full" else []
    chance = random.Random(command)
    for _ in range(3):
        running = start(*options, *more, "--json")
        seen = chance.randrange(1, 6)
        for _ in range(seen):
            running.stdout.readline()
        running.kill()
        running.communicate()
    assert over(*options, *more).status == 0
    assert evidence() == evidence("whole")


def test_ctrl_c_says_what_is_done_and_that_the_same_command_goes_on(start, over, passes):
    running = start("--full", "--json")
    # Not read: it waits for a reader once the pipe is full.
    select.select([running.stdout], [], [], 60)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "done; that is kept, and the same command goes on" in err
    done = [it for it in passes().values() if it["error"] is None]
    assert len(over("--full", "--json").documents) == 10 - len(done)


def test_rows_that_were_measured_before_a_kill_are_not_asked_for_again(tmp_path, mindscore):
    file = tmp_path / "talk.jsonl"
    memories = [(f"m{number}", f"Fact {number} is green tea.") for number in range(4)]
    file.write_text(native(*TURNS, memories=memories), encoding="utf-8")
    folder = ("score", tmp_path / "talk.jsonl", "--sample", "1", "--full", "--json")
    mindscore(*folder, "--max-tokens", "260")
    [document] = mindscore(*folder).documents
    whole = mindscore(*folder, store="whole").documents[0]
    assert document["matrix"] == whole["matrix"]
    assert 0 < document["stats"]["calls"] < whole["stats"]["calls"]


def test_of_a_matrix_that_has_grown_only_new_responses_are_asked_for(
    tmp_path, mindscore, monkeypatch
):
    asked = []
    well = ToyScorer.score

    async def noting(self, prompts):
        asked.extend(it.node_ids for it in prompts)
        return await well(self, prompts)

    monkeypatch.setattr(ToyScorer, "score", noting)
    file = tmp_path / "talk.jsonl"
    file.write_text(native(*TURNS[:2]), encoding="utf-8")
    command = ("score", file, "--sample", "1", "--full", "--hold", "--json")
    mindscore(*command)
    asked.clear()
    file.write_text(native(*TURNS), encoding="utf-8")
    [document] = mindscore(*command).documents
    assert {node_id for ids in asked for node_id in ids} == {"a2"}
    [whole] = mindscore(*command, store="whole").documents
    for part in ("matrix", "signed", "hold", "hold_signed"):
        assert document[part] == whole[part]


def test_a_conversation_whose_beginning_has_changed_is_measured_as_a_whole(tmp_path, mindscore):
    file = tmp_path / "talk.jsonl"
    command = ("score", file, "--sample", "1", "--full", "--json")
    file.write_text(native(*TURNS[:2]), encoding="utf-8")
    mindscore(*command)
    changed = [("What do I drink, then?", TURNS[0][1]), *TURNS[1:]]
    file.write_text(native(*changed), encoding="utf-8")
    [document] = mindscore(*command).documents
    [whole] = mindscore(*command, store="whole").documents
    assert document["matrix"] == whole["matrix"]


def test_a_memory_whose_window_was_complete_is_not_scored_again(tmp_path, mindscore):
    file = tmp_path / "talk.jsonl"
    window = ("--set", "memory.response_window=2", "--set", "memory.token_cutoff=1.0")
    command = ("score", file, "--sample", "1", "--json", *window)
    file.write_text(native(*TURNS[:2]), encoding="utf-8")
    mindscore(*command)
    file.write_text(native(*TURNS), encoding="utf-8")
    assert mindscore(*command).documents == []
    other = native(*TURNS, memories=[("tea", "The user drinks black tea.")])
    file.write_text(other, encoding="utf-8")
    assert len(mindscore(*command).documents) == 1


@pytest.mark.parametrize(
    ("command", "limit"), [("score", 9000), ("score-full", 20_000), ("score-finetune", 3000)]
)
def test_a_pass_never_sends_more_than_max_tokens(command, limit, over):
    ran = over(*COMMANDS[command], "--json", "--max-tokens", limit)
    sent = sum(it["stats"]["prompt_tokens"] for it in ran.documents)
    assert ran.status == 0
    assert limit / 4 < sent <= limit
    assert "--max-tokens" in ran.err
    assert over(*COMMANDS[command], "--json").documents != []
    assert over(*COMMANDS[command], "--json").documents == []


def test_what_did_not_fit_is_measured_later_and_the_evidence_is_the_same(over, evidence):
    over("--full", store="whole")
    for _ in range(2):
        over("--full", "--max-tokens", "20000")
    over("--full")
    assert evidence() == evidence("whole")


def test_one_conversation_behaves_as_ever(tmp_path, mindscore):
    file = tmp_path / "talk.jsonl"
    file.write_text(native(*TURNS), encoding="utf-8")
    one = mindscore("score", file, "--json").documents[0]
    assert "conversation" not in one
    assert "source" not in one
    assert mindscore("score", file, "--full", "--max-tokens", "9").status == 2


@pytest.mark.parametrize("command", ["score", "plan"])
def test_where_there_is_nothing_to_score_the_summary_says_what_is_missing(
    command, archive, tmp_path, mindscore
):
    # The formats that mark no memories, without --memories.
    said = mindscore(command, archive / "conversations" / "sharegpt", archive / "conversations")
    assert "no conversation" not in said.out
    said = " ".join(mindscore(command, archive / "conversations" / "langchain").out.split())
    assert "2 without memories" in said
    assert "no conversation holds memories: --memories FILE names those" in said
    tmp_path.joinpath("none").mkdir()
    assert "no conversation found" in mindscore(command, tmp_path / "none").out


def test_a_response_in_a_file_of_several_conversations_is_named_by_its_own(over, mindscore):
    over("--full")
    said = " ".join(mindscore("advise").out.split())
    named = set(re.findall(r" on (#\d+ of \S+(?: in \S+)?)", said))
    assert any(re.fullmatch(r"#\d+ of talk-\d+ in part-000.jsonl;?", it) for it in named)
    assert any(re.fullmatch(r"#\d+ of talk-\d+.json;?", it) for it in named)
    assert not any("of part-000" in it for it in named)


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_summary_breaks_between_its_figures_and_never_within_one(columns, over, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    lines = [it.rstrip() for it in over("--full").out.splitlines()]
    assert max(map(len, lines)) <= int(columns)
    *others, last = [it.strip() for it in lines if "scored" in it or it.startswith("  ")]
    assert re.search(r"(^|, )in [\d.]+ s$", last)
    assert all(it.endswith(",") for it in others)
