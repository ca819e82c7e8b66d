"""``mindscore train``: what is accepted goes to the trainer, once."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("mindscore")
LEFT_OUT = {"waiting": 0, "rejected": 0, "had": 0, "unknown": 0, "without_other": 0}


@pytest.fixture
def train(cli, score_server):
    """Runs ``mindscore train`` with the trainer's address: ``train("--json")``."""
    url = f"server.base_url={score_server.url}"
    return lambda *arguments: cli("train", *arguments, "--set", url, "--set", "server.scorer=toy")


@pytest.fixture
def to_files(cli, tmp_path):
    """Runs ``mindscore train`` with the sink ``jsonl``: ``to_files("--json")``."""
    options = ["--set", "train.sink=jsonl", "--set", f"train.folder={tmp_path}/out"]
    return lambda *arguments: cli("train", *arguments, *options, "--set", "server.scorer=toy")


def test_what_is_accepted_is_sent_without_memories_and_the_job_is_said(
    train, score_server, candidates
):
    candidates(one="accepted", two=None, three="rejected", four="accepted")
    score_server.always({"job_id": "j1"})
    ran = train()
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "http took 2 responses (8 tokens): j1"
    assert lines[1:3] == [
        "left out: 1 wait for review: mindscore review, or --unreviewed",
        "left out: 1 rejected in review",
    ]
    assert lines[3].startswith("with mindscore serve --train: GET http://127.0.0.1:")
    assert lines[4].endswith("/train/j1/activate swaps the adapter in")
    [request] = score_server.requests
    assert request.path == "/train"
    samples = request.body["training_data"]["samples"]
    assert [it["context_ids"] for it in samples] == [[1, 10], [1, 13]]


def test_the_answer_is_the_one_chosen_in_review(train, score_server, candidates):
    candidates(one="alternate", two="edited")
    score_server.always({"job_id": "j1"})
    assert train().status == 0
    samples = score_server.requests[0].body["training_data"]["samples"]
    assert [it["continuation_ids"] for it in samples] == [[10, 6], [11, 9]]


def test_with_memories_where_the_settings_say_so(train, score_server, candidates):
    candidates(one="accepted")
    score_server.always({"job_id": "j1"})
    train("--set", "train.context=full")
    [sample] = score_server.requests[0].body["training_data"]["samples"]
    assert sample["context_ids"] == [1, 9, 10]


def test_what_was_sent_is_not_sent_again(train, score_server, candidates):
    candidates(one="accepted")
    score_server.always({"job_id": "j1"})
    train()
    ran = train()
    assert (ran.status, ran.out) == (1, "")
    assert ran.error == "nothing to send: 1 that http has"


def test_where_all_was_sent_unreviewed_it_does_not_say_that_there_are_no_candidates(
    train, score_server, candidates
):
    candidates(one=None)
    score_server.always({"job_id": "j1"})
    assert train("--unreviewed", "--no-wait").status == 0
    assert train().error == "nothing to send: all candidates that are kept were sent before"
    assert len(score_server.requests) == 1


def test_another_sink_takes_it_too(train, to_files, score_server, candidates, tmp_path):
    candidates(one="accepted")
    score_server.always({"job_id": "j1"})
    assert (train().status, to_files().status) == (0, 0)
    assert (train().status, to_files().status) == (1, 1)
    assert len(score_server.requests) == 1
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 1


def test_what_nobody_reviewed_is_sent_where_that_is_said_and_the_rejected_never(
    train, score_server, candidates
):
    candidates(one=None, two="rejected", three="accepted")
    score_server.always({"job_id": "j1"})
    ran = train("--unreviewed")
    assert ran.out.startswith("http took 2 responses")
    assert "wait for review" not in ran.out
    samples = score_server.requests[0].body["training_data"]["samples"]
    assert [it["context_ids"][-1] for it in samples] == [10, 12]


NOTHING = {
    "nothing": ({}, "no candidates are kept: mindscore score CONVERSATION --finetune finds some"),
    "all wait": (
        {"one": None, "two": None},
        "2 wait for review: mindscore review, or --unreviewed",
    ),
    "all rejected": ({"one": "rejected"}, "1 rejected in review"),
}


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--json"], ["--dry-run", "--json"]])
@pytest.mark.parametrize(("kept", "why"), NOTHING.values(), ids=NOTHING)
def test_where_nothing_is_accepted_one_line_says_what_to_do(
    kept, why, options, train, score_server, candidates
):
    candidates(**kept)
    ran = train(*options)
    assert ran.status == 1
    assert ran.error == f"nothing to send: {why}"
    if "--json" in options:
        assert ran.document["error"] == ran.error
        assert ran.document["responses"] == 0
    else:
        assert ran.out == ""
    assert score_server.requests == []


def test_a_dry_run_says_what_would_go_where_and_neither_sends_nor_marks(
    train, score_server, candidates, monkeypatch
):
    monkeypatch.setenv("MINDSCORE_API_KEY", "s3cret-key")
    candidates(one="accepted", two=None, three="accepted")
    ran = train("--dry-run")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"would send 2 responses (8 tokens), without memories, to http, {score_server.url}/train",
        "left out: 1 wait for review: mindscore review, or --unreviewed",
    ]
    assert score_server.requests == []
    assert "s3cret" not in ran.out
    score_server.always({"job_id": "j1"})
    assert train().out.startswith("http took 2 responses")


def test_a_dry_run_makes_no_files(to_files, candidates, tmp_path):
    candidates(one="accepted")
    ran = to_files("--dry-run", "--set", "train.context=full")
    assert ran.out == (
        f"would send 1 response (5 tokens), with memories, to jsonl, {tmp_path}/out (input_ids)\n"
    )
    assert not (tmp_path / "out").exists()


def test_the_document_of_a_dry_run(train, score_server, candidates):
    candidates(one="accepted", two=None, three="rejected")
    assert train("--dry-run", "--json").document == {
        "command": "train",
        "dry_run": True,
        "model": "m",
        "sink": "http",
        "destination": f"{score_server.url}/train",
        "context": "bare",
        "responses": 1,
        "tokens": 4,
        "resend": [],
        "sent": None,
        "resent": [],
        "left_out": {**LEFT_OUT, "waiting": 1, "rejected": 1},
        "inexact": 0,
        "error": None,
    }


def test_the_document_of_a_run(train, score_server, candidates):
    candidates(one="accepted")
    score_server.always({"job_id": 17})
    ran = train("--json")
    assert (ran.status, ran.err) == (0, "")
    key = score_server.requests[0].headers["Idempotency-Key"]
    sent = {"key": key, "job_id": "17", "responses": 1, "tokens": 4}
    assert ran.document["sent"] == sent
    assert (ran.document["dry_run"], ran.document["left_out"]) == (False, LEFT_OUT)


def test_what_a_file_sink_took_is_named(to_files, candidates, tmp_path):
    candidates(one="accepted")
    ran = to_files()
    [file] = (tmp_path / "out").glob("*.jsonl")
    assert ran.out.startswith(f"jsonl took 1 response (4 tokens): {file}\n")
    assert json.loads(file.read_text())["labels"] == [-100, -100, 10, 5]
    assert to_files("--json").document["left_out"]["had"] == 1


# -- what is not accepted, or may be --------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_refusal_is_an_error_and_everything_can_be_sent_again(
    train, score_server, candidates, options
):
    candidates(one="accepted")
    score_server.script(400, {"job_id": "j1"})
    ran = train(*options)
    assert ran.status == 1
    assert ran.error.startswith("nothing was marked as trained: ")
    if options:
        assert ran.document["error"] == ran.error
        assert ran.document["sent"] is None
    assert train().out.startswith("http took 1 response")


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 422, 429, 501])
def test_a_server_that_does_not_train_leaves_nothing_unknown(
    status, train, cli, score_server, candidates
):
    candidates(one="accepted")
    score_server.script(status)
    ran = train()
    assert (ran.status, ran.out) == (1, "")
    assert ran.error.startswith("nothing was marked as trained: ")
    assert cli("store", "sent", "--json").document == []


def test_what_may_have_been_accepted_is_left_out_until_it_is_asked_for(
    train, cli, score_server, candidates
):
    candidates(one="accepted", two="accepted")
    score_server.script(500)
    ran = train()
    assert (ran.status, ran.out) == (1, "")
    assert "is not known" in ran.error
    [unknown] = cli("store", "sent", "--json").document
    assert (unknown["sink"], unknown["responses"]) == ("http", 2)
    candidates(three="accepted")
    score_server.script({"job_id": "new"})
    lines = train().out.splitlines()
    assert lines[0] == "http took 1 response (4 tokens): new"
    assert lines[1].startswith("left out: 2 that http may have: mindscore store sent, or --resend")
    assert "would send 2 responses again" in train("--dry-run", "--resend-unknown").out
    score_server.script({"job_id": "again"})
    ran = train("--resend-unknown")
    assert ran.out.splitlines()[0] == "http took 2 responses (8 tokens) again: again"
    assert "left out: 1 that http has" in ran.out
    first, _, again = score_server.requests
    assert first.body == again.body
    assert first.headers["Idempotency-Key"] == again.headers["Idempotency-Key"]
    assert cli("store", "sent", "--json").document == []


def test_sends_to_another_sink_are_not_repeated(train, to_files, score_server, candidates):
    candidates(one="accepted")
    score_server.script(500)
    train()
    assert "again" not in to_files("--resend-unknown").out
    assert len(score_server.requests) == 1


def test_an_interruption_says_where_what_was_on_its_way_is(cli, score_server, candidates):
    candidates(one="accepted")
    arrived = threading.Event()

    async def wait(request):
        arrived.set()
        return await score_server.silent(request)

    score_server.script(wait)
    process = subprocess.Popen(
        [COMMAND, "train", "--set", f"server.base_url={score_server.url}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background ignores SIGINT, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert arrived.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "mindscore: interrupted: what was on its way is in mindscore store sent\n"
    [unknown] = cli("store", "sent", "--json").document
    assert unknown["responses"] == 1


# -- which model, which sink ----------------------------------------------------------------------


def test_of_several_models_one_has_to_be_chosen(train, score_server, candidates):
    candidates(one="accepted")
    candidates(model="other", two="accepted", three="accepted")
    ran = train()
    assert (ran.status, ran.out) == (2, "")
    assert "m, other" in ran.error
    assert "--model" in ran.error
    score_server.always({"job_id": "j1"})
    assert train("--model", "other").out.startswith("http took 2 responses")
    assert train("--model", "m").out.startswith("http took 1 response")


def test_of_several_models_the_configured_one_is_meant(to_files, candidates):
    candidates(one="accepted")
    candidates(model="toy", two="accepted")
    assert to_files("--dry-run", "--json").document["model"] == "toy"


def test_a_model_without_candidates_is_refused(train, candidates):
    candidates(one="accepted")
    ran = train("--model", "other")
    assert (ran.status, ran.out) == (2, "")
    assert "no candidates of model 'other'" in ran.error


def test_a_sink_that_is_not_there_is_refused_with_those_there_are(train, candidates):
    ran = train("--set", "train.sink=nobody")
    assert (ran.status, ran.out) == (2, "")
    assert "http, jsonl" in ran.error


def test_a_trainer_without_an_address_is_a_wrong_configuration(cli, candidates):
    ran = cli("train", "--dry-run")
    assert (ran.status, ran.out) == (2, "")
    assert "server.base_url" in ran.error


def test_texts_that_nothing_makes_are_a_wrong_configuration(to_files, candidates, cli):
    candidates(one="accepted")
    ran = to_files("--set", "train.format=prompt_completion")
    assert (ran.status, ran.out) == (2, "")
    assert "input_ids" in ran.error
    assert cli("store", "sent", "--json").document == []


SINK = """
from pathlib import Path

class Drawer:
    destination, wants_text, wants_rejected = "a drawer", False, False

    def __init__(self, train, server):
        self.file = Path(train["options"]["file"])

    async def send(self, samples, key):
        print("a word of its own")
        self.file.write_text(f"{key} {[it.continuation_ids for it in samples]}")
        return "drawer 3"

    async def aclose(self):
        pass
"""


def test_a_third_partys_sink_gets_its_options_and_the_samples(
    command, install, candidates, tmp_path
):
    candidates(one="accepted")
    environment = install(SINK, "drawer = acme_loud:Drawer", group="mindhooks.sinks")
    options = ["--set", "train.sink=drawer", "--set", f"train.options.file={tmp_path}/drawer"]
    ran = command("train", "--json", *options, **environment)
    assert (ran.status, ran.err) == (0, "a word of its own\n")
    assert (ran.document["sink"], ran.document["sent"]["job_id"]) == ("drawer", "drawer 3")
    key = ran.document["sent"]["key"]
    assert Path(tmp_path / "drawer").read_text() == f"{key} [(10, 5)]"
