"""``mindscore.attach``: a Mind for any agent that has its conversation as chat messages."""

import asyncio
import threading
import time

import pytest

import mindscore
from mindhooks import MindhooksError, UnhandledCommand

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


def test_turns_that_come_quickly_start_no_second_run(attach, agent):
    mind = attach(every_turns=1)
    for _ in range(20):
        mind.turn_ended()
    assert mind.registry.wait_idle(PATIENCE_S)
    assert agent.asked <= 3


def test_an_agent_that_fails_when_it_is_idle_is_logged(attach, agent, caplog):
    mind = attach(every_turns=100, idle_s=0.02)
    mind.turn_ended()
    agent.messages.append({"role": "narrator"})
    until = time.monotonic() + PATIENCE_S
    while not caplog.records and time.monotonic() < until:
        time.sleep(0.01)
    [record] = caplog.records
    assert record.getMessage().startswith("scoring when idle: 'role': expected one of")


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
