"""Runs against a real vLLM that are interrupted, by Ctrl-C, by its end, or by another run."""

import pytest

on = pytest.mark.parametrize
FEW = 4
"""Requests that show that a run is under way; the longer conversation takes four times as many."""


def requests_ended(server):
    return server.count("vllm:request_success_total")


def unfinished(server):
    metrics = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(map(server.count, metrics))


def wait_until_under_way(server, before):
    server.wait_until(lambda: requests_ended(server) >= before + FEW, "answers requests")


@on("server", ["equipped"], indirect=True)
@on("scorer", ["vllm", "openai"])
def test_a_run_that_is_interrupted_leaves_nothing_running(scorer, server, begin, store):
    settings = {"tokenizer": server.model} if scorer == "openai" else {}
    before, aborted = requests_ended(server), server.aborted()
    run = begin("early", store, scorer=scorer, concurrency=8, **settings)
    wait_until_under_way(server, before)
    run.interrupt()
    assert run.wait().status == 130
    server.wait_until(lambda: not unfinished(server), "is idle")
    assert server.aborted() > aborted


@on("server", ["equipped", "uncached"], indirect=True)
def test_two_runs_at_once_of_one_conversation_are_right(begin, tmp_path, assert_right):
    runs = [begin("late", tmp_path / name, scorer=name) for name in ("auto", "vllm")]
    for run in runs:
        assert_right("late", run.wait().signed)


@on("server", ["equipped"], indirect=True)
def test_a_server_that_is_restarted_costs_a_patient_run_time_and_a_hasty_one_resumes(
    server, begin, tmp_path, assert_right
):
    before = requests_ended(server)
    patient = begin("early", tmp_path / "patient", scorer="auto", max_attempts=100)
    hasty = begin("early", tmp_path / "hasty", scorer="auto", max_attempts=2)
    wait_until_under_way(server, before)
    server.kill()
    failed = hasty.wait()
    assert failed.status == 1
    assert server.url.removesuffix("/v1") in failed.err
    server.start()
    assert_right("early", patient.wait().signed)
    again = begin("early", tmp_path / "hasty", "--resume", scorer="auto")
    assert_right("early", again.wait().signed)
