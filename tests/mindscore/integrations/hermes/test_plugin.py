"""The plugin in Hermes: what it captures, scores and says, and that the agent goes on."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mindscore.testing import ScoreServer

from .conftest import ANSWER, BUILD, HELIX, QUESTION, SYSTEM, system

PATIENCE_S = 60
HANGS = """
import runpy, sys, time
from mindscore.integrations.hermes import plugin as hermes
sys.path.insert(0, sys.argv[1])
import conftest
agent = conftest.Hermes(None)
hermes.register(agent)
agent.turn()
done = agent.commands["mind"].__self__.worker.ask()
sys.stdin.readline()
assert not done.is_set()
"""
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
def warnings(caplog):
    """What was logged by the plugin, or by the registry's plugins."""
    caplog.set_level(logging.WARNING)
    return lambda: [it.getMessage() for it in caplog.records if it.name == "mindscore.hermes"]


@pytest.fixture
def score_server():
    with ScoreServer() as server:
        yield server


def wait_until(holds):
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


def test_the_request_and_the_reply_are_queued_as_they_are(agent) -> None:
    sent = agent.turn()
    turn = agent.queue().next()
    assert turn.messages == [*sent, {"role": "assistant", "content": ANSWER}]
    assert turn.session == "s1"
    assert turn.about["base_url"] == "http://x/v1"


def test_the_last_request_of_a_turn_is_the_one_that_counts(agent) -> None:
    first = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    tool = [
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "Helix"},
    ]
    agent.hooks["pre_api_request"](session_id="s1", turn_id="t1", request_messages=first)
    agent.turn([*first, *tool])
    assert agent.queue().next().messages[2:4] == tool


def test_a_reply_without_a_request_of_its_turn_is_not_kept(agent, warnings) -> None:
    agent.hooks["post_llm_call"](session_id="s1", turn_id="t1", assistant_response="Hm")
    agent.hooks["pre_api_request"](session_id="s1", turn_id="t1", request_messages=[{}])
    agent.hooks["post_llm_call"](session_id="s1", turn_id="t2", assistant_response="Hm")
    assert agent.queue().next() is None
    assert warnings() == []


def test_requests_of_turns_that_never_end_are_not_kept_for_ever(agent) -> None:
    capture = agent.hooks["pre_api_request"].__self__
    for session in range(1000):
        agent.hooks["pre_api_request"](session_id=str(session), request_messages=[{}])
    assert len(capture._requests) < 100


def test_hooks_change_nothing_and_return_nothing(agent) -> None:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    before = json.dumps(messages)
    given = {"session_id": "s1", "turn_id": "t1", "later_versions": "say more"}
    assert agent.hooks["pre_api_request"](**given, request_messages=messages) is None
    assert agent.hooks["post_llm_call"](**given, assistant_response="Yes.") is None
    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"session_id": 3, "turn_id": [], "request_messages": 3, "assistant_response": 3},
        {"request_messages": [{"role": object()}], "assistant_response": "Yes."},
        {"request_messages": [{"role": "\ud800"}], "assistant_response": "Yes."},
        {"request_messages": [{}], "assistant_response": "Yes.", "conversation_history": [3]},
    ],
)
def test_whatever_a_hook_is_given_it_raises_nothing(agent, given) -> None:
    agent.hooks["pre_api_request"](**given)
    agent.hooks["post_llm_call"](**given)


def test_a_queue_that_cannot_be_written_is_said_once(agent, warnings) -> None:
    agent.folder.mkdir()
    (agent.folder / "plugin-data").write_text("in the way")
    for _ in range(3):
        agent.turn()
    wait_until(lambda: len(warnings()) == 2)
    kept, prepared = sorted(warnings())
    assert kept.startswith("keeping a turn failed: the queue of turns")
    assert prepared.startswith("preparing the queue failed: ")
    assert "\n" not in kept


def test_keeping_a_long_turn_takes_no_time(agent, record_testsuite_property) -> None:
    said = {"role": "user", "content": "wörd text " * 120}
    messages = [{"role": "system", "content": SYSTEM}, *[said] * 199]
    agent.turn(messages)
    took = []
    for turn in range(20):
        began = time.perf_counter()
        agent.turn(messages, session=f"long-{turn}")
        took.append(time.perf_counter() - began)
    record_testsuite_property("hermes: ms a turn of 200 messages", f"{sorted(took)[10] * 1e3:.1f}")
    assert sorted(took)[10] < 0.1


def test_registering_imports_nothing_heavy_and_writes_nothing(tmp_path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
before = set(sys.modules)
from mindscore.integrations.hermes import plugin as hermes
agent = conftest.Hermes(None)
hermes.register(agent)
heavy = {"aiohttp", "sqlalchemy", "torch", "transformers", "rich", "typer", "tokenizers"}
assert not heavy & (set(sys.modules) - before)
"""
    environment = {**os.environ, "HERMES_HOME": str(tmp_path / "hermes")}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    subprocess.run(command, env=environment, check=True)
    assert not (tmp_path / "hermes").exists()


def test_status_says_what_is_registered_what_waits_and_who_scores(agent, capsys) -> None:
    agent.turn()
    agent.cli("status")
    said = capsys.readouterr().out
    assert "registered with Hermes: hooks pre_api_request and post_llm_call, /mind" in said
    assert "Waiting: 1 turn of 1 session, the oldest from 20" in said
    assert "Scorer: toy (smollm2); never by itself." in said
    assert "namespace hermes" in said
    assert "Hermes itself talks to echo at http://x/v1 (custom)" in said


def test_scores_are_printed_and_kept_and_the_queue_is_empty_then(agent, capsys) -> None:
    agent.turn()
    agent.turn(session="s2")
    agent.cli("score")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Scored 2 turns of 2 sessions with toy."
    assert lines[1].endswith("User prefers the Helix editor.")
    assert float(lines[1].split()[0]) > 1
    assert "Remark: the tools are not in the scored context." in lines
    agent.cli("score")
    assert capsys.readouterr().out == "Nothing waits to be scored.\n"


def test_the_report_proposes_what_was_never_used_and_touches_nothing(agent, capsys) -> None:
    memories = agent.folder / "memories" / "MEMORY.md"
    memories.parent.mkdir(parents=True)
    memories.write_text("as it is")
    agent.turn()
    agent.cli("score")
    capsys.readouterr()
    agent.cli("memories")
    said = capsys.readouterr().out
    assert "None to drop" in said
    assert "10 responses" in said
    agent.cli("memories", "--responses", "1")
    proposed = capsys.readouterr().out.partition("consider dropping:\n")[2]
    assert BUILD in proposed
    assert "Helix" not in proposed
    assert memories.read_text() == "as it is"


def test_an_entry_that_is_gone_from_the_newest_prompt_is_not_proposed(agent, capsys) -> None:
    agent.turn()
    agent.cli("score")
    messages = [
        {"role": "system", "content": system(HELIX)},
        {"role": "user", "content": "And now?"},
    ]
    agent.turn(messages, session="s2")
    agent.cli("score")
    capsys.readouterr()
    agent.cli("memories", "--responses", "1")
    said = capsys.readouterr().out
    assert BUILD not in said
    assert f"2 responses  {HELIX}" in said


def test_what_could_go_is_shown_and_the_files_stay(agent, configure, capsys) -> None:
    configure('[server]\nscorer = "toy"\n[advise]\nmin_conversations = 5\n')
    file = agent.folder / "memories" / "MEMORY.md"
    file.parent.mkdir(parents=True)
    file.write_text(f"{HELIX}\n§\n{BUILD}")
    agent.cli("prune", "--dry-run")
    assert capsys.readouterr().out == "No memory has been measured yet: hermes mind score.\n"
    for number in range(14):
        said = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{QUESTION} {'Well? ' * number**2}"},
        ]
        agent.turn(said, said=f"{ANSWER} {'So. ' * number}", session=f"s{number}")
    agent.cli("score")
    capsys.readouterr()
    agent.cli("prune", "--dry-run")
    said = capsys.readouterr().out
    assert "on 14 responses of 14 sessions: of 2 memories, 1 entry could go" in said
    assert f"drop  {BUILD}: over 14 conversations" in said
    mark = "\\ No newline at end of file\n"
    assert f"-{HELIX}\n-§\n-{BUILD}\n{mark}+{HELIX}\n{mark}" in said
    assert "Nothing was changed." in said
    assert file.read_text() == f"{HELIX}\n§\n{BUILD}"
    assert agent.chat("prune") == said.strip("\n")
    with pytest.raises(SystemExit):
        agent.cli("prune")


def test_responses_before_a_memory_say_nothing_about_it(agent, capsys) -> None:
    fence = (
        "<memory-context>\n[System note: The following is recalled memory context, NOT new user "
        "input.]\n\n- Her dog is called Max.\n</memory-context>"
    )
    agent.turn(
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Good morning."},
            {"role": "user", "content": f"My dog?\n\n{fence}"},
        ],
        said="Her dog is called Max.",
    )
    agent.cli("score")
    assert "had no system message" in capsys.readouterr().out
    agent.cli("memories")
    assert "recalled      1 response  - Her dog" in capsys.readouterr().out


def test_candidates_are_listed(agent, capsys) -> None:
    agent.cli("candidates")
    assert "No candidate" in capsys.readouterr().out
    agent.turn()
    agent.cli("score")
    capsys.readouterr()
    agent.cli("candidates")
    assert ANSWER in capsys.readouterr().out


def test_mind_in_a_chat_scores_and_tells(agent) -> None:
    agent.turn()
    said = agent.chat()
    assert "Scored 1 turn of 1 session with toy." in said
    assert "Helix" in agent.chat("memories")
    assert "registered with Hermes" in agent.chat("status")
    assert agent.chat("dance") == "Usage: /mind [score|status|memories|candidates|prune]"


def test_an_idle_agent_is_scored_by_itself(agent, configure) -> None:
    configure(idle_s=0.05)
    agent.turn()
    queue = agent.queue()
    wait_until(lambda: queue.waiting().turns == 0)
    wait_until(lambda: "Helix" in agent.chat("memories"))


def test_a_scorer_that_is_not_there_leaves_the_turn_and_fails_the_command(
    agent, configure, capsys
) -> None:
    agent.turn()
    configure('[server]\nscorer = "score"\nbase_url = "http://127.0.0.1:9/v1"\nmax_attempts = 1\n')
    with pytest.raises(SystemExit) as ended:
        agent.cli("score")
    assert ended.value.code == 1
    assert "Not finished (1 turn still waiting): " in capsys.readouterr().out
    configure()
    agent.cli("score")
    assert "Scored 1 turn" in capsys.readouterr().out


def test_a_wrong_configuration_is_the_commands_trouble_alone(agent, configure, capsys) -> None:
    configure('[server]\nscorr = "toy"\n')
    agent.turn()
    with pytest.raises(SystemExit):
        agent.cli("score")
    said = capsys.readouterr().err
    assert said.startswith("mindscore: ")
    assert "scorr" in said
    assert agent.chat("status").startswith("mindscore: ")


def test_a_wrong_idle_time_is_named(agent, configure, capsys) -> None:
    configure(idle_s='"soon"')
    with pytest.raises(SystemExit):
        agent.cli("status")
    assert "plugins.settings.hermes.idle_s" in capsys.readouterr().err


def test_a_namespace_of_the_users_own_is_kept(agent, tmp_path, monkeypatch, capsys) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[server]\nscorer = "toy"\n[store]\nnamespace = "nora"\n')
    monkeypatch.setenv("MINDSCORE_CONFIG", str(config))
    agent.cli("status")
    assert "namespace nora" in capsys.readouterr().out


def test_a_turn_that_is_no_chat_request_is_left_out_and_said(agent, capsys) -> None:
    agent.turn([{"type": "function_call", "name": "look"}], api_mode="codex_responses")
    agent.cli("score")
    assert "left out: not a chat request (codex_responses)" in capsys.readouterr().out
    assert agent.queue().next() is None


def test_one_process_scores_at_a_time(agent, capsys) -> None:
    agent.turn()
    lock = FileLock(agent.folder / "plugin-data" / "mindscore" / "scoring.lock")
    with lock, pytest.raises(SystemExit):
        agent.cli("score")
    assert "another Hermes is scoring" in capsys.readouterr().out
    agent.cli("score")
    assert "Scored 1 turn" in capsys.readouterr().out


def test_a_scorer_that_hangs_does_not_keep_the_process(tmp_path, score_server) -> None:
    from mindscore.testing import Reply

    score_server.script(*[Reply(delay_s=PATIENCE_S)] * 20)
    config = tmp_path / "mindscore.toml"
    table = "\n".join(f"{name} = {json.dumps(it)}" for name, it in score_server.settings.items())
    config.write_text(f'[server]\n{table}\n[store]\nurl = "sqlite:///{tmp_path}/store.sqlite3"\n')
    environment = {
        **os.environ,
        "HERMES_HOME": str(tmp_path / "hermes"),
        "MINDSCORE_CONFIG": str(config),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(Path(__file__).parent)],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: score_server.requests)
    began = time.monotonic()
    _, errors = process.communicate("\n", timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert time.monotonic() - began < PATIENCE_S / 3


def test_a_lock_that_cannot_be_made_is_named(agent, capsys) -> None:
    agent.turn()
    (agent.folder / "plugin-data" / "mindscore" / "scoring.lock").mkdir()
    with pytest.raises(SystemExit):
        agent.cli("score")
    assert "mindscore: the lock " in capsys.readouterr().err
    assert agent.queue().waiting().turns == 1


def test_the_thread_that_scores_ends_with_the_process_and_begins_anew_in_a_fork():
    from mindscore._util.errors import ErrorLog
    from mindscore.integrations.hermes.capture import Worker

    asked = []
    worker = Worker(
        lambda goes_on: asked.append(goes_on()), lambda: 0.0, lambda: None, ErrorLog("")
    )
    assert worker.ask().wait(10)
    first = worker._thread
    worker._begin_anew()
    assert worker.ask().wait(10)
    assert worker._thread is not first
    worker.end()
    assert not worker._thread.is_alive()
    assert asked == [True, True]
