"""A pass over several servers: a conversation stays with one, or goes to one that is up."""

from collections import defaultdict
from contextlib import ExitStack

import pytest

from mindscore.testing import Reply, ScoreServer


@pytest.fixture
def servers():
    """Two servers of the toy."""
    with ExitStack() as stack:
        yield [stack.enter_context(ScoreServer()) for _ in range(2)]


@pytest.fixture
def divided(servers, over):
    """Runs ``score`` over the archive with both servers."""
    urls = ", ".join(f"'{it.url}'" for it in servers)
    settings = {
        "scorer": "score",
        "model": "toy",
        "api_key_env": "",
        "max_attempts": 1,
        "self_test": "false",
        "base_urls": f"[{urls}]",
    }
    options = [it for name, value in settings.items() for it in ("--set", f"server.{name}={value}")]
    options += ["--set", "memory.noise_repeats=0"]
    return lambda *arguments, **named: over(*arguments, **named, servers=options)


def bodies(server):
    return [tuple(it.body["prompt"]) for it in server.requests if it.path.endswith("/score")]


def test_servers_share_the_conversations_and_find_what_one_finds(servers, divided, over, evidence):
    over("--full", store="whole")
    ran = divided("--full", "--json")
    assert (ran.status, len(ran.documents)) == (0, 10)
    assert all(bodies(it) for it in servers)
    assert evidence() == evidence("whole")


def test_a_conversation_stays_with_one_server(servers, divided):
    divided("--full")
    used = defaultdict(set)
    for server in servers:
        for prompt in bodies(server):
            # Each ends with a question of its own conversation.
            used[prompt[-8:]].add(server.url)
    assert all(len(urls) == 1 for urls in used.values())


def test_what_a_server_that_is_down_had_goes_to_another(servers, divided, over, evidence):
    over("--full", store="whole")
    servers[0].script(*[Reply(503)] * 500)
    ran = divided("--full", "--json")
    assert ran.status == 0
    assert f"{servers[0].url} is down" in " ".join(ran.err.split())
    assert evidence() == evidence("whole")


def test_where_all_are_down_the_rest_is_not_reached_and_the_same_command_goes_on(
    servers, divided, over, evidence
):
    over("--full", store="whole")
    for server in servers:
        server.script(*[Reply()] * 12, *[Reply(503)] * 60)
    ran = divided("--full", "--json")
    assert ran.status == 1
    assert "not reached: no server is up" in " ".join(ran.err.split())
    for server in servers:
        server._script.clear()
    assert divided("--full", "--json").status == 0
    assert evidence() == evidence("whole")
