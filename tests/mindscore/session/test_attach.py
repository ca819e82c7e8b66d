"""``mindscore.attach``: a Mind for any agent that has its conversation as chat messages."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

import mindscore
from mindhooks import MindhooksError, UnhandledCommand, hookimpl

TEA = "Nora drinks rooibos in the evening."
DOG = "Her dog is called Max."
MEMORIES = {"tea": TEA, "dog": DOG}
PATIENCE_S = 30


class Agent:
    """An agent as its author has it: a list of messages."""

    def __init__(self):
        self.messages = [{"role": "system", "content": f"You help Nora.\n- {TEA}\n- {DOG}"}]
        self.taken_on = set()
        self.asked = 0

    def turn(self, asked="What shall I drink?", said="A pot of rooibos in the evening."):
        self.messages.append({"role": "user", "content": asked})
        self.messages.append({"role": "assistant", "content": said})

    def conversation(self):
        self.asked += 1
        self.taken_on.add(threading.current_thread())
        return self.messages


@pytest.fixture
def agent():
    agent = Agent()
    agent.turn()
    return agent


@pytest.fixture
def attach(agent, tmp_path):
    """Attaches the agent, with a store of the test's own."""
    attached = []

    def make(memories=MEMORIES, settings=(), **options):
        tables = {
            "server": {"scorer": "toy"},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
            "memory": {"token_cutoff": 1.0},
            "plugins": {"listener_timeout_s": 5.0},
            **dict(settings),
        }
        options = {"every_turns": 0, "idle_s": 0, **options}
        attached.append(mindscore.attach(agent.conversation, memories, settings=tables, **options))
        return attached[-1]

    yield make
    for it in attached:
        it.close()


def test_a_host_without_a_loop_scores_and_gets_the_findings(attach, agent):
    found = attach().score().result(PATIENCE_S)
    assert found.error is None
    assert found.scores["tea"].score > 10 > 1 > found.scores["dog"].score
    assert agent.taken_on == {threading.current_thread()}


async def test_a_host_with_a_loop_awaits_the_same(attach):
    mind = attach()
    found = await mind.score("score-full")
    assert found.scores.keys() == {"tea", "dog"}
    assert mind.state.response_scores
    candidates = (await mind.score("score-finetune")).candidates
    assert [it.response_text for it in candidates] == ["A pot of rooibos in the evening."]


def test_the_original_trigger_point_is_after_every_so_many_turns(attach):
    mind = attach(every_turns=2)
    mind.turn_ended()
    mind.registry.wait_idle(PATIENCE_S)
    assert mind.state.memory_last_run is None
    mind.turn_ended()
    until = time.monotonic() + PATIENCE_S
    while mind.state.memory_last_run is None and time.monotonic() < until:
        time.sleep(0.01)
    assert mind.state.memory_scores.keys() == {"tea", "dog"}


def test_an_agent_that_is_idle_is_scored(attach):
    mind = attach(every_turns=100, idle_s=0.02)
    mind.turn_ended()
    until = time.monotonic() + PATIENCE_S
    while mind.state.memory_last_run is None and time.monotonic() < until:
        time.sleep(0.01)
    assert mind.state.memory_last_run is not None


def test_turns_that_come_quickly_are_scored_together_and_never_by_two_runs_at_once(
    attach, agent, monkeypatch
):
    gate, runs, at_once = threading.Event(), [], []
    from mindscore.session.session import Session

    attempt = Session.attempt

    async def counted(self, command, keys):
        at_once.append(command)
        runs.append((len(at_once), len(self.transcript.responses())))
        if not gate.is_set():
            await asyncio.to_thread(gate.wait, PATIENCE_S)
        found = await attempt(self, command, keys)
        at_once.pop()
        return found

    monkeypatch.setattr(Session, "attempt", counted)
    mind = attach(every_turns=1)
    mind.turn_ended()
    until(lambda: runs)
    for _ in range(19):
        agent.turn()
        mind.turn_ended()
    gate.set()
    mind._under_way.result(PATIENCE_S)
    until(lambda: len(runs) == 2)
    # The last turn is scored too, though it ended while a run was under way.
    assert runs == [(1, 1), (1, 20)]


def until(happened):
    limit = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.005)


def scored(mind, *keys):
    return lambda: mind.state.memory_scores.keys() == set(keys)


def test_an_agent_that_fails_is_logged_once_and_goes_on(attach, agent, caplog):
    mind = attach(every_turns=1)
    agent.messages.append({"role": "narrator"})
    for _ in range(3):
        mind.turn_ended()
        mind._under_way.result(PATIENCE_S)
    [record] = caplog.records
    assert record.getMessage().startswith("scoring failed: 'role': expected one of")
    agent.messages.pop()
    mind.turn_ended()
    until(scored(mind, "tea", "dog"))


def test_a_turn_that_ended_meanwhile_is_scored_once_the_agent_is_idle(attach, agent):
    mind = attach(every_turns=2, idle_s=0.05)
    mind.turn_ended()
    mind.turn_ended()
    agent.messages[0]["content"] += "\n- Fresh."
    mind = attach({"new": "Fresh."}, every_turns=2, idle_s=0.05)
    mind.turn_ended()
    until(scored(mind, "new"))


def test_what_becomes_due_in_an_idle_agent_is_scored(attach, tmp_path):
    mind = attach(
        every_turns=1,
        idle_s=0.05,
        settings={"memory": {"token_cutoff": 1.0, "interval_s": 0.1}},
    )
    heard = []
    mind.registry.register(Heard(heard), name="heard")
    mind.turn_ended()
    until(lambda: heard.count("tea") >= 3)


class Heard:
    def __init__(self, keys):
        self.keys = keys

    @hookimpl
    def on_score(self, score):
        self.keys.append(score.key)


def test_the_agent_is_asked_on_its_own_thread_only(attach, agent):
    mind = attach(every_turns=2, idle_s=0.02)
    mind.turn_ended()
    until(scored(mind, "tea", "dog"))
    assert agent.taken_on == {threading.current_thread()}


def test_an_agent_may_hold_a_lock_of_its_own_and_end_a_turn_within_messages(attach, agent):
    lock, ask = threading.Lock(), agent.conversation
    mind = attach(every_turns=1, idle_s=0.001)

    def conversation():
        mind.turn_ended()
        with lock:
            return list(ask())

    mind._host._messages = conversation
    done = []

    def work():
        for _ in range(30):
            with lock:
                agent.turn()
            mind.turn_ended()
        done.append(True)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert done == [True, True]


def test_messages_cannot_ask_for_their_own_scores(attach, agent):
    mind = attach()
    mind._host._messages = lambda: mind.score()
    with pytest.raises(MindhooksError, match="cannot ask for their own"):
        mind.score()


class Dumped:
    """A message as the client libraries have them."""

    def __init__(self, **fields):
        self.fields = fields

    def model_dump(self):
        return self.fields


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": None, "refusal": "No."},
        Dumped(role="assistant", content="No.", refusal=None),
        {
            "role": "assistant",
            "content": "No.",
            "tool_calls": [{"type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}],
        },
    ],
)
def test_ordinary_content_is_scored(message, attach, agent):
    agent.messages.append(message)
    found = attach().score("score-full").result(PATIENCE_S)
    assert found.transcript.conversation[-1].text == "No."
    assert found.error is None


@pytest.mark.parametrize(
    "broken",
    [
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}],
        [object()],
        None,
        {"role": "user"},
        "text",
    ],
)
def test_what_cannot_be_scored_is_logged_in_one_line_and_raises_nothing(
    broken, attach, agent, caplog
):
    mind = attach(every_turns=1)
    agent.messages = broken
    mind.turn_ended()
    if mind._under_way is not None:
        mind._under_way.result(PATIENCE_S)
    assert len(caplog.records) == 1


def test_failing_functions_of_the_agent_and_turns_after_close_are_logged(attach, caplog):
    mind = attach(lambda: 1 / 0, every_turns=1)
    mind.turn_ended()
    mind.close()
    mind.turn_ended()
    mind.turn_ended()
    first, second = [record.getMessage() for record in caplog.records]
    assert "ZeroDivisionError" in first
    assert second == "this turn is not scored: the registry is closed"
    with pytest.raises(MindhooksError, match="closed"):
        mind.score()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"server": {"scorer": "nope"}}, "no scorer is called 'nope'"),
        ({"memory": {"interval": 1}}, "memory.interval: unknown key"),
        (
            {"plugins": {"disabled": ["memory-scoring"]}, "server": {"scorer": "toy"}},
            "no plugin took the command 'score'",
        ),
        (
            {
                "server": {
                    "scorer": "score",
                    "base_url": "http://127.0.0.1:9/v1",
                    "tokenizer": "",
                    "max_attempts": 1,
                }
            },
            "127.0.0.1:9",
        ),
    ],
)
def test_runs_that_fail_for_the_same_reason_are_one_warning(settings, said, attach, caplog):
    mind = attach(every_turns=1, settings=settings)
    for _ in range(3):
        mind.turn_ended()
        mind._under_way.result(PATIENCE_S)
    [record] = [it for it in caplog.records if it.levelname == "WARNING"]
    assert said in record.getMessage()


def test_a_model_that_cannot_be_loaded_was_sent_nothing(attach, monkeypatch):
    from mindhooks import ScorerError
    from mindscore.scorers.toy import ToyScorer

    async def score(self, prompts):
        error = ScorerError("torch is not there")
        error.arrived = False
        raise error

    monkeypatch.setattr(ToyScorer, "score", score)
    stats = attach().score().result(PATIENCE_S).stats
    assert "torch is not there" in stats.error
    assert (stats.calls, stats.prompt_tokens, stats.computed_tokens) == (0, 0, 0)


def test_keys_that_are_numbers_are_text_and_a_memory_without_text_hides_no_other(
    attach, agent, caplog
):
    mind = attach({1: TEA, 2: DOG, "x": None}, every_turns=1)
    found = mind.score().result(PATIENCE_S)
    assert found.scores.keys() == {"1", "2"}
    # By the same key the second time.
    again = mind.score().result(PATIENCE_S)
    assert {it.status for it in again.outcomes.values()} == {"not-due"}
    [record] = caplog.records
    assert "memory 'x' is left out" in record.getMessage()
    assert record.getMessage() in found.remarks


def test_only_new_messages_are_copied_and_read(attach, agent, monkeypatch):
    from mindscore.session import snapshot as module

    read, copied = [], []
    messages, copy = module.read_messages, module._Given.__init__
    monkeypatch.setattr(
        module, "read_messages", lambda it, left: read.append(it) or messages(it, left)
    )
    monkeypatch.setattr(
        module._Given, "__init__", lambda self, *it: copied.append(it) or copy(self, *it)
    )
    mind = attach(every_turns=1)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    agent.messages.append({"role": "user", "content": [{"type": "text", "text": "See"}, image]})
    for number in range(3):
        agent.turn(f"And {number}?")
        mind.turn_ended()
        mind._under_way.result(PATIENCE_S)
    assert len(read) == len(copied) == len(agent.messages)
    # A window that slides is no reason to read it again, a message that has changed is.
    read.clear()
    del agent.messages[1]
    agent.messages[2]["content"][0]["text"] = "Look"
    mind.turn_ended()
    mind._under_way.result(PATIENCE_S)
    assert [it["content"][0]["text"] for it in read] == ["Look"]


def test_the_state_has_only_what_the_conversation_has(attach, agent):
    memories = {"tea": TEA, "dog": DOG}
    mind = attach(lambda: memories)
    for number in range(4):
        agent.turn(f"And {number}?", f"Rooibos in the evening, {number}, with Max.")
        del agent.messages[1:-2]
        mind.score().result(PATIENCE_S)
        mind.score("score-full").result(PATIENCE_S)
    assert mind.state.memory_scores.keys() == {"tea", "dog"}
    assert len(mind.state.response_scores) == 1
    del memories["dog"]
    mind.score("score-full").result(PATIENCE_S)
    assert mind.state.memory_scores.keys() == {"tea"}
    assert all(row.keys() == {"tea"} for row in mind.state.response_scores.values())


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (([],), {}),
        ((list, 7), {}),
        ((list,), {"settings": "x"}),
        ((list,), {"every_turns": 1.5}),
        ((list,), {"idle_s": "soon"}),
    ],
)
def test_an_argument_of_another_type_is_refused_at_once(arguments, options):
    with pytest.raises(TypeError, match="expected"):
        mindscore.attach(*arguments, **{"settings": {"server": {"scorer": "toy"}}, **options})


def test_what_is_under_way_at_close_ends_with_an_error(attach, agent):
    mind = attach()
    scorings = [mind.score("score-full") for _ in range(50)]
    mind.close()
    ended = [it.future.exception(PATIENCE_S) for it in scorings]
    assert all(it is None or isinstance(it, MindhooksError) for it in ended)
    assert isinstance(ended[-1], MindhooksError)


FORKED = """
import os, sys, mindscore
messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
settings = {"server": {"scorer": "toy"}, "store": {"url": f"sqlite:///{sys.argv[1]}"}}
mind = mindscore.attach(lambda: messages, settings=settings)
scoring = mind.score()
scoring.result(30)
if os.fork() == 0:
    mind.turn_ended()
    mind.turn_ended()
    for call in (mind.score, scoring.result):
        try:
            call()
        except Exception as e:
            print(type(e).__name__, "fork" in str(e), flush=True)
    mind.close()
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.wait()[1]), mind.score().result(30).error)
mind.close()
"""


def test_a_process_that_was_forked_is_told_so_and_ends(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path / "s.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.splitlines() == ["MindhooksError True"] * 2 + ["3 None"]
    assert ran.stderr.count("this turn is not scored") == 1


def test_what_the_agent_says_meanwhile_does_not_change_what_is_scored(attach, agent):
    mind = attach()
    scoring = mind.score("score-full")
    agent.messages.clear()
    assert scoring.result(PATIENCE_S).scores.keys() == {"tea", "dog"}


def test_memories_may_change_from_turn_to_turn(attach):
    memories = {"tea": TEA}
    mind = attach(lambda: memories)
    assert mind.score("score-full").result(PATIENCE_S).scores.keys() == {"tea"}
    memories["dog"] = DOG
    assert mind.score("score-full").result(PATIENCE_S).scores.keys() == {"tea", "dog"}


def test_commands_that_come_together_run_one_after_the_other(attach):
    mind = attach()
    scorings = [mind.score("score-full") for _ in range(5)]
    assert all(it.result(PATIENCE_S).scores.keys() == {"tea", "dog"} for it in scorings)


def test_a_response_is_tokenised_once_as_the_conversation_goes_on(attach, agent, monkeypatch):
    asked = []
    from mindscore.scorers.toy import ToyScorer

    tokenize = ToyScorer.tokenize

    async def counted(self, text):
        asked.append(text)
        return await tokenize(self, text)

    monkeypatch.setattr(ToyScorer, "tokenize", counted)
    mind = attach()
    for number in range(4):
        mind.score("score-full").result(PATIENCE_S)
        agent.turn(f"And {number}?", f"Then {number}.")
    assert max(map(asked.count, asked)) == 1
    assert "A pot of rooibos in the evening." in asked


def test_node_ids_stay_as_the_conversation_goes_on_and_its_system_prompt_changes(attach, agent):
    mind = attach()
    first = mind.score("score-full").result(PATIENCE_S).scores["tea"].divergences
    agent.messages[0]["content"] += "\nToday is Tuesday."
    agent.turn("And now?", "More rooibos.")
    second = mind.score("score-full").result(PATIENCE_S).scores["tea"].divergences
    assert first[0].node_id == second[0].node_id != second[1].node_id


def test_what_was_scored_is_due_in_another_conversation_not_in_the_same(attach, agent):
    mind = attach()

    def is_due():
        mind.score().result(PATIENCE_S)
        return mind.state.memory_last_run.outcomes["tea"].status == "scored"

    assert is_due()
    for number in range(4):
        agent.turn(f"And at {number}?", f"The same at {number}.")
        # As an agent that sends its latest messages alone.
        del agent.messages[1:-4]
        assert not is_due()
    del agent.messages[1:]
    agent.turn("Good morning.", "Good morning, Nora.")
    assert is_due()
    assert not is_due()
    agent.turn("Thank you.", "You are welcome.")
    assert not is_due()
    # Another one, which comes to the same words.
    del agent.messages[1:]
    agent.turn("Good evening.", "Good evening, Nora.")
    agent.turn("Thank you.", "You are welcome.")
    assert is_due()


def test_a_command_that_nobody_takes_is_an_error_of_its_result(attach):
    with pytest.raises(UnhandledCommand):
        attach().score("tidy").result(PATIENCE_S)


@pytest.mark.parametrize(
    "message",
    [{"role": "narrator", "content": "x"}, {"content": "x"}, {"role": "user", "content": 7}],
)
def test_what_is_no_message_is_refused_at_once(message, attach, agent):
    agent.messages.append(message)
    with pytest.raises(MindhooksError, match=r"'(role|content)'"):
        attach().score()


def test_negative_limits_and_wrong_settings_are_refused_and_leave_no_thread(attach):
    before = threading.active_count()
    with pytest.raises(MindhooksError):
        attach(every_turns=-1)
    with pytest.raises(MindhooksError):
        attach(settings={"plugins": {"listener_timeout_s": 0}})
    assert threading.active_count() == before


async def test_an_async_host_is_not_held_up(attach):
    mind = attach()
    started = time.perf_counter()
    scoring = mind.score("score-full")
    handed_over = time.perf_counter() - started
    await scoring
    assert handed_over < 1.0
    assert asyncio.get_running_loop().is_running()


@pytest.mark.parametrize("anywhere", [False, True])
def test_words_that_the_user_typed_are_a_memory_only_if_the_host_says_so(attach, agent, anywhere):
    agent.messages[:1] = []
    agent.turn(f"{TEA} What shall I drink?")
    mind = attach(memories_anywhere=anywhere)
    found = mind.score("score-full").result(PATIENCE_S)
    assert list(found.scores) == (["tea"] if anywhere else [])
    said = [it for it in mind.remarks if "only in what the user typed" in it]
    assert [it.endswith("memories_anywhere=True looks there too): tea") for it in said] == (
        [] if anywhere else [True]
    )


def test_memories_that_a_host_prints_between_tags_in_a_users_message_are_found(attach, agent):
    agent.messages[:1] = []
    agent.turn(f"<memories>\n- {TEA}\n</memories>\nWhat shall I drink?")
    assert list(attach().score("score-full").result(PATIENCE_S).scores) == ["tea"]


def test_an_image_is_left_out_and_that_is_among_the_remarks(attach, agent):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    agent.messages.append({"role": "user", "content": [{"type": "text", "text": "See"}, image]})
    agent.messages.append({"role": "assistant", "content": "A pot of rooibos."})
    mind = attach()
    found = mind.score().result(PATIENCE_S)
    assert found.error is None
    assert [it.signed > 0 for it in found.scores["tea"].divergences] == [True, True]
    said = "1 image is left out: the model was given a placeholder, [image]"
    assert said in found.remarks
    assert said in mind.remarks
