"""A pass with Ray over what has grown, within a budget, and with servers that go down."""

import asyncio
import json
from contextlib import ExitStack

import pytest

from mindhooks import ScorerUnavailable
from mindscore.archive.archive_pass import ArchivePass
from mindscore.archive.jobs import FAILURES_OF_A_SERVER
from mindscore.archive.ray_pass import RayPass
from mindscore.scorers.toy import ToyScorer
from mindscore.testing import Reply, ScoreServer

from .kept import kept
from .ray_pipeline import run, tables

TURNS = [
    ("What do I drink?", "You drink green tea."),
    ("And at night?", "Green tea, too."),
    ("Why?", "You drink what the cats drink."),
]
FOR_ONE = 20
"""Requests, most of them for token ids, that do for one conversation and not for two."""

NAMES = ("ann", "ben", "cas", "dan")


def write_talk(folder, name, turns):
    lines = [
        {"role": "memory", "key": "tea", "content": f"{name} drinks green tea."},
        {"role": "memory", "key": "cats", "content": "There are two cats."},
    ]
    for number, (asked, answered) in enumerate(turns):
        lines.append({"role": "user", "content": f"{name}: {asked}", "id": f"u{number}"})
        lines.append({"role": "assistant", "content": answered, "id": f"a{number}"})
    text = "".join(json.dumps(it) + "\n" for it in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def talks(tmp_path):
    """Four conversations of two turns."""
    folder = tmp_path / "talks"
    folder.mkdir()
    for name in NAMES:
        write_talk(folder, name, TURNS[:2])
    return folder


@pytest.fixture
def asked(monkeypatch):
    """The responses that the toy is asked for, prompt by prompt."""
    found = []
    well = ToyScorer.score

    async def noting(self, prompts):
        found.extend(it.node_ids for it in prompts)
        return await well(self, prompts)

    monkeypatch.setattr(ToyScorer, "score", noting)
    return found


@pytest.mark.parametrize("before", [RayPass, ArchivePass])
def test_of_a_matrix_that_has_grown_only_new_responses_are_asked_for(
    tmp_path, talks, pipeline, asked, before
):
    hold = {"plugins": {"settings": {"memory-scoring": {"hold": True}}}}
    settings, whole = tables(tmp_path / "grown", **hold), tables(tmp_path / "whole", **hold)
    run(before, talks, settings)
    for name in NAMES:
        write_talk(talks, name, TURNS)
    asked.clear()
    documents = []

    run(RayPass, talks, settings, documents.append)

    assert {node_id for ids in asked for node_id in ids} == {"a2"}
    expected = []
    run(ArchivePass, talks, whole, expected.append)
    for ray, other in zip(documents, expected, strict=True):
        for part in ("conversation", "matrix", "signed", "hold", "hold_signed"):
            assert ray.document()[part] == other.document()[part]


@pytest.mark.parametrize("command", ["score", "score-full", "score-finetune"])
def test_what_has_grown_costs_and_keeps_what_it_does_without_ray(
    tmp_path, talks, pipeline, command
):
    more = {"memory": {"response_window": 2, "token_cutoff": 1.0}}
    states, ends = [], []
    for kind in (RayPass, ArchivePass):
        settings = tables(tmp_path / kind.__name__, **more)
        for name in NAMES:
            write_talk(talks, name, TURNS[:2])
        run(kind, talks, settings, command=command)
        for name in NAMES[:2]:
            write_talk(talks, name, TURNS)
        states.append(run(kind, talks, settings, command=command))
        ends.append(kept(settings))

    ray, other = states
    assert ends[0] == ends[1]
    assert (ray.calls, ray.prompt_tokens) == (other.calls, other.prompt_tokens)
    assert (ray.scored, ray.unchanged) == (other.scored, other.unchanged)


def test_a_conversation_whose_beginning_has_changed_is_measured_as_a_whole(
    tmp_path, talks, pipeline, asked
):
    settings = tables(tmp_path)
    run(RayPass, talks, settings)
    changed = [(TURNS[0][0], "It is green tea."), *TURNS[1:]]
    write_talk(talks, "ann", changed)
    asked.clear()

    assert run(RayPass, talks, settings).unchanged == 3
    assert {node_id for ids in asked for node_id in ids} == {"a0", "a1", "a2"}


@pytest.mark.parametrize("command", ["score", "score-full", "score-finetune"])
def test_a_pass_never_sends_more_than_its_budget_and_the_next_goes_on(
    tmp_path, talks, pipeline, command
):
    settings, whole = tables(tmp_path / "parts"), tables(tmp_path / "whole")
    for it in (settings, whole):
        it["memory"] = {"token_cutoff": 1.0, "noise_repeats": 0}
    all_sent = run(ArchivePass, talks, whole, command=command).prompt_tokens
    limit = all_sent * 2 // 3

    state = run(RayPass, talks, settings, command=command, max_tokens=limit)
    assert 0 < state.prompt_tokens <= limit
    assert not state.failures
    assert any("--max-tokens" in it for it in state.left_out)
    assert not run(RayPass, talks, settings, command=command).left_out

    def results(tables):
        # A pass in parts counts its own calls alone.
        return [it for it in kept(tables) if "calls" not in it]

    assert results(settings) == results(whole)


def test_a_part_that_a_budget_left_is_not_taken_for_one_of_another_content(
    tmp_path, talks, pipeline
):
    settings = tables(tmp_path)
    settings["memory"] = {"token_cutoff": 1.0}
    run(ArchivePass, talks, settings, command="score")
    changed = [TURNS[0], (TURNS[1][0], "Cats drink green tea.")]
    for name in NAMES:
        write_talk(talks, name, changed)
    run(RayPass, talks, settings, command="score", max_tokens=1)
    run(RayPass, talks, settings, command="score", max_tokens=150)
    run(ArchivePass, talks, settings, command="score")

    whole = tables(tmp_path / "whole")
    whole["memory"] = {"token_cutoff": 1.0}
    run(ArchivePass, talks, whole, command="score")

    def cells(tables):
        return [it for it in kept(tables) if "node_id" in it]

    assert cells(settings) == cells(whole)


@pytest.fixture
def servers():
    with ExitStack() as stack:
        yield [stack.enter_context(ScoreServer()) for _ in range(2)]


def of_servers(tmp_path, servers):
    server = {
        "scorer": "score",
        "model": "toy",
        "api_key_env": "",
        "max_attempts": 1,
        "self_test": False,
        "base_urls": [it.url for it in servers],
    }
    return {**tables(tmp_path), "server": server, "memory": {"noise_repeats": 0}}


def test_what_a_server_that_goes_down_had_goes_to_another(tmp_path, talks, pipeline, servers):
    whole, settings = (of_servers(tmp_path / it, servers) for it in ("whole", "parts"))
    run(ArchivePass, talks, whole)
    servers[0].script(*[Reply()] * FOR_ONE, *[Reply(503)] * 500)

    state = run(RayPass, talks, settings)

    assert (state.scored, state.failures) == (4, [])
    assert f"{servers[0].url} is down, and takes no more" in " ".join(state.remarks)
    assert kept(settings) == kept(whole)


@pytest.mark.parametrize("kind", [RayPass, ArchivePass])
def test_a_server_that_goes_down_before_the_first_answer_gives_up_too(
    tmp_path, talks, pipeline, monkeypatch, kind
):
    failed, is_down = [], asyncio.Event()
    well = ToyScorer.score

    async def failing(self, prompts):
        if not failed or self is failed[0]:
            failed.append(self)
            if len(failed) == FAILURES_OF_A_SERVER:
                is_down.set()
            raise ScorerUnavailable("gone")
        if kind is ArchivePass:  # Ray's workers take turns here.
            # The other takes all the rest otherwise, before this one has failed often enough.
            await is_down.wait()
        return await well(self, prompts)

    monkeypatch.setattr(ToyScorer, "score", failing)
    urls = {"base_urls": ["http://a", "http://b"], "max_attempts": 1}
    own = {"server": {"scorer": "toy", "self_test": False, **urls}}

    state = run(kind, talks, tables(tmp_path, **own))

    assert (state.scored, state.failures) == (4, [])
    assert " is down, and takes no more: " in " ".join(state.remarks)


def test_rows_that_a_server_had_measured_before_it_went_down_are_not_asked_for_again(
    tmp_path, talks, pipeline, monkeypatch
):
    answered, first = [], []
    well = ToyScorer.score

    async def failing(self, prompts):
        first.append(self)
        if self is first[0] and len(answered) == 2:
            raise ScorerUnavailable("gone")
        answered.append(self)
        return await well(self, prompts)

    async def fingerprint(self):
        return "the same weights"

    monkeypatch.setattr(ToyScorer, "fingerprint", fingerprint, raising=False)
    urls = {"base_urls": ["http://a", "http://b"], "max_attempts": 1, "breaker_failures": 1}
    server = {"scorer": "toy", "concurrency": 1, "self_test": False, **urls}
    own = {"server": server, "memory": {"noise_repeats": 0}}
    whole, settings = (tables(tmp_path / it, **own) for it in ("whole", "parts"))
    for name in NAMES[1:]:
        (talks / f"{name}.jsonl").unlink()
    run(ArchivePass, talks, whole)
    monkeypatch.setattr(ToyScorer, "score", failing)

    state = run(RayPass, talks, settings)

    assert (state.scored, state.failures) == (1, [])
    # A baseline and a memory at the first, a baseline and the other memory at the second.
    assert [it is first[0] for it in answered] == [True, True, False, False]
    # With the one that failed.
    assert state.calls == 5

    def cells(tables):
        return [it for it in kept(tables) if "node_id" in it or "divergences" in it]

    assert cells(settings) == cells(whole)


def test_where_all_are_down_the_rest_is_not_reached_and_the_same_command_goes_on(
    tmp_path, talks, pipeline, servers
):
    whole, settings = (of_servers(tmp_path / it, servers) for it in ("whole", "parts"))
    run(ArchivePass, talks, whole)
    servers[0].script(*[Reply()] * FOR_ONE, *[Reply(503)] * 500)
    servers[1].script(Reply(), *[Reply(503)] * 500)

    state = run(RayPass, talks, settings)

    assert state.is_cut_short
    assert (state.scored, len(state.failures)) == (1, 2)
    assert all(f"{it.url} is down" in " ".join(state.remarks) for it in servers)
    for server in servers:
        server._script.clear()
    # All four: these servers do not tell their adapters.
    assert run(RayPass, talks, settings).scored == 4
    assert kept(settings) == kept(whole)
