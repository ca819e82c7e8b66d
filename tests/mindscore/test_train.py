"""Handing candidates to a trainer, over real connections: section 4.5."""

import asyncio
import json
import socket
import sqlite3
from contextlib import closing

import pytest
from aiohttp import web

import mindscore
from mindhooks import FinetuneCandidate
from mindscore.config import StoreSettings
from mindscore.errors import TrainError
from mindscore.fingerprint import response_hash
from mindscore.store import Store


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


@pytest.mark.parametrize("status", [400, 401, 404, 408, 422, 425, 429, 500, 502, 503, 504])
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


async def test_after_a_failure_the_same_candidates_can_be_sent_again(score_server, settings, marks):
    score_server.script(500, {"job_id": "j2"})
    with pytest.raises(TrainError):
        await mindscore.send_to_train([candidate()], settings())
    assert await mindscore.send_to_train([candidate()], settings()) == "j2"
    assert [mark[2] for mark in marks()] == ["j2"]


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
    closed_port, settings, marks, attempts
):
    opened, _ = attempts()
    url = "http://{}:{}".format(*closed_port.getsockname())
    with pytest.raises(TrainError, match="cannot connect"):
        await mindscore.send_to_train([candidate()], settings(base_url=url, max_attempts=3))
    assert opened == [closed_port.getsockname()] * 3
    assert marks() == []


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
