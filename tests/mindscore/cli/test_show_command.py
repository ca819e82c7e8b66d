"""``mindscore show``: what the store has of a conversation, without a model."""

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest

from mindscore.config.settings import StoreSettings
from mindscore.store import Review, Reviews

COLUMNS = (
    "namespace, model, conversation, key, text_hash, node_id, entry_idx, divergence, signed, "
    "scored_at, noise, mode"
)
NOISE = ("--set", "memory.noise_repeats=1")


@pytest.fixture
def store(tmp_path):
    """The user's own store."""
    return tmp_path / "data" / "mindscore" / "store.sqlite3"


@pytest.fixture
def change(store):
    """Runs SQL in the store: ``change("UPDATE …")``."""

    def run(*statements):
        with closing(sqlite3.connect(store)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return run


@pytest.fixture
def show(cli):
    """Runs ``mindscore show`` with a scorer that does not exist: nothing is asked of it."""
    return lambda *arguments: cli("show", *arguments, "--set", "server.scorer=none-such")


@pytest.fixture
def measured(score, talk):
    """The three commands' documents of ``talk``, all in the store."""
    return {
        "score": score(talk, "--json").document,
        "score-full": score(talk, "--full", "--json", *NOISE).document,
        "score-finetune": score(talk, "--finetune", "--json").document,
    }


def listed(show):
    return show("--json").document["conversations"]


def results(ran):
    assert (ran.status, ran.err) == (0, "")
    return {it["command"]: it for it in ran.document["results"]}


def test_an_empty_store_is_said_to_be_empty(show, talk, store):
    for arguments in ((), (talk,)):
        ran = show(*arguments)
        assert (ran.status, ran.out) == (0, "Nothing is kept yet in this namespace.\n")
    assert listed(show) == []
    assert not store.exists()


def test_the_conversations_are_listed_with_what_is_known_the_newest_first(show, score, write):
    lines = [
        {"role": "memory", "key": "tea", "content": "Green tea."},
        {"role": "user", "content": "What do I drink?"},
        {"role": "assistant", "content": "Green tea."},
    ]
    old = write(*lines, name="old.jsonl")
    new = write(*lines[:1], {"role": "user", "content": "Tea?"}, lines[2], name="new.jsonl")
    score(old)
    score(old, "--full")
    score(new)
    newest, oldest = listed(show)
    assert (newest["scores"], newest["cells"], newest["candidates"]) == (1, 0, 0)
    assert (oldest["scores"], oldest["cells"], oldest["candidates"]) == (1, 1, 0)
    assert oldest["last"] < newest["last"]
    assert datetime.fromisoformat(newest["last"]) <= datetime.now(UTC)
    ran = show()
    assert newest["id"][:20] in ran.out
    assert "just now" in ran.out


def test_a_transcript_shows_the_same_numbers_as_the_runs(show, talk, measured):
    found = results(show(talk, "--json"))
    full, again = measured["score-full"], found["score-full"]
    rows = dict(zip(full["memories"], zip(full["signed"], full["noise"], strict=True), strict=True))
    for key, signed, noise in zip(again["memories"], again["signed"], again["noise"], strict=True):
        assert (signed, noise) == rows[key]
    assert again["responses"] == full["responses"]
    assert {it["key"]: it["last_score"] for it in found["score"]["scores"]} == {
        it["key"]: it["score"] for it in measured["score"]["scores"]
    }
    [candidate] = found["score-finetune"]["candidates"]
    [before] = measured["score-finetune"]["candidates"]
    assert {it: candidate[it] for it in before} == before
    for it in found.values():
        assert it["model"] == "toy"
        assert "stats" not in it
        first, last = map(datetime.fromisoformat, it["measured"])
        assert first <= last <= datetime.now(UTC)


def test_a_transcript_s_tables_have_its_texts_and_the_times(show, talk, measured):
    ran = show(talk)
    assert (ran.status, ran.err) == (0, "")
    for command in measured:
        assert re.search(
            rf"^{command} by toy, \d{{4}}-\d\d-\d\d \d\d:\d\d, just now$", ran.out, re.M
        )
    assert "#1 You drink green tea." in ran.out
    assert "not decided" in ran.out
    assert "not kept" not in ran.out


def test_an_id_shows_keys_and_numbers_and_says_that_texts_are_not_kept(show, talk, measured):
    [kept] = listed(show)
    ran = show(kept["id"])
    assert ran.status == 0
    assert "the texts of memories and responses are not kept" in " ".join(ran.out.split())
    assert "holds no memories" not in ran.out
    with_texts, without = results(show(talk, "--json")), results(show(kept["id"], "--json"))
    for name in ("score-full", "score"):
        rows = {"memories", "matrix", "signed", "noise", "scores", "remarks"}
        assert {k: v for k, v in without[name].items() if k not in rows} == {
            k: v for k, v in with_texts[name].items() if k not in rows
        }
    by_key = [
        dict(zip(it["score-full"]["memories"], it["score-full"]["signed"], strict=True))
        for it in (with_texts, without)
    ]
    assert by_key[0] == by_key[1]


def test_an_older_text_s_values_are_not_shown_for_a_rewritten_memory(show, score, write):
    def talk(text):
        return write(
            {"role": "memory", "key": "tea", "content": text},
            {"role": "memory", "key": "dog", "content": "A dog called Rex."},
            {"role": "user", "content": "What do I drink?"},
            {"role": "assistant", "content": "You drink green tea.", "id": "a"},
        )

    old = talk("You drink green tea.")
    score(old)
    score(old, "--full")
    new = talk("Nobody knows.")
    found = results(show(new, "--json"))
    assert found["score-full"]["memories"] == ["dog"]
    assert [it["key"] for it in found["score"]["scores"]] == ["dog"]
    both = write(
        {"role": "memory", "key": "tea", "content": "Nobody knows."},
        {"role": "user", "content": "What do I drink?"},
        {"role": "assistant", "content": "You drink green tea.", "id": "a"},
    )
    said = " ".join(show(both).out.split())
    assert "nothing is kept of its responses and memories as they are written now" in said
    [id_] = {it["id"] for it in listed(show)}
    assert f"mindscore show {id_} shows what is kept" in said
    assert "as they are written now" in show(both, "--html", "page.html").error


def test_where_the_file_of_memories_is_forgotten_it_is_named(show, score, tmp_path):
    talk, memories = tmp_path / "talk.json", tmp_path / "memories.json"
    said = [("system", "You help. She likes tea."), ("user", "Coffee?"), ("assistant", "Tea.")]
    messages = [{"role": role, "content": text} for role, text in said]
    talk.write_text(json.dumps({"messages": messages}))
    memories.write_text(json.dumps({"tea": "She likes tea."}))
    score(talk, "--memories", memories, "--full")
    told = " ".join(show(talk).out.split())
    assert "name them by --memories FILE, as for mindscore score" in told
    assert "tea" in show(talk, "--memories", memories).out


def test_without_a_transcript_two_texts_of_a_memory_are_not_mixed(show, score, talk, change):
    score(talk, "--full")
    # Of an older text, and on a response that the newer one was not measured on.
    change(
        f"INSERT INTO cells ({COLUMNS}) SELECT "
        "namespace, model, conversation, key, 'older', 'gone', 5, 9, 9, "
        "scored_at - 60, NULL, mode FROM cells WHERE key = 'tea' AND node_id = 'drink'"
    )
    [kept] = listed(show)
    found = results(show(kept["id"], "--json"))["score-full"]
    assert [it["entry_idx"] for it in found["responses"]] == [1, 3]
    assert 9 not in [value for row in found["signed"] for value in row]


def test_a_response_whose_place_another_one_took_is_left_out(show, score, talk, change):
    score(talk, "--full")
    change(
        f"INSERT INTO cells ({COLUMNS}) SELECT "
        "namespace, model, conversation, key, text_hash, 'gone', 3, 9, 9, "
        "scored_at - 60, NULL, mode FROM cells WHERE node_id = 'drink'"
    )
    [kept] = listed(show)
    found = results(show(kept["id"], "--json"))["score-full"]
    assert [it["node_id"] for it in found["responses"]] == ["drink", "pet"]


def test_models_are_shown_one_by_one(show, talk, measured, change, tmp_path):
    change(
        f"INSERT INTO cells ({COLUMNS}) SELECT "
        "namespace, 'other', conversation, key, text_hash, node_id, "
        "entry_idx, 5, 5, scored_at, NULL, mode FROM cells"
    )
    found = show(talk, "--json").document["results"]
    matrices = {it["model"]: it["signed"] for it in found if it["command"] == "score-full"}
    assert matrices["other"] == [[5, 5], [5, 5]]
    assert matrices["toy"] != matrices["other"]
    out = show(talk).out
    assert "score-full by toy" in out
    assert "score-full by other" in out
    only = show(talk, "--json", "--model", "other").document["results"]
    assert [it["model"] for it in only] == ["other"]
    ran = show(talk, "--html", tmp_path / "r.html")
    assert ran.status == 2
    assert "choose one of" in ran.error
    assert "--model" in ran.error
    assert show(talk, "--model", "other", "--html", tmp_path / "r.html").status == 0


def test_decisions_are_shown_with_their_candidates(show, talk, measured, store):
    reviews = Reviews(StoreSettings(f"sqlite:///{store}"))
    [kept] = asyncio.run(reviews.queue())
    decided = Review("accepted", "response", datetime.now(UTC).timestamp())
    asyncio.run(reviews.decide(kept.name, decided))
    assert re.search(r"^#3 accepted \d{4}-\d\d-\d\d \d\d:\d\d, just now$", show(talk).out, re.M)
    [candidate] = results(show(talk, "--json"))["score-finetune"]["candidates"]
    assert (candidate["decision"], candidate["answer"]) == ("accepted", "response")
    assert candidate["trained_by"] == []
    assert datetime.fromisoformat(candidate["decided"]) <= datetime.now(UTC)


def test_another_conversation_s_values_are_not_shown(show, score, write, talk, measured):
    other = write(
        {"role": "memory", "key": "tea", "content": "The user drinks green tea."},
        {"role": "user", "content": "Something else?"},
        {"role": "assistant", "content": "You drink green tea.", "id": "drink"},
        name="other.jsonl",
    )
    ran = show(other)
    assert ran.status == 2
    assert "mindscore score" in ran.error
    score(other)
    assert [*results(show(other, "--json"))] == ["score"]


@pytest.mark.parametrize("name", ["none-such", "x" * 5000, "a\tb"])
def test_an_unknown_conversation_says_what_to_do(show, measured, name):
    ran = show(name)
    assert ran.status == 2
    assert "mindscore show lists those that are kept" in ran.error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--html", "r.html"), "--html goes with"),
        (("--select", "1"), "--select goes with a TRANSCRIPT"),
        (("--model", "none-such"), "nothing is kept by model 'none-such'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(show, measured, arguments, said):
    ran = show(*arguments)
    assert ran.status == 2
    assert said in ran.error


def test_conversations_that_were_never_named_are_not_mixed(show, score, talk, write, change):
    score(talk, "--full")
    other = write(
        {"role": "memory", "key": "tea", "content": "The user drinks green tea."},
        {"role": "user", "content": "Something else?"},
        {"role": "assistant", "content": "You drink green tea.", "id": "another"},
        name="other.jsonl",
    )
    score(other, "--full")
    change("UPDATE cells SET conversation = ''", "DELETE FROM rows")
    assert "(not known)" in show().out
    found = show("", "--json").document["results"]
    nodes = sorted([it["node_id"] for it in one["responses"]] for one in found)
    assert nodes == [["another"], ["drink", "pet"]]


def test_a_damaged_record_is_named_and_the_others_are_shown(show, talk, measured, change):
    change("UPDATE cells SET signed = 'oh' WHERE key = 'tea' AND node_id = 'drink'")
    ran = show(talk, "--json")
    assert ran.status == 0
    assert "store check" in ran.err
    [matrix] = [it for it in ran.document["results"] if it["command"] == "score-full"]
    assert matrix["signed"][matrix["memories"].index("tea")][0] is None


def test_a_report_of_the_store_says_when_it_was_measured(show, talk, measured, tmp_path):
    [kept] = listed(show)
    for name in (talk, kept["id"]):
        file = tmp_path / "report.html"
        assert show(name, "--html", file).status == 0
        page = file.read_text()
        assert re.search(r"From the store: measured \d{4}-\d\d-\d\d \d\d:\d\d", page)
        assert "nothing was measured now" in page
        assert 'id="matrix-title"' in page
        assert page.count("scored before: ") == 2
        assert "Candidates" in page
        assert "not decided" in page
        assert "not due yet" not in page
        data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
        assert len(data["memories"]) == len(data["responses"]) == 2


def test_memories_that_hide_each_other_are_shown_as_the_run_has_them(show, score, write, tmp_path):
    lines = [
        {"role": "memory", "key": "tea", "content": "Jasmine tea."},
        {"role": "memory", "key": "drinks", "content": "Jasmine tea!"},
        {"role": "memory", "key": "dog", "content": "Rex is a dog."},
        {"role": "user", "content": "Name a drink."},
        {"role": "assistant", "content": "Jasmine tea."},
    ]
    talk, line = write(*lines), "tea and drinks hide each other: either is enough for #1"
    ran = score(talk, "--full", "--hold", "--json").document
    assert [it["keys"] for it in ran["redundant"]] == [["tea", "drinks"]]
    [kept] = listed(show)
    for name in (talk, kept["id"]):
        shown = results(show(name, "--json"))["score-full"]
        assert {it: shown[it] for it in ("redundant", "interactions")} == {
            it: ran[it] for it in ("redundant", "interactions")
        }
        assert line in show(name).out
        file = tmp_path / "report.html"
        assert show(name, "--html", file).status == 0
        assert '<ul class="pairs">' in file.read_text()
    # Without --hold, nothing is looked for, and what was found holds still.
    score(talk, "--full")
    assert line in show(talk).out
    # Nor is anything said of memories that were not measured.
    score(talk, "--full", "--hold", "--memory", "tea", "--memory", "dog")
    assert line in show(talk).out
    # Of another text, it was not found.
    write({**lines[0], "content": "Jasmine tea, really."}, *lines[1:])
    score(talk, "--full")
    assert "hide each other" not in show(talk).out
    assert "redundant" not in results(show(talk, "--json"))["score-full"]


def test_a_report_of_incremental_scores_alone_shows_them(show, score, talk, tmp_path):
    score(talk)
    file = tmp_path / "report.html"
    assert show(talk, "--html", file).status == 0
    page = file.read_text()
    assert page.count("scored before: ") == 2
    assert "No memory was scored" not in page
    assert "None" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_no_model_and_no_torch_are_loaded(score, talk, tmp_path):
    score(talk)
    code = (
        "import sys; from mindscore.cli import main; "
        f"assert main(['show', {str(talk)!r}]) == 0; "
        "slow = {'torch', 'transformers', 'aiohttp'} & set(sys.modules); assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
