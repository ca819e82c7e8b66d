"""``mindscore advise``: what it prints and writes, and what it refuses."""

import asyncio
import csv
import json
import re
import signal
import subprocess
import sys
from datetime import datetime

import pytest
from aiohttp import web
from tests.mindscore.archive.archives import Archive, chance

from mindscore.display.advice_documents import COLUMNS

from .conftest import PATIENCE_S, honest


@pytest.fixture
def archive(tmp_path):
    """Thirty-six conversations: the dog helps, idle-0 harms, the teas hide each other."""

    def effect(key, node_id, number):
        planted = {("dog", "pet"): 6.0, ("idle-0", "pet"): -5.0}
        return planted.get((key, node_id), 0.0) + chance(key, node_id, number)

    made = Archive(tmp_path, 36)
    asyncio.run(
        made.plant(effect, hold=lambda key, id_: 9.0 * (key[:3] == "tea" and id_ == "drink"))
    )
    return made


@pytest.fixture
def advise(cli, archive):
    """Runs ``mindscore advise`` over the archive's store."""
    options = [it for table in ("server", "store") for it in assignments(archive, table)]
    return lambda *arguments: cli("advise", *arguments, *options)


def assignments(archive, table):
    for key, value in archive.tables[table].items():
        yield "--set"
        yield f"{table}.{key}={value}"


@pytest.mark.parametrize("columns", ["60", "80", "160"])
def test_every_memory_has_its_verdict_and_its_reason(advise, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    ran = advise()
    assert (ran.status, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= int(columns)
    said = " ".join(ran.out.split())
    assert said.startswith("7 memories judged by toy on 72 responses of 36 conversations")
    headings = re.findall(r"(harmful: look here|drop|merge|keep): (\d) memor", said)
    assert headings == [("harmful: look here", "1"), ("drop", "3"), ("merge", "1"), ("keep", "2")]
    assert "4 memories could go, 32 tokens a turn" in said
    assert "Nothing was changed." in said
    assert "helped (+) and harmed (−)" in said


def test_the_document_has_all_of_it(advise):
    document = advise("--json").document
    assert document["command"] == "advise"
    assert (document["model"], document["mode"]) == ("toy", "full")
    assert document["receipt"] is None
    by_key = {it["key"]: it for it in document["memories"]}
    dog = by_key["dog"]
    assert (dog["verdict"], dog["harmed"]) == ("keep", 0)
    # One of the others is beyond noise by chance.
    assert 36 <= dog["helped"] <= 40
    assert dog["nats_interval"][0] < dog["nats"] < dog["nats_interval"][1]
    assert dog["largest"]["node_id"] == "pet"
    assert dog["last_helped"] > "2026-02"
    assert dog["text"] == "The dog is called Rex."
    assert len(by_key["idle-0"]["worst"]) == 10
    assert by_key["tea-2"]["merge_with"] == "tea-1"
    assert by_key["tea-2"]["duplicates"][0]["basis"] == "hold"
    assert sum(it["judged"] for it in dog["timeline"]) == 72


def test_a_table_has_a_row_for_each_memory(advise, tmp_path):
    file = tmp_path / "advice.csv"
    assert advise("--csv", file).status == 0
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert {it["key"]: it["verdict"] for it in rows}["idle-0"] == "harmful"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_page_has_all_of_it_and_only_its_owner_reads_it(advise, tmp_path):
    file = tmp_path / "advice.html"
    assert advise("--html", str(file)).status == 0
    page = file.read_text(encoding="utf-8")
    assert page.count('data-verdict="drop"') == 3
    assert page.count('<tr id="m') == 7
    assert file.stat().st_mode & 0o077 == 0
    elsewhere = advise("--html", str(tmp_path / "nowhere" / "advice.html"))
    assert (elsewhere.status, "there is no folder" in elsewhere.err) == (2, True)


def test_keys_to_drop_are_written_with_their_reasons(advise, tmp_path):
    lines, listed = tmp_path / "drop.txt", tmp_path / "drop.json"
    assert advise("--write", lines).status == 0
    assert advise("--write", listed).status == 0
    keys = ["idle-1", "idle-2", "idle-3", "tea-2"]
    found = dict(line.split("  # ") for line in lines.read_text().splitlines())
    assert sorted(found) == keys
    assert found["tea-2"].startswith("merge: tea-1 does its work")
    assert sorted(it["key"] for it in json.loads(listed.read_text())) == keys


def test_a_diff_is_all_that_standard_output_has(advise, tmp_path):
    file = tmp_path / "MEMORY.md"
    file.write_text("- The dog is called Rex.\n- Note 2: archive number 15838.\n")
    ran = advise("--diff", file)
    name = str(file).lstrip("/")
    assert ran.out == (
        f"--- a/{name}\n+++ b/{name}\n@@ -1,2 +1 @@\n - The dog is called Rex.\n"
        "-- Note 2: archive number 15838.\n"
    )
    assert "1 memory of 4 would go; nothing was changed" in " ".join(ran.err.split())
    assert len(file.read_text().splitlines()) == 2


def test_the_receipt_of_what_is_proposed(advise, archive):
    ran = advise("--verify", archive.folder)
    assert ran.status == 0
    said = " ".join(ran.out.split())
    assert re.search(r"Dropping these 4 saves \d+ tokens a turn and costs ", said)
    assert "Measured in 36 conversations: 72 calls" in said
    document = advise("--verify", archive.folder, "--json").document
    receipt = document["receipt"]
    assert sorted(receipt["proposed"]) == ["idle-1", "idle-2", "idle-3", "tea-2"]
    assert receipt["rounds"][0]["responses"] == 72
    assert receipt["complete"] is True


def test_what_the_receipt_keeps_is_not_written(cli, tmp_path):
    """Without hold, and without texts to compare, both are thought idle; and both are missed."""
    other = Archive(tmp_path, 36)
    asyncio.run(other.plant(chance, keep_texts=False))
    file = tmp_path / "drop.txt"
    options = [*assignments(other, "server"), *assignments(other, "store"), "--write", file]
    before = cli("advise", *options)
    assert before.status == 0
    assert {"tea-1", "tea-2"} <= {line.split("  #")[0] for line in file.read_text().splitlines()}
    ran = cli("advise", "--verify", other.folder, *options)
    said = " ".join(ran.out.split())
    # The dog, too, was planted as idle.
    assert "keep 2 of the 7 proposed" in said
    assert "Without all 7, 72 responses would lose" in said
    kept = {line.split("  #")[0] for line in file.read_text().splitlines()}
    assert len({"tea-1", "tea-2"} & kept) == 1


class Served:
    """An archive whose model is behind a server, and the command that verifies its advice."""

    def __init__(self, folder, server, tokenizer_file):
        folder.mkdir()
        self.archive = Archive(folder, 10)
        # Four of its memories say nothing, of which the server finds otherwise.
        asyncio.run(self.archive.plant(chance, model="m", keep_texts=False))
        options = {"server.model": "m", "server.tokenizer": tokenizer_file}
        options |= {"store.url": self.archive.tables["store"]["url"], "server.concurrency": 2}
        options |= {"advise.min_conversations": 5}
        self.command = ["advise", "--verify", self.archive.folder, "--json", *server.options]
        self.command += [it for key in options for it in ("--set", f"{key}={options[key]}")]


def measured(document):
    """The receipt without what it took, and when."""
    receipt = document["receipt"]
    names = ("verified_at", "calls", "prompt_tokens", "computed_tokens")
    return {name: it for name, it in receipt.items() if name not in names}


def sources_left_out(receipt):
    """As text, without the folder that the conversations lie in."""
    return re.sub(r'"source": "[^"]*/', '"source": "', json.dumps(receipt))


def test_a_verification_that_is_cut_off_goes_on_and_says_the_same(
    cli, terminal, server, tokenizer_file, tmp_path
):
    def answer(body):
        said = json.loads(honest(body).body)
        return web.json_response({**said, "fingerprint": "weights"})

    server.answer = answer
    whole = Served(tmp_path / "whole", server, tokenizer_file)
    expected = cli(*whole.command)
    assert expected.status == 0
    prompts = len(server.asked)
    assert expected.document["receipt"]["keep"]
    other = Served(tmp_path / "other", server, tokenizer_file)
    part = prompts // 3
    for sent in (signal.SIGKILL, signal.SIGINT):
        server.asked.clear()
        server.held.clear()
        server.holds = lambda body, most=part: len(server.asked) > most

        def cut(process, sent=sent):
            assert server.held.wait(PATIENCE_S)
            process.send_signal(sent)

        ran = terminal(*other.command, out=False, err=False, when=("", cut))
        assert ran.status == (130 if sent == signal.SIGINT else -sent)
        if sent == signal.SIGINT:
            assert "what was measured is kept, and the same command goes on" in ran.err
        prompts -= part
    server.holds = lambda body: False
    server.release()
    server.asked.clear()
    ran = cli(*other.command)
    assert ran.status == 0
    assert sources_left_out(measured(ran.document)) == sources_left_out(measured(expected.document))
    # Twice, two conversations were under way, with three prompts at most (the noise is measured),
    # and the server tells its weights in its answers alone: those of the first two it is asked for.
    assert len(server.asked) <= prompts + 2 * 2 * (3 + 3)


def test_the_last_receipt_is_shown_later_and_said_to_be_stale_when_drops_differ(
    advise, archive, tmp_path
):
    page = tmp_path / "advice.html"
    assert advise("--html", page).status == 0
    assert 'class="card receipt"' not in page.read_text()
    first = advise("--verify", archive.folder, "--json").document["receipt"]
    later = advise("--html", page, "--json").document
    assert later["receipt"] == first
    assert first["stale"] is None
    said = " ".join(page.read_text().split())
    assert "Dropping these <a" in said or "Dropping these 4" in said
    assert f'Verified <time datetime="{datetime.now().year}' in said
    assert "It is of other drops" not in said
    text = " ".join(advise().out.split())
    assert "Dropping these 4 saves" in text
    assert "Verified 20" in text

    # One of the drops is missed now, and is proposed no more.
    asyncio.run(archive.plant(lambda key, *_: 9.0 * (key == "idle-2") or 0.01, scored_at=2e9))
    stale = advise("--html", page, "--json").document["receipt"]
    assert stale["verified_at"] == first["verified_at"]
    assert "1 memory is not proposed any more" in stale["stale"]
    said = " ".join(page.read_text().split())
    assert f"It is of other drops than are proposed now: {stale['stale']}" in said
    text = " ".join(advise().out.split())
    assert "Dropping these" not in text
    assert f"is of other drops: {stale['stale']}" in text


def test_what_an_earlier_receipt_keeps_is_not_dropped_as_long_as_it_holds(cli, tmp_path):
    other = Archive(tmp_path, 36)
    asyncio.run(other.plant(chance, keep_texts=False))
    file = tmp_path / "drop.txt"
    options = [*assignments(other, "server"), *assignments(other, "store")]
    verified = cli("advise", "--verify", other.folder, *options, "--json").document["receipt"]
    cli("advise", "--write", file, *options)
    dropped = {line.split("  #")[0] for line in file.read_text().splitlines()}
    kept = {it["key"] for it in verified["keep"]}
    assert kept
    assert dropped == set(verified["proposed"]) - kept
    # It is verified as a whole again, with those that were to be kept.
    again = cli("advise", "--verify", other.folder, *options, "--json").document["receipt"]
    assert again["proposed"] == verified["proposed"]


def test_a_receipt_goes_when_a_memory_that_it_names_is_forgotten(advise, archive, cli):
    advise("--verify", archive.folder)
    cli("store", "forget", "idle-2", *assignments(archive, "store"))
    assert advise("--json").document["receipt"] is None


def test_where_nothing_is_proposed_the_advice_says_that_nothing_was_verified(cli, tmp_path):
    few = Archive(tmp_path, 3)
    asyncio.run(few.plant(chance))
    options = [*assignments(few, "server"), *assignments(few, "store")]
    ran = cli("advise", "--verify", few.folder, *options)
    assert (ran.status, ran.err) == (0, "")
    assert "not enough evidence: 7 memories" in ran.out
    assert "nothing is proposed to be dropped: --verify has nothing to measure" in ran.out


def test_too_few_tokens_are_said_and_fail(advise, archive):
    ran = advise("--verify", archive.folder, "--max-tokens", "500")
    assert ran.status == 1
    assert "--max-tokens does not allow for more" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--verify"], "--verify goes with PATH"),
        (["talks"], "PATH goes with --verify"),
        (["--max-tokens", "5"], "--max-tokens goes with --verify"),
        (["--since", "soon"], "--since soon: expected an age"),
        (["--model", "m"], "no evidence of model 'm' is kept; there is some of toy"),
        (["--json", "--diff", "x.md"], "--json and --diff both print"),
        (["--csv", "/none/such/file.csv"], "there is no folder"),
        (["--verify", "/none/such/talks"], "cannot be read"),
    ],
)
def test_wrong_usage_is_said(advise, arguments, error):
    ran = advise(*arguments)
    assert ran.status == 2
    assert error in ran.error


def test_a_file_that_is_read_is_never_written(advise, tmp_path):
    file = tmp_path / "MEMORY.md"
    file.write_text("- one\n")
    ran = advise("--diff", file, "--write", file)
    assert ran.status == 2
    assert "nothing of yours is changed" in ran.error
    assert file.read_text() == "- one\n"


def test_an_empty_store_says_how_to_begin(cli):
    ran = cli("advise")
    assert ran.status == 0
    assert "Nothing is kept yet in this namespace: mindscore score PATH --full" in ran.out


def test_nothing_is_imported_that_only_conversations_or_a_server_need():
    unneeded = (
        "mindscore.readers, mindscore.archive.survey, mindscore.archive.verify, "
        "sqlalchemy.dialects.postgresql, aiohttp, torch"
    )
    code = (
        f"import sys, mindscore.cli.advise; print({{*'{unneeded}'.split(', ')}} & {{*sys.modules}})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
