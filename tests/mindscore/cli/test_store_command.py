"""``mindscore store``: what is kept, and the original's two JSON files in and out."""

import asyncio
import itertools
import json
import os
import re
import sqlite3
import time
from contextlib import closing

import pytest

from mindhooks import FinetuneCandidate, TrainingSample
from mindscore.config.settings import StoreSettings
from mindscore.store import Sends, Store

ROW = {
    "key": str,
    "model": str,
    "score": float,
    "weight": float,
    "last_scored": float,
    "count": int,
}


@pytest.fixture
def exchange(tmp_path):
    """Writes a file to import: ``exchange({"k": 1.5})``, or ``exchange("as it is")``."""

    def write(contents):
        file = tmp_path / "exchange.json"
        raw = contents if isinstance(contents, str | bytes) else json.dumps(contents)
        file.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
        return file

    return write


@pytest.fixture
def kept(cli):
    """What ``store list --json`` prints: ``kept()``."""

    def kept(*arguments):
        ran = cli("store", "list", "--json", *arguments)
        assert (ran.status, ran.err) == (0, "")
        return ran.document

    return kept


# -- list -----------------------------------------------------------------------------------------


def test_list_says_that_nothing_is_kept_yet(cli):
    ran = cli("store", "list")
    assert (ran.status, ran.err) == (0, "")
    assert "Nothing" in ran.out


def test_list_is_an_empty_array_where_nothing_is_kept_yet(cli):
    assert cli("store", "list", "--json").document == []


def test_list_shows_each_memory_with_its_weight_last_score_and_count(cli, score, talk, kept):
    found = {it["key"]: it["score"] for it in score(talk, "--json").document["scores"]}
    lines = [line.split() for line in cli("store", "list").out.splitlines()[1:]]
    assert {key: float(last) for key, _, _, last, *_ in lines} == {
        key: pytest.approx(score, abs=0.005) for key, score in found.items()
    }
    assert {(model, times) for _, model, _, _, times, *_ in lines} == {("toy", "1")}
    for row in kept():
        assert {name: type(value) for name, value in row.items()} == ROW
        assert row["score"] == row["weight"] == found[row["key"]]


def test_two_models_are_listed_one_after_the_other_each_by_weight(cli, exchange, kept):
    cli("store", "import", exchange({"a": 1.0, "b": 9.0}), "--model", "z")
    cli("store", "import", exchange({"a": 5.0, "b": 2.0}), "--model", "m")
    expected = [("a", "m"), ("b", "m"), ("b", "z"), ("a", "z")]
    assert [(row["key"], row["model"]) for row in kept()] == expected
    lines = cli("store", "list").out.splitlines()[1:]
    assert [tuple(line.split()[:2]) for line in lines] == [*expected[:2], (), *expected[2:]]


def test_a_hundred_thousand_memories_are_listed_in_seconds(cli, exchange):
    cli("store", "import", exchange({f"k{at}": at / 7 for at in range(100_000)}), "--model", "m")
    began = time.monotonic()
    assert cli("store", "list").out.count("\n") == 100_001
    assert time.monotonic() - began < 60


def test_the_weight_is_a_moving_mean_of_the_scores(score, exchange, cli, talk, kept):
    cli("store", "import", exchange({"tea": 1.0}), "--model", "toy")
    found = {it["key"]: it["score"] for it in score(talk, "--json").document["scores"]}
    weights = {row["key"]: row["weight"] for row in kept()}
    assert weights["tea"] == pytest.approx(0.3 * found["tea"] + 0.7 * 1.0)
    assert weights["dog"] == found["dog"]


def test_list_puts_the_heaviest_first(cli, exchange, kept):
    cli("store", "import", exchange({"light": 0.5, "heavy": 9, "middle": 2.25}))
    assert [row["key"] for row in kept()] == ["heavy", "middle", "light"]
    lines = cli("store", "list").out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["heavy", "middle", "light"]


def test_agents_of_two_namespaces_do_not_see_each_other(score, talk, kept):
    score(talk, "--set", "store.namespace=one")
    assert len(kept("--set", "store.namespace=one")) == 2
    assert kept("--set", "store.namespace=two") == []


def test_the_store_is_in_the_users_data_folder_or_where_the_configuration_says(
    score, talk, kept, tmp_path
):
    elsewhere = f"store.url=sqlite:///{tmp_path}/mine.sqlite3"
    score(talk, "--set", elsewhere)
    assert (tmp_path / "mine.sqlite3").is_file()
    assert not (tmp_path / "data").exists()
    assert len(kept("--set", elsewhere)) == 2
    assert kept() == []
    assert not (tmp_path / "data").exists()
    score(talk)
    assert (tmp_path / "data" / "mindscore" / "store.sqlite3").is_file()


# -- forget ---------------------------------------------------------------------------------------


def test_a_memory_that_is_forgotten_is_gone_and_due_again(cli, score, talk, kept):
    score(talk)
    ran = cli("store", "forget", "tea")
    assert (ran.status, ran.err) == (0, "")
    assert [row["key"] for row in kept()] == ["dog"]
    entries = score(talk, "--json").document["scores"]
    assert {it["key"]: it["status"] for it in entries} == {"tea": "scored", "dog": "not-due"}


def test_cells_of_the_matrix_are_forgotten_too(cli, score, talk):
    score(talk, "--full")
    assert cli("store", "forget", "tea").status == 0
    assert cli("store", "forget", "tea").status == 2
    assert cli("store", "forget", "dog").status == 0


def test_a_memory_of_which_nothing_is_kept_cannot_be_forgotten(cli, score, talk, kept):
    score(talk)
    ran = cli("store", "forget", "cat")
    assert (ran.status, ran.out) == (2, "")
    assert "cat" in ran.error
    assert "mindscore store list" in ran.error
    assert len(kept()) == 2


def test_scores_of_every_model_are_forgotten(cli, exchange, kept):
    cli("store", "import", exchange({"k": 1, "j": 2}), "--model", "one")
    cli("store", "import", exchange({"k": 3}), "--model", "two")
    cli("store", "forget", "k")
    assert [row["key"] for row in kept()] == ["j"]


def test_another_namespace_forgets_nothing(cli, score, talk, kept):
    score(talk)
    assert cli("store", "forget", "tea", "--set", "store.namespace=other").status == 2
    assert len(kept()) == 2


# -- import ---------------------------------------------------------------------------------------


def test_scores_are_imported_as_last_score_and_weight_never_measured(cli, exchange, kept):
    ran = cli("store", "import", exchange({"k": 1.5, "j": 2}))
    assert (ran.status, ran.err) == (0, "")
    assert "2" in ran.out
    assert kept() == [
        {"key": key, "model": "smollm2", "score": score, "weight": score, "last_scored": None,
         "count": 0}
        for key, score in [("j", 2.0), ("k", 1.5)]
    ]  # fmt: skip
    assert cli("store", "list").out.count("imported") == 2


def test_scores_are_imported_for_the_model_that_is_named(cli, exchange, kept):
    cli("store", "import", exchange({"k": 1}), "--model", "mine")
    cli("store", "import", exchange({"k": 2}), "--set", "server.model=theirs")
    assert {row["model"]: row["score"] for row in kept()} == {"mine": 1.0, "theirs": 2.0}


def test_what_was_imported_is_due(cli, exchange, score, talk):
    cli("store", "import", exchange({"tea": 1}), "--model", "toy")
    entries = score(talk, "--json").document["scores"]
    assert {it["key"]: it["status"] for it in entries} == {"tea": "scored", "dog": "scored"}


def test_an_import_replaces_scores_and_leaves_the_others(cli, exchange, kept):
    cli("store", "import", exchange({"k": 1, "j": 2}))
    cli("store", "import", exchange({"k": 3}))
    assert {row["key"]: row["score"] for row in kept()} == {"k": 3.0, "j": 2.0}


def test_trained_responses_are_imported_and_no_candidates_any_more(server, cli, exchange, numbered):
    arguments = ["score", numbered, "--json", "--finetune", *server.options]
    [candidate] = cli(*arguments).document["candidates"]
    ran = cli("store", "import", exchange([1, candidate["timestamp_ns"]]))
    assert (ran.status, ran.err) == (0, "")
    assert "2" in ran.out
    again = cli(*arguments).document
    assert again["candidates"] == []
    assert again["stats"]["above_threshold"] == 0
    assert again["stats"]["max_divergence"] == candidate["divergence"]


@pytest.mark.parametrize("contents", [{}, []])
def test_an_empty_file_of_either_kind_imports_nothing(contents, cli, exchange, kept):
    ran = cli("store", "import", exchange(contents))
    assert (ran.status, ran.err) == (0, "")
    assert "0" in ran.out
    assert kept() == []


CORRUPT = {
    "nothing": "",
    "no JSON": "k = 1",
    "half a file": '{"k": 1, "j"',
    "two documents": '{"k": 1}\n{"j": 2}',
    "no UTF-8": b'{"k\xff": 1}',
    "binary": bytes(range(256)),
    "a number": "1.5",
    "a string": '"k"',
    "null": "null",
    "a null score": '{"k": 1, "j": null}',
    "a score as text": '{"k": 1, "j": "2"}',
    "a score as a table": '{"k": {"score": 1}}',
    "a score that is true": '{"k": true}',
    "nan": '{"k": NaN}',
    "infinity": '{"k": -Infinity}',
    "a score beyond all bounds": '{"k": 1e999}',
    "a timestamp as text": '[1, "2026-01-01"]',
    "a timestamp with a fraction": "[1, 1.5]",
    "a timestamp beyond 64 bits": "[1, 9223372036854775808]",
    "a null timestamp": "[1, null]",
    "a table among timestamps": '[1, {"timestamp": 2}]',
    "a timestamp that is true": "[1, true]",
    "a timestamp that is a whole float": "[1, 2.0]",
    "a timestamp with an exponent": "[1, 1e3]",
    "a timestamp below 64 bits": "[1, -9223372036854775809]",
    "a timestamp of 400 digits": f"[1, 1{'0' * 400}]",
    "a score of 400 digits": f'{{"k": 1{"0" * 400}}}',
    "not a number among timestamps": "[1, NaN]",
    "two scores of one key": '{"k": 1, "j": 2, "k": 3}',
    "two scores of one key, written differently": '{"k": 1, "\\u006b": 3}',
    "a mark of byte order": b'\xef\xbb\xbf{"k": 1}',
    "UTF-16": '{"k": 1}'.encode("utf-16"),
    "half a character": b'{"k\xe2\x82": 1}',
    "half of a pair": r'{"\ud800": 1}',
    "a nul at the end": b"[1]\0",
    "a comma at the end": "[1, 2,]",
    "a comment": "[1] // all",
    "nested": "[[1]]",
    "nested without an end": "[" * 10_000_000,
    "nested tables without an end": '{"k":' * 5_000_000,
}


@pytest.mark.parametrize("contents", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_file_is_refused_and_nothing_of_it_is_kept(
    contents, cli, exchange, kept, tmp_path
):
    file = exchange(contents)
    ran = cli("store", "import", file)
    assert (ran.status, ran.out) == (2, "")
    assert ran.error.startswith(f"{file}: ")
    assert kept() == []
    cli("store", "export", "--trained", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_the_same_score_twice_is_one(cli, exchange, kept):
    assert (
        cli(
            "store", "import", exchange('{"k": 9007199254740993, "j": 2, "k": 9007199254740993.0}')
        ).status
        == 0
    )
    assert {row["key"]: row["score"] for row in kept()} == {"k": 9007199254740992.0, "j": 2.0}


def test_a_pipe_is_refused_and_not_waited_for(command, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for action in ("import", "export"):
        ran = command("store", action, tmp_path / "pipe")
        assert (ran.status, ran.out) == (2, "")
        assert "no regular file" in ran.error


@pytest.mark.parametrize("place", ["gone.json", "."])
def test_a_file_that_cannot_be_read_is_named(place, cli, tmp_path):
    ran = cli("store", "import", tmp_path / place)
    assert (ran.status, ran.out) == (2, "")
    assert f"{tmp_path / place}: cannot be read" in ran.error


# -- export ---------------------------------------------------------------------------------------


def test_scores_are_exported_as_the_original_keeps_them(cli, score, talk, tmp_path):
    found = {it["key"]: it["score"] for it in score(talk, "--json").document["scores"]}
    ran = cli("store", "export", tmp_path / "out.json")
    assert (ran.status, ran.err) == (0, "")
    assert str(tmp_path / "out.json") in ran.out
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == found


def test_trained_responses_are_exported_ascending_each_once(cli, exchange, tmp_path):
    cli("store", "import", exchange([30, 10, 20, 10]))
    ran = cli("store", "export", "--trained", tmp_path / "out.json")
    assert (ran.status, ran.err) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text()) == [10, 20, 30]


SCORES = {"k": 0.1, "j": 1e-300, "two\nlines": 0.30000000000000004, "日本 \u202e": 12345.678}
STAMPS = [-(2**63), -1, 0, 1772532000123456789, 2**63 - 1]


@pytest.mark.parametrize(
    ("contents", "options"), [(SCORES, []), (STAMPS, ["--trained"])], ids=["scores", "trained"]
)
def test_what_is_exported_can_be_imported_again_and_is_the_same(
    contents, options, cli, exchange, tmp_path
):
    there = ["--set", "store.namespace=there"]
    cli("store", "import", exchange(contents))
    assert cli("store", "export", *options, tmp_path / "one.json").status == 0
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == contents
    assert cli("store", "import", tmp_path / "one.json", *there).status == 0
    assert cli("store", "export", *options, tmp_path / "two.json", *there).status == 0
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()


@pytest.mark.parametrize(("options", "empty"), [([], {}), (["--trained"], [])])
def test_an_export_of_nothing_is_an_empty_file_of_its_kind(options, empty, cli, tmp_path):
    ran = cli("store", "export", *options, tmp_path / "out.json")
    assert (ran.status, ran.err) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text()) == empty


def test_of_several_models_one_has_to_be_chosen(cli, exchange, tmp_path):
    cli("store", "import", exchange({"k": 1}), "--model", "one")
    cli("store", "import", exchange({"k": 2, "j": 3}), "--model", "two")
    ran = cli("store", "export", tmp_path / "out.json")
    assert (ran.status, ran.out) == (2, "")
    assert "one, two" in ran.error
    assert "--model" in ran.error
    assert not (tmp_path / "out.json").exists()
    assert cli("store", "export", tmp_path / "out.json", "--model", "two").status == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"k": 2.0, "j": 3.0}


def test_a_model_without_scores_is_refused(cli, exchange, tmp_path):
    cli("store", "import", exchange({"k": 1}), "--model", "one")
    ran = cli("store", "export", tmp_path / "out.json", "--model", "two")
    assert ran.status == 2
    assert "two" in ran.error
    assert not (tmp_path / "out.json").exists()


def test_an_export_replaces_the_file_and_leaves_nothing_beside_it(cli, exchange, tmp_path):
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "out.json").write_text("old " * 1000)
    cli("store", "import", exchange({"k": 1}))
    assert cli("store", "export", folder / "out.json").status == 0
    assert json.loads((folder / "out.json").read_text()) == {"k": 1.0}
    assert [file.name for file in folder.iterdir()] == ["out.json"]


@pytest.mark.parametrize("options", [[], ["--trained"]])
def test_an_export_that_cannot_be_written_is_named_and_leaves_nothing(options, cli, tmp_path):
    folder = tmp_path / "exports"
    (folder / "taken").mkdir(parents=True)
    for place in (folder / "taken", tmp_path / "gone" / "out.json"):
        ran = cli("store", "export", *options, place)
        assert (ran.status, ran.out) == (2, "")
        assert f"{place}: cannot be written" in ran.error
    assert [file.name for file in folder.iterdir()] == ["taken"]


def test_an_export_to_the_current_folder_is_one_that_cannot_be_written(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli("store", "export", ".")
    assert (ran.status, ran.out) == (2, "")
    assert "cannot be written" in ran.error


# -- sent -----------------------------------------------------------------------------------------


def sample(timestamp_ns):
    ids = {"context_ids": (1, 2), "bare_context_ids": (1,), "continuation_ids": (3,)}
    candidate = FinetuneCandidate(0, "n", 1.0, "", "", *ids.values(), None, None, timestamp_ns)
    return TrainingSample((1, 2), (3,), None, "full", candidate, "m", "default")


@pytest.fixture
def unknown(tmp_path):
    """Leaves sends with an outcome that is not known: ``unknown(key=how many responses)``.

    They went to ``http``, or to ``sink``.
    """
    settings = StoreSettings(f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3")

    def leave(sink="http", **sends):
        stamps = itertools.count(100)
        for key, count in sends.items():
            samples = [sample(next(stamps)) for _ in range(count)]
            asyncio.run(Sends(settings).reserve(key, samples, sink))

    return leave


def test_sent_is_empty_where_every_outcome_is_known(cli, tmp_path):
    assert cli("store", "sent", "--json").document == []
    ran = cli("store", "sent")
    assert (ran.status, ran.err) == (0, "")
    assert "known" in ran.out
    assert not (tmp_path / "data").exists()


def test_sent_lists_each_send_with_its_responses_and_its_time(cli, unknown):
    before = time.time()
    unknown(first=2)
    unknown(second=1, sink="jsonl")
    found = cli("store", "sent", "--json").document
    said = [(it["key"], it["sink"], it["responses"]) for it in found]
    assert said == [("first", "http", 2), ("second", "jsonl", 1)]
    assert before <= found[0]["since"] <= found[1]["since"] <= time.time()
    lines = [line.split() for line in cli("store", "sent").out.splitlines()[1:]]
    assert [line[:3] for line in lines] == [["first", "http", "2"], ["second", "jsonl", "1"]]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_list_ends_with_a_line_about_sends_that_nobody_knows_the_outcome_of(
    options, cli, exchange, unknown
):
    cli("store", "import", exchange({"k": 1}))
    unknown(first=2, second=1)
    ran = cli("store", "list", *options)
    assert ran.status == 0
    assert "k" in ran.out
    assert "3 responses" in ran.error
    assert "mindscore store sent" in ran.error


def test_what_was_trained_is_settled_as_marked(cli, unknown, tmp_path):
    unknown(first=2, second=1)
    ran = cli("store", "settle", "first", "--trained")
    assert (ran.status, ran.err) == (0, "")
    assert "2 responses" in ran.out
    assert [it["key"] for it in cli("store", "sent", "--json").document] == ["second"]
    cli("store", "export", "--trained", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [100, 101]


def test_what_was_trained_is_marked_for_the_sink_that_had_it(cli, unknown, tmp_path):
    unknown(first=1, sink="jsonl")
    unknown(second=1, sink="http")
    cli("store", "settle", "first", "--trained")
    [left] = cli("store", "sent", "--json").document
    assert left["sink"] == "http"
    with closing(sqlite3.connect(tmp_path / "data/mindscore/store.sqlite3")) as connection:
        query = "SELECT sink, timestamp_ns FROM trained"
        assert connection.execute(query).fetchall() == [("jsonl", 100)]


def test_what_was_not_trained_is_settled_as_forgotten(cli, unknown, tmp_path):
    unknown(first=2, second=1)
    ran = cli("store", "settle", "first", "--not-trained")
    assert (ran.status, ran.err) == (0, "")
    assert [it["key"] for it in cli("store", "sent", "--json").document] == ["second"]
    cli("store", "export", "--trained", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_what_a_failed_job_did_not_learn_may_be_sent_again(cli, tmp_path):
    settings = StoreSettings(f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3")
    store = Store(settings)
    asyncio.run(store.mark_trained([(100, (3,)), (101, (3,))], "failed"))
    asyncio.run(store.mark_trained([(102, (3,))], "other"))
    again = [sample(100), sample(101), sample(102)]
    assert asyncio.run(Sends(settings).free(again, "http")) == []
    assert cli("store", "settle", "failed", "--trained").status == 2
    ran = cli("store", "settle", "failed", "--not-trained")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "2 responses not trained: they may be sent again\n"
    assert asyncio.run(Sends(settings).free(again, "http")) == again[:2]


def test_a_file_that_was_written_is_settled_by_its_name_alone(cli, tmp_path):
    store = Store(StoreSettings(f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3"))
    for number, job in enumerate(["/a/one.jsonl", "/a/two.jsonl", "/b/two.jsonl", "x/three"]):
        asyncio.run(store.mark_trained([(number, (3,))], job, "jsonl"))
    assert cli("store", "settle", "one.jsonl", "--not-trained").out.startswith("1 response not")
    # Two files are called so, and a trainer's job is no file.
    for name in ("two.jsonl", "three"):
        assert cli("store", "settle", name, "--not-trained").status == 2
    assert asyncio.run(store.trained_timestamps()) == [1, 2, 3]


@pytest.mark.parametrize("options", [["--trained"], ["--not-trained"]])
def test_a_send_that_is_not_there_cannot_be_settled(options, cli, unknown):
    unknown(first=1)
    ran = cli("store", "settle", "other", *options)
    assert (ran.status, ran.out) == (2, "")
    assert "'other'" in ran.error
    assert "mindscore store sent" in ran.error


def test_settling_says_which_way(cli, unknown):
    unknown(first=1)
    ran = cli("store", "settle", "first")
    assert (ran.status, ran.out) == (2, "")
    assert "--trained or --not-trained" in ran.error
    assert len(cli("store", "sent", "--json").document) == 1


# -- the store itself -----------------------------------------------------------------------------

COMMANDS = {
    "list": ["list"],
    "forget": ["forget", "k"],
    "import": ["import", "SCORES"],
    "export": ["export", "OUT"],
    "sent": ["sent"],
    "settle": ["settle", "k", "--trained"],
}
commands = pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def store(cli, exchange, tmp_path):
    """Runs one of ``COMMANDS`` with further options."""
    files = {"SCORES": exchange({"k": 1}), "OUT": tmp_path / "out.json"}

    def run(arguments, *options):
        return cli("store", *(files.get(it, it) for it in arguments), *options)

    return run


@commands
def test_a_store_that_is_no_database_is_named(arguments, store, tmp_path):
    file = tmp_path / "mine.sqlite3"
    file.write_text("This is a letter to my aunt. " * 100)
    ran = store(arguments, "--set", f"store.url=sqlite:///{file}")
    assert (ran.status, ran.out) == (1, "")
    assert str(file) in ran.error
    assert file.read_text() == "This is a letter to my aunt. " * 100


@commands
def test_a_store_of_a_later_version_is_left_alone(arguments, store, tmp_path):
    file = tmp_path / "mine.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 999")
    ran = store(arguments, "--set", f"store.url=sqlite:///{file}")
    assert (ran.status, ran.out) == (1, "")
    assert str(file) in ran.error
    assert "999" in ran.error


@commands
def test_a_store_in_a_place_that_cannot_be_is_named(arguments, store, tmp_path):
    (tmp_path / "file").touch()
    ran = store(arguments, "--set", f"store.url=sqlite:///{tmp_path}/file/mine.sqlite3")
    assert (ran.status, ran.out) == (1, "")
    assert f"{tmp_path}/file/mine.sqlite3" in ran.error


@commands
def test_a_store_of_another_kind_is_a_wrong_configuration(arguments, store):
    ran = store(arguments, "--set", "store.url=postgresql://host/db")
    assert (ran.status, ran.out) == (2, "")
    assert "store.url" in ran.error
    assert "sqlite:///" in ran.error


@commands
def test_a_wrong_configuration_is_refused(arguments, store):
    ran = store(arguments, "--set", "store.namespace=")
    assert (ran.status, ran.out) == (2, "")
    assert "store.namespace" in ran.error


def test_the_real_command_imports_lists_forgets_and_exports(command, exchange, tmp_path):
    assert command("store", "import", exchange({"k": 1, "j": 2})).status == 0
    assert [row["key"] for row in command("store", "list", "--json").document] == ["j", "k"]
    assert command("store", "forget", "j").status == 0
    assert command("store", "export", tmp_path / "out.json").status == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"k": 1.0}
    ran = command("store", "forget", "j")
    assert (ran.status, ran.out) == (2, "")
    assert "j" in ran.error


def test_scores_are_imported_for_the_model_that_scores_and_exported_from_it(cli, tmp_path):
    given, taken = tmp_path / "in.json", tmp_path / "out.json"
    given.write_text('{"tea": 2.5}')
    toy = ["--set", "server.scorer=toy"]
    assert "of model toy" in cli("store", "import", str(given), *toy).out
    assert cli("store", "import", str(given), "--model", "other").status == 0
    assert cli("store", "export", str(taken), *toy).status == 0
    assert taken.read_text() == '{"tea":2.5}\n'


# -- check, drop ----------------------------------------------------------------------------------


def test_check_says_that_nothing_is_damaged(cli, score, talk):
    score(talk)
    ran = cli("store", "check")
    assert (ran.status, ran.out, ran.err) == (0, "No record is damaged.\n", "")


@pytest.fixture
def damaged(tmp_path, score, talk):
    """Damages the kept record of a memory; returns its id."""
    score(talk)
    with closing(sqlite3.connect(tmp_path / "data/mindscore/store.sqlite3")) as connection:
        [number] = connection.execute("SELECT max(rowid) FROM memories").fetchone()
        connection.execute("UPDATE memories SET score = 'x' WHERE rowid = ?", (number,))
        connection.commit()
    return f"memories:{number}"


def test_check_names_what_is_damaged_and_drop_removes_it(cli, damaged):
    ran = cli("store", "check")
    assert ran.status == 1
    assert [line.split()[0] for line in ran.out.splitlines()] == [damaged]
    assert "score: expected float" in ran.out
    ran = cli("store", "drop", damaged)
    assert (ran.status, ran.out, ran.err) == (0, "removed 1 damaged record\n", "")
    assert cli("store", "check").status == 0


def test_a_damaged_record_is_left_out_of_the_list_and_named(cli, damaged, caplog):
    ran = cli("store", "list", "--json")
    assert ran.status == 0
    assert f"{damaged} is damaged" in caplog.text
    assert [it["key"] for it in ran.document] == ["tea"]


def test_check_lists_damaged_records_as_json(cli, damaged, score, talk):
    ran = cli("store", "check", "--json")
    assert ran.status == 1
    assert ran.document == [{"id": damaged, "reason": "score: expected float"}]
    assert cli("store", "drop", damaged).status == 0
    assert cli("store", "check", "--json").document == []


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["export", "o.json"]])
def test_a_damaged_record_is_named_in_one_line_of_the_program(
    command, damaged, arguments, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    ran = command("store", *arguments, "--set", "server.scorer=toy")
    assert ran.status == 0
    [line] = ran.err.splitlines()
    assert line.startswith(f"mindscore: the store's record {damaged} is damaged and left out: ")


def test_damaged_records_are_among_the_remarks_on_a_result(cli, score, talk, damaged):
    ran = score(talk, "--json")
    assert (
        "1 record of the store is damaged and left out (mindscore store check)"
        in (ran.document["remarks"])
    )
    cli("store", "drop", damaged)
    assert "remarks" not in score(talk, "--json").document


@pytest.mark.parametrize("id_", ["memories:1", "memories:999", "nothing:1", "memories", ""])
def test_drop_removes_what_is_damaged_and_nothing_else(cli, damaged, id_):
    ran = cli("store", "drop", damaged, id_)
    assert ran.status == 1
    assert ran.err.startswith("mindscore: ")
    assert "store check" in ran.err
    assert damaged in cli("store", "check").out


# -- evidence and other databases -----------------------------------------------------------------

HALF_A_YEAR_S = 183 * 86_400


def evidence(**changes):
    values = {"conversation": "c", "model": "m", "key": "k", "text_hash": "t", "mode": "full"}
    values |= {"node_id": "n", "entry_idx": 1, "divergence": 1.0, "signed": 1.0, "hold": None}
    values |= {"noise": None, "tokens": 5, "responded_at": None, "scored_at": time.time()}
    return json.dumps(values | changes) + "\n"


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_evidence_goes_out_and_in_again(cli, exchange, tmp_path, file_format):
    lines = evidence() + evidence(key="other", mode="incremental")
    ran = cli("store", "import", exchange(lines))
    assert (ran.status, ran.out, ran.err) == (0, "imported 2 rows of evidence\n", "")
    file = tmp_path / "evidence"
    ran = cli("store", "export", file, "--format", file_format)
    assert (ran.status, ran.out) == (0, f"wrote 2 rows of evidence to {file}\n")
    for _ in range(2):
        assert cli("store", "import", file, "--set", "store.namespace=b").status == 0
    again = tmp_path / "again"
    ran = cli("store", "export", again, "--format", "jsonl", "--set", "store.namespace=b")
    assert ran.status == 0
    assert [json.loads(it) for it in again.read_text().splitlines()] == [
        json.loads(it) for it in lines.splitlines()
    ]


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_texts_conversations_and_passes_go_out_and_in_again(cli, tmp_path, talk, file_format):
    (tmp_path / "talks").mkdir()
    talk.rename(tmp_path / "talks" / "talk.jsonl")
    toy = ("--set", "server.scorer=toy")
    assert cli("score", tmp_path / "talks", "--full", *toy).status == 0
    there = ("--set", "store.namespace=there")
    for table, rows in (("texts", "2 rows"), ("conversations", "1 row"), ("passes", "1 row")):
        file, again = tmp_path / table, tmp_path / "again"
        options = ("--format", file_format, "--table", table)
        ran = cli("store", "export", file, *options)
        assert (ran.status, ran.out) == (0, f"wrote {rows} of {table} to {file}\n")
        ran = cli("store", "import", file, *there)
        assert (ran.status, ran.out, ran.err) == (0, f"imported {rows} of {table}\n", "")
        assert cli("store", "export", again, *options, *there).status == 0
        assert again.read_bytes() == file.read_bytes()
    # By its pass alone: the evidence is to be imported, too.
    ran = cli("score", tmp_path / "talks", "--full", *toy, *there)
    assert re.search(r"unchanged +1 ", ran.out)


def test_a_table_goes_with_a_format_and_a_model_with_what_has_one(cli, tmp_path):
    ran = cli("store", "export", tmp_path / "e", "--table", "texts")
    assert (ran.status, "--table goes with --format" in ran.error) == (2, True)
    one = ("--table", "texts", "--format", "csv", "--model", "m")
    ran = cli("store", "export", tmp_path / "e", *one)
    assert (ran.status, "texts are of no model" in ran.error) == (2, True)
    assert not (tmp_path / "e").exists()
    assert cli("store", "export", tmp_path / "e", "--table", "passes", *one[2:]).status == 0


def test_evidence_that_the_next_run_would_remove_is_said(cli, exchange):
    old = exchange(evidence(scored_at=time.time() - HALF_A_YEAR_S) + evidence(key="new"))
    ran = cli("store", "import", old)
    assert (ran.status, ran.out) == (0, "imported 2 rows of evidence\n")
    assert "1 row of it is older than store.retention_days = 90" in ran.err
    assert cli("store", "import", old, "--set", "store.retention_days=0").err == ""


@pytest.mark.parametrize(
    "arguments", [("--format", "xml"), ("--format", "csv", "--trained"), ("--format",)]
)
def test_an_export_that_cannot_be_is_wrong_usage(cli, tmp_path, arguments):
    ran = cli("store", "export", tmp_path / "e", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert not (tmp_path / "e").exists()


def test_a_store_is_copied_and_its_rows_are_counted(cli, exchange, tmp_path):
    cli("store", "import", exchange(evidence()))
    other = f"sqlite:///{tmp_path}/other"
    ran = cli("store", "copy", "--to", other)
    assert (ran.status, ran.err) == (0, "")
    assert "cells: 1 row\n" in ran.out
    ran = cli("store", "copy", "--to", other, "--json")
    assert {"table": "cells", "rows": 1, "left_out": 0} in ran.document
    export = ("store", "export", tmp_path / "e", "--format", "jsonl")
    assert cli(*export, "--set", f"store.url={other}").out.startswith("wrote 1 row of evidence")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://u:s3cr3t@h/d"])
def test_a_copy_to_nowhere_is_wrong_usage_and_shows_no_password(cli, url):
    ran = cli("store", "copy", "--to", url)
    assert (ran.status, ran.out) == (2, "")
    assert "--to: url: expected" in ran.err
    assert "s3cr3t" not in ran.err


def test_no_command_shows_a_store_s_password(cli, tmp_path):
    url = "postgresql+psycopg://u:s3cr3t@127.0.0.1:1/d"
    for arguments in (("store", "list"), ("store", "check"), ("config", "show"), ("store", "sent")):
        ran = cli(*arguments, "--set", f"store.url={url}", "--debug")
        assert "s3cr3t" not in ran.out + ran.err
        assert "u:***@127.0.0.1" in ran.out + ran.err
