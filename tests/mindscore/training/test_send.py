"""Handing candidates to a trainer, over real connections: section 4.5."""

import asyncio
import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from aiohttp import web

import mindscore
from mindhooks import FinetuneCandidate
from mindscore._util.errors import ConfigError, StoreError, TrainError
from mindscore.config.settings import StoreSettings
from mindscore.measure.prompts import response_hash
from mindscore.store import Sends, Store, database

STORES = Path(__file__).parents[1] / "store"


def candidate(timestamp_ns=5, context_ids=(1, 2), continuation_ids=(3, 4)):
    return FinetuneCandidate(
        entry_idx=1,
        node_id="c1",
        divergence=2.0,
        response_text="said",
        prior_context="",
        context_ids=context_ids,
        bare_context_ids=(1,),
        continuation_ids=continuation_ids,
        alternate_text="else",
        alternate_ids=(9,),
        timestamp_ns=timestamp_ns,
    )


@pytest.fixture
def trainer(score_server):
    """A server that accepts whatever it is sent as job ``j1``."""
    score_server.always({"job_id": "j1"})
    return score_server


@pytest.fixture
def settings(score_server, tmp_path):
    """Settings that point to the server and to a store of the test's own."""

    def make(namespace="default", **server):
        return {
            "server": {"base_url": f"{score_server.url}/v1", **server},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3", "namespace": namespace},
        }

    return make


@pytest.fixture
def store(settings):
    return Store(StoreSettings(**settings()["store"]))


@pytest.fixture
def marks(tmp_path):
    """What is marked as trained on disk: timestamp, hash, job."""

    def read():
        with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as connection:
            query = "SELECT timestamp_ns, continuation_hash, job_id FROM trained"
            return sorted(connection.execute(query).fetchall())

    return read


@pytest.fixture
def unknown(settings):
    """The sends of an unknown outcome: ``await unknown()``, how many responses by key."""

    async def read():
        sends = Sends(StoreSettings(**settings()["store"]))
        return {send.key: send.responses for send in await sends.unknown()}

    return read


# -- what is sent ---------------------------------------------------------------------------------


async def test_the_body_holds_the_samples_and_nothing_else(trainer, settings):
    candidates = [candidate(5), candidate(6, (1, 2, 3), (7,))]
    await mindscore.send_to_train(candidates, settings())
    [request] = trainer.requests
    assert (request.method, request.path) == ("POST", "/v1/train")
    assert request.body == {
        "training_data": {
            "samples": [
                {"context_ids": [1, 2], "continuation_ids": [3, 4]},
                {"context_ids": [1, 2, 3], "continuation_ids": [7]},
            ]
        }
    }


@pytest.mark.parametrize(
    ("train", "context_ids"),
    [
        ({}, [1, 2]),
        ({"options": {"a": 1}}, [1, 2]),
        ({"context": "full"}, [1, 2]),
        ({"context": "bare"}, [1]),
    ],
)
async def test_the_prompt_has_its_memories_unless_the_settings_say_otherwise(
    trainer, settings, train, context_ids
):
    await mindscore.send_to_train([candidate()], {**settings(), "train": train})
    [sample] = trainer.requests[0].body["training_data"]["samples"]
    assert sample["context_ids"] == context_ids


@pytest.mark.parametrize(
    ("server", "named"), [({}, None), ({"model": "smollm2"}, "smollm2"), ({"model": "m"}, "m")]
)
async def test_the_model_is_said_where_it_was_named_and_not_where_it_is_a_default(
    trainer, settings, server, named
):
    await mindscore.send_to_train([candidate()], settings(**server))
    assert trainer.requests[0].headers.get("Mindscore-Model") == named


async def test_the_sink_that_the_settings_name_is_sent_to(trainer, settings, store, tmp_path):
    tables = {**settings(), "train": {"sink": "jsonl", "folder": str(tmp_path / "out")}}
    said = await mindscore.send_to_train([candidate()], tables)
    [file] = (tmp_path / "out").glob("*.jsonl")
    assert said == str(file)
    assert json.loads(file.read_text())["input_ids"] == [1, 2, 3, 4]
    assert (await store.trained()).covers(5, (3, 4), "jsonl")
    with pytest.raises(TrainError, match="all candidates are trained already"):
        await mindscore.send_to_train([candidate()], tables)
    assert await mindscore.send_to_train([candidate()], settings()) == "j1"


async def test_where_no_candidate_makes_a_pair_that_is_said(settings, tmp_path, tokenizer_file):
    train = {"sink": "jsonl", "folder": str(tmp_path / "out"), "format": "preference"}
    tables = {**settings(tokenizer=str(tokenizer_file)), "train": train}
    alone = replace(candidate(), alternate_ids=None)
    with pytest.raises(TrainError, match="1 of the candidates have no second answer"):
        await mindscore.send_to_train([alone], tables)
    assert await mindscore.send_to_train([alone, candidate(6)], tables)


async def test_a_slash_at_the_end_of_base_url_makes_no_difference(trainer, settings):
    await mindscore.send_to_train([candidate()], settings(base_url=f"{trainer.url}/v1/"))
    assert trainer.paths == ["/v1/train"]


async def test_a_bearer_key_goes_along_where_one_is_set(trainer, settings, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", "s3cret")
    await mindscore.send_to_train([candidate()], settings())
    assert trainer.requests[0].headers["Authorization"] == "Bearer s3cret"


async def test_no_key_means_no_header(trainer, settings):
    await mindscore.send_to_train([candidate()], settings())
    assert "Authorization" not in trainer.requests[0].headers


# -- marks ----------------------------------------------------------------------------------------


async def test_the_job_id_is_returned_and_the_marks_bear_it(trainer, settings, marks):
    candidates = [candidate(5), candidate(6, continuation_ids=(7,))]
    assert await mindscore.send_to_train(candidates, settings()) == "j1"
    assert marks() == [(5, response_hash([3, 4]), "j1"), (6, response_hash([7]), "j1")]


async def test_a_job_id_may_be_a_number(score_server, settings, marks):
    score_server.always({"job_id": 17})
    assert await mindscore.send_to_train([candidate()], settings()) == "17"
    assert [job_id for _, _, job_id in marks()] == ["17"]


async def test_nothing_is_marked_before_the_server_has_accepted(score_server, settings, marks):
    marked = []

    async def accept(request):
        marked.append(marks())
        return web.json_response({"job_id": "j1"})

    score_server.script(accept)
    await mindscore.send_to_train([candidate()], settings())
    assert marked == [[]]
    assert len(marks()) == 1


async def test_what_is_trained_already_is_left_out_and_keeps_its_mark(
    trainer, settings, store, marks
):
    await store.mark_trained([(5, (3, 4))], "earlier")
    await store.import_trained([6])
    candidates = [
        candidate(5),
        candidate(5, continuation_ids=(8,)),
        candidate(6),
        candidate(6, continuation_ids=(8,)),
        candidate(7),
    ]
    await mindscore.send_to_train(candidates, settings())
    [request] = trainer.requests
    samples = request.body["training_data"]["samples"]
    assert [sample["continuation_ids"] for sample in samples] == [[8], [3, 4]]
    assert {(stamp, job) for stamp, _, job in marks()} == {
        (5, "earlier"),
        (5, "j1"),
        (6, None),
        (7, "j1"),
    }
    assert len(marks()) == 4


async def test_a_second_time_there_is_nothing_to_send(trainer, settings):
    await mindscore.send_to_train([candidate()], settings())
    with pytest.raises(TrainError, match="nothing to send"):
        await mindscore.send_to_train([candidate()], settings())
    assert len(trainer.requests) == 1


async def test_another_namespace_s_marks_are_its_own(trainer, settings):
    await mindscore.send_to_train([candidate()], settings())
    await mindscore.send_to_train([candidate()], settings(namespace="other"))
    assert len(trainer.requests) == 2


async def test_no_candidates_are_nothing_to_send(trainer, settings):
    with pytest.raises(TrainError, match="nothing to send"):
        await mindscore.send_to_train([], settings())
    assert trainer.requests == []


# -- when it is not accepted ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 408, 422, 425, 429, 500, 501, 502, 503, 504])
async def test_a_refusal_is_an_error_neither_repeated_nor_marked(
    score_server, settings, marks, status
):
    score_server.always(status)
    with pytest.raises(TrainError, match=f"{status}") as caught:
        await mindscore.send_to_train([candidate()], settings(max_attempts=5))
    assert f"{score_server.url}/v1/train" in str(caught.value)
    assert len(score_server.requests) == 1
    assert marks() == []


async def test_an_error_with_status_200_is_no_acceptance(score_server, settings, marks):
    score_server.always({"error": "no more disks"})
    with pytest.raises(TrainError, match="no more disks"):
        await mindscore.send_to_train([candidate()], settings())
    assert len(score_server.requests) == 1
    assert marks() == []


async def test_an_error_beside_a_job_id_is_no_acceptance(score_server, settings, marks):
    score_server.always({"job_id": "j1", "error": {"message": "no more disks"}})
    with pytest.raises(TrainError, match="no more disks"):
        await mindscore.send_to_train([candidate()], settings())
    assert marks() == []


@pytest.mark.parametrize("answer", [{}, {"job_id": None}, [], b"accepted", b""])
async def test_an_answer_without_a_job_id_is_no_acceptance(score_server, settings, marks, answer):
    score_server.always(answer)
    with pytest.raises(TrainError, match="/v1/train"):
        await mindscore.send_to_train([candidate()], settings())
    assert len(score_server.requests) == 1
    assert marks() == []


async def test_a_connection_that_breaks_is_not_tried_again(score_server, settings, marks):
    # The body has arrived: the trainer may have begun.
    score_server.always(score_server.raw(b""))
    with pytest.raises(TrainError, match="connection broke"):
        await mindscore.send_to_train([candidate()], settings(max_attempts=5))
    assert len(score_server.requests) == 1
    assert marks() == []


async def test_no_answer_in_time_is_not_tried_again(score_server, settings, marks):
    score_server.always(score_server.silent)
    with pytest.raises(TrainError, match="timeout_s"):
        await mindscore.send_to_train([candidate()], settings(max_attempts=5, timeout_s=0.2))
    assert len(score_server.requests) == 1
    assert marks() == []


async def test_an_answer_that_leads_to_the_job_may_be_an_acceptance(
    score_server, settings, unknown
):
    score_server.always(score_server.reply({}, 303, headers={"Location": "/jobs/7"}))
    for said in ("is not known", "nothing to send"):
        with pytest.raises(TrainError, match=said):
            await mindscore.send_to_train([candidate()], settings())
    assert await unknown()
    assert len(score_server.requests) == 1


async def test_without_an_address_the_error_says_what_to_do(settings):
    with pytest.raises(ConfigError, match=r"mindscore serve --train.*jsonl"):
        await mindscore.send_to_train([candidate()], settings(base_url=""))


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 408, 422, 425, 429, 501])
async def test_after_a_refusal_the_same_candidates_can_be_sent_again(
    score_server, settings, marks, unknown, status
):
    score_server.script(status, {"job_id": "j2"})
    with pytest.raises(TrainError, match="nothing was marked"):
        await mindscore.send_to_train([candidate()], settings())
    assert await unknown() == {}
    assert await mindscore.send_to_train([candidate()], settings()) == "j2"
    assert [mark[2] for mark in marks()] == ["j2"]


# -- when nobody knows whether it was accepted ----------------------------------------------------


async def test_what_an_earlier_version_left_unknown_is_repeated_as_it_was(
    trainer, settings, tmp_path, marks, unknown
):
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as connection:
        connection.executescript((STORES / "version-2.sql").read_text(encoding="utf-8"))
    assert await unknown() == {"key-1": 2}
    with pytest.raises(TrainError, match="nothing to send: 2 responses"):
        await mindscore.send_to_train([candidate(77)], settings())
    await mindscore.send_to_train([candidate(77)], settings(), resend_unknown=True)
    [request] = trainer.requests
    assert request.headers["Idempotency-Key"] == "key-1"
    assert request.body["training_data"]["samples"] == [
        {"context_ids": [1, 2], "continuation_ids": [3, 4]},
        {"context_ids": [1], "continuation_ids": [4]},
    ]
    sent = [(77, response_hash((3, 4)), "j1"), (78, response_hash((4,)), "j1")]
    assert set(sent) <= set(marks())
    assert await unknown() == {}


@pytest.fixture(params=["500", "503", "silent", "broken", "half", "no job", "an error", "no JSON"])
def unsure(request, score_server):
    """Has the server take a request and answer so that nobody knows what became of it."""
    answers = {
        "500": 500,
        "503": score_server.reply(b"", 503, {"Retry-After": "0"}),
        "silent": score_server.silent,
        "broken": score_server.raw(b""),
        "half": score_server.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"job_id":'),
        "no job": {},
        "an error": {"error": "no more disks"},
        "no JSON": b"accepted",
    }
    return answers[request.param]


async def test_what_may_have_been_accepted_is_not_sent_as_new_again(
    score_server, settings, unsure, unknown, marks
):
    score_server.script(unsure)
    score_server.always({"job_id": "j2"})
    with pytest.raises(TrainError, match="not known") as caught:
        await mindscore.send_to_train([candidate(5), candidate(6)], settings(timeout_s=0.3))
    [key] = await unknown()
    assert key == score_server.requests[0].headers["Idempotency-Key"]
    assert key in str(caught.value)
    assert await unknown() == {key: 2}
    with pytest.raises(
        TrainError, match=r"nothing to send: 2 responses, sent since \d{4}-"
    ) as caught:
        await mindscore.send_to_train([candidate(5), candidate(6)], settings())
    assert "mindscore store settle" in str(caught.value)
    assert len(score_server.requests) == 1
    assert marks() == []


async def test_the_others_are_sent_with_a_warning_that_counts_what_is_left_out(
    score_server, settings, marks, caplog
):
    score_server.script(500, {"job_id": "j2"})
    with pytest.raises(TrainError):
        await mindscore.send_to_train([candidate(5), candidate(6)], settings())
    assert caplog.records == []
    later = [candidate(stamp) for stamp in (5, 6, 7)]
    assert await mindscore.send_to_train(later, settings()) == "j2"
    assert [(stamp, job) for stamp, _, job in marks()] == [(7, "j2")]
    assert len(score_server.requests[1].body["training_data"]["samples"]) == 1
    [record] = caplog.records
    assert (record.name.split(".")[0], record.levelname) == ("mindscore", "WARNING")
    assert "2 responses" in record.getMessage()


async def test_before_a_request_goes_out_it_is_in_the_store(score_server, settings, unknown):
    found = []

    async def accept(request):
        found.append((request.headers["Idempotency-Key"], await unknown()))
        return web.json_response({"job_id": "j1"})

    score_server.script(accept)
    await mindscore.send_to_train([candidate(5), candidate(6)], settings())
    [(key, there)] = found
    assert there == {key: 2}
    assert await unknown() == {}


async def test_each_request_has_a_key_of_its_own(trainer, settings):
    await mindscore.send_to_train([candidate(5)], settings())
    await mindscore.send_to_train([candidate(6)], settings())
    first, second = (request.headers["Idempotency-Key"] for request in trainer.requests)
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert re.fullmatch(r"[0-9a-f]{32}", second)
    assert first != second


async def test_what_is_sent_again_is_the_same_request_under_the_same_key(
    score_server, settings, unknown, marks
):
    score_server.script(500, {"job_id": "again"}, {"job_id": "new"})
    with pytest.raises(TrainError):
        await mindscore.send_to_train([candidate(7), candidate(5), candidate(6)], settings())
    given = [candidate(8), candidate(5)]
    assert await mindscore.send_to_train(given, settings(), resend_unknown=True) == "new"
    first, again, new = score_server.requests
    assert again.body == first.body
    assert again.headers["Idempotency-Key"] == first.headers["Idempotency-Key"]
    assert new.headers["Idempotency-Key"] != first.headers["Idempotency-Key"]
    assert len(new.body["training_data"]["samples"]) == 1
    jobs = [(5, "again"), (6, "again"), (7, "again"), (8, "new")]
    assert [(stamp, job) for stamp, _, job in marks()] == jobs
    assert await unknown() == {}


async def test_where_nothing_new_is_left_the_job_is_the_one_sent_again(score_server, settings):
    score_server.script(500, {"job_id": "again"})
    with pytest.raises(TrainError):
        await mindscore.send_to_train([candidate()], settings())
    job = await mindscore.send_to_train([candidate()], settings(), resend_unknown=True)
    assert job == "again"
    assert len(score_server.requests) == 2


async def test_unknown_sends_of_other_candidates_are_not_sent_again(
    score_server, settings, unknown
):
    score_server.script(500)
    score_server.always({"job_id": "j2"})
    with pytest.raises(TrainError):
        await mindscore.send_to_train([candidate(5)], settings())
    await mindscore.send_to_train([candidate(6)], settings(), resend_unknown=True)
    assert len(score_server.requests) == 2
    assert list((await unknown()).values()) == [1]


@pytest.mark.parametrize("answer", [500, 401, 409])
async def test_a_second_request_that_fails_does_not_settle_the_first(
    score_server, settings, unknown, marks, answer
):
    score_server.script(500, answer, {"job_id": "third"})
    with pytest.raises(TrainError):
        await mindscore.send_to_train([candidate(5)], settings())
    before = await unknown()
    with pytest.raises(TrainError, match=f"{answer}"):
        await mindscore.send_to_train([candidate(5), candidate(6)], settings(), resend_unknown=True)
    assert await unknown() == before
    assert len(score_server.requests) == 2
    assert marks() == []


async def test_what_was_settled_by_hand_meanwhile_is_marked_when_it_is_accepted(
    score_server, settings, unknown, marks
):
    async def accept(request):
        sends = Sends(StoreSettings(**settings()["store"]))
        await sends.release(request.headers["Idempotency-Key"])
        return web.json_response({"job_id": "j1"})

    score_server.script(accept)
    await mindscore.send_to_train([candidate()], settings())
    assert [mark[2] for mark in marks()] == ["j1"]


async def test_a_request_that_is_cancelled_stays_unknown(score_server, settings, unknown):
    arrived = threading.Event()

    async def wait(request):
        arrived.set()
        return await score_server.silent(request)

    score_server.script(wait)
    sending = asyncio.create_task(mindscore.send_to_train([candidate()], settings()))
    await asyncio.to_thread(arrived.wait, 30)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert list((await unknown()).values()) == [1]


SEND = """
import asyncio, json, sys
import mindscore
from mindhooks import FinetuneCandidate
from mindscore._util.errors import TrainError

fields, settings = json.loads(sys.argv[1]), json.loads(sys.argv[2])
candidates = [FinetuneCandidate(**{**fields, "timestamp_ns": stamp}) for stamp in range(50)]
print("ready", flush=True)
sys.stdin.readline()
try:
    print(asyncio.run(mindscore.send_to_train(candidates, settings)))
except TrainError as error:
    print(error)
"""


@pytest.fixture
def senders(settings):
    """Processes of their own that send 50 candidates: ``senders(2)``; each waits for a line."""
    started = []

    def start(count):
        fields = json.dumps(asdict(candidate()))
        started.extend(
            subprocess.Popen(
                [sys.executable, "-c", SEND, fields, json.dumps(settings())],
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(count)
        )
        for process in started:
            assert process.stdout.readline() == "ready\n"
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_two_processes_at_once_send_no_response_twice(trainer, settings, senders, marks):
    every = senders(4)
    for process in every:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [(await asyncio.to_thread(process.communicate))[0] for process in every]
    assert sum(it == "j1\n" for it in said) == 1
    assert sum(it.startswith("nothing to send") for it in said) == 3
    assert len(trainer.requests) == 1
    assert len(marks()) == 50


async def test_what_a_killed_process_had_sent_is_unknown(
    score_server, settings, senders, unknown, marks
):
    arrived = threading.Event()

    async def wait(request):
        arrived.set()
        return await score_server.silent(request)

    score_server.script(wait)
    [process] = senders(1)
    process.stdin.write("go\n")
    process.stdin.flush()
    await asyncio.to_thread(arrived.wait, 30)
    process.kill()
    process.wait()
    assert list((await unknown()).values()) == [50]
    with pytest.raises(TrainError, match="50 responses"):
        await mindscore.send_to_train([candidate()], settings())
    assert len(score_server.requests) == 1
    assert marks() == []


# -- when the store fails -------------------------------------------------------------------------


async def test_nothing_is_sent_where_the_store_cannot_note_it(trainer, settings, tmp_path):
    (tmp_path / "store.sqlite3").write_text("this is a letter, not a database. " * 100)
    with pytest.raises(StoreError, match="not a database"):
        await mindscore.send_to_train([candidate()], settings())
    assert trainer.requests == []


async def test_no_candidates_make_no_store(trainer, settings, tmp_path):
    with pytest.raises(TrainError):
        await mindscore.send_to_train([], settings())
    assert not (tmp_path / "store.sqlite3").exists()


async def test_what_was_accepted_but_not_marked_is_unknown_and_the_error_has_the_job(
    score_server, settings, unknown, monkeypatch, tmp_path
):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    locks = []

    async def accept(request):
        file = tmp_path / "store.sqlite3"
        locks.append(sqlite3.connect(file, isolation_level=None, check_same_thread=False))
        locks[0].execute("BEGIN IMMEDIATE")
        return web.json_response({"job_id": "j1"})

    score_server.script(accept)
    with pytest.raises(StoreError, match=r"job j1.*locked.*mindscore store settle") as caught:
        await mindscore.send_to_train([candidate()], settings())
    locks[0].close()
    [key] = await unknown()
    assert f"settle {key} --trained" in str(caught.value)


# -- while there is no connection -----------------------------------------------------------------


@pytest.fixture
def closed_port():
    """A socket on a port of its own that nobody listens on."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def attempts(monkeypatch):
    """Watches the connections that the running loop is asked to open: all, and when it begins."""

    def watch():
        loop = asyncio.get_running_loop()
        connect, opened, begun = loop.sock_connect, [], asyncio.Event()

        async def sock_connect(sock, address):
            opened.append(address)
            begun.set()
            await connect(sock, address)

        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        return opened, begun

    return watch


async def test_a_refused_connection_is_tried_max_attempts_times_and_nothing_is_marked(
    closed_port, settings, marks, unknown, attempts
):
    opened, _ = attempts()
    url = "http://{}:{}".format(*closed_port.getsockname())
    with pytest.raises(TrainError, match="cannot connect"):
        await mindscore.send_to_train([candidate()], settings(base_url=url, max_attempts=3))
    assert opened == [closed_port.getsockname()] * 3
    assert marks() == []
    assert await unknown() == {}


async def test_a_server_that_comes_up_meanwhile_gets_the_candidates_once(
    closed_port, settings, marks, attempts
):
    bodies = []

    async def accept(request):
        bodies.append(json.loads(await request.read()))
        return web.json_response({"job_id": "late"})

    opened, begun = attempts()
    url = "http://{}:{}".format(*closed_port.getsockname())
    sending = asyncio.create_task(
        mindscore.send_to_train([candidate()], settings(base_url=url, max_attempts=50))
    )
    await begun.wait()
    app = web.Application()
    app.router.add_post("/train", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, closed_port).start()
        assert await sending == "late"
    finally:
        await runner.cleanup()
    assert len(bodies) == 1
    assert len(opened) > 1
    assert [mark[2] for mark in marks()] == ["late"]


async def test_a_server_without_trusted_tls_got_nothing(settings, marks, unknown):
    tables = settings(timeout_s=10)
    tables["server"]["base_url"] = tables["server"]["base_url"].replace("http://", "https://")
    with pytest.raises(TrainError, match="nothing was marked"):
        await mindscore.send_to_train([candidate()], tables)
    assert marks() == []
    assert await unknown() == {}
