"""Value types, commands, triggers and exceptions: sections 3, 3.2 and 3.4."""

from dataclasses import FrozenInstanceError, fields

import pytest

import mindhooks
from mindhooks import (
    Context,
    FinetuneCandidate,
    FinetuneStats,
    Generated,
    Image,
    MemoryScore,
    MemoryStats,
    MindCommand,
    MindhooksError,
    MindState,
    Node,
    Outcome,
    Part,
    RangeScore,
    ResponseDivergence,
    Role,
    Run,
    ScoreResult,
    Trigger,
    WirePrompt,
)

DIVERGENCE = ResponseDivergence(3, "n3", 0.0, -0.5)
VALUES = [
    DIVERGENCE,
    MemoryScore("k", 0.0, "full", (DIVERGENCE,)),
    FinetuneCandidate(3, "n3", 1.5, "yes", "ok?", (1, 2), (1,), (3,), None, None, 12),
    Outcome("failed", "the server is gone"),
    MemoryStats({"k": Outcome("scored")}, 2, 20, None, 0.5, None),
    FinetuneStats(4, 1, 1.0, 1.5, 8, 80, 40, 0.5, None),
    RangeScore(-1.5, (-1.0, -0.5)),
    ScoreResult([[RangeScore(-1.5)]], 7),
    Run("0" * 32, "score", "m", {}, 1.0),
    Generated((1, 2), "text"),
    Image("image/png", b"png"),
    Part("text", "k"),
    Node("n", Role.USER, "text", (1, 2)),
    WirePrompt((1, 2), (), ((1, 2),), ("n",)),
    Context((), (), ()),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_frozen(value):
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_slotted(value):
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (MemoryScore, "key score mode divergences hold fingerprint"),
        (ResponseDivergence, "entry_idx node_id divergence signed noise tokens"),
        (MemoryStats, "outcomes calls prompt_tokens computed_tokens seconds error"),
        (Outcome, "status error"),
        (
            FinetuneStats,
            (
                "responses_considered above_threshold threshold max_divergence "
                "calls prompt_tokens computed_tokens seconds error"
            ),
        ),
        (
            MindState,
            (
                "scoring_in_flight memory_scores response_scores memory_last_run "
                "finetune_candidates finetune_last_run"
            ),
        ),
        (Context, "system identity conversation id"),
        (Run, "id command model settings started_at"),
        (
            Node,
            "id role text token_ids body memory_key timestamp_ns images parts render",
        ),
        (Part, "text memory_key"),
        (WirePrompt, "tokens images ranges node_ids"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_value_has_the_fields_that_the_contract_names_in_their_order(kind, names):
    assert [field.name for field in fields(kind) if field.init] == names.split()


def test_what_not_every_run_measures_need_not_be_given():
    assert ResponseDivergence(1, "r", 2.0, 2.0).noise is None
    assert ResponseDivergence(1, "r", 2.0, 2.0).tokens is None
    assert MemoryScore("k", 2.0, "full", ()).hold is None
    assert MemoryScore("k", 2.0, "full", ()).fingerprint is None


def test_what_a_run_ended_with_is_no_error_unless_it_says_so():
    assert Outcome("not-due").error is None
    assert MemoryStats({}, 0, 0, None, 0.0).error is None
    assert FinetuneStats(0, 0, 1.0, 0.0, 0, 0, None, 0.0).error is None


def test_a_mind_state_starts_empty():
    state = MindState()
    assert state.scoring_in_flight is False
    assert state.memory_scores == {}
    assert state.response_scores == {}
    assert state.memory_last_run is None
    assert state.finetune_candidates == []
    assert state.finetune_last_run is None


def test_a_mind_state_is_written_by_flows():
    state = MindState()
    state.scoring_in_flight = True
    state.memory_scores["k"] = 1.0
    state.response_scores["n"] = {"k": 1.0}
    assert (state.scoring_in_flight, state.memory_scores) == (True, {"k": 1.0})
    assert state.response_scores == {"n": {"k": 1.0}}


def test_two_mind_states_share_nothing():
    first, second = MindState(), MindState()
    first.memory_scores["k"] = 1.0
    first.response_scores["n"] = {}
    first.finetune_candidates.append("candidate")
    assert second == MindState()


def test_a_mind_command_is_a_string_enum_of_three_commands():
    assert {command.name: str(command) for command in MindCommand} == {
        "SCORE": "score",
        "SCORE_FULL": "score-full",
        "SCORE_FINETUNE": "score-finetune",
    }
    assert MindCommand.SCORE == "score"


def test_a_trigger_is_started_busy_or_restarted():
    assert [trigger.name for trigger in Trigger] == ["STARTED", "BUSY", "RESTARTED"]


def test_a_role_is_one_of_five():
    assert [str(role) for role in Role] == ["system", "user", "assistant", "tool", "memory"]
    assert Role("memory") is Role.MEMORY


def test_every_exception_has_the_one_root():
    exceptions = [
        exported
        for exported in (getattr(mindhooks, name) for name in mindhooks.__all__)
        if isinstance(exported, type) and issubclass(exported, BaseException)
    ]
    assert {mindhooks.UnhandledCommand, mindhooks.ScorerError} < set(exceptions)
    assert all(issubclass(kind, MindhooksError) for kind in exceptions)


def test_a_node_names_its_own_key_and_those_of_its_parts():
    parts = (Part("a", "k1"), Part("b"), Part("c", "k2"), Part("d", "k1"))
    printed = Node("n", Role.USER, "abcd", (), parts=parts)
    assert list(printed.memory_keys()) == ["k1", "k2", "k1"]
    assert list(Node("n", Role.MEMORY, "a", (), memory_key="k").memory_keys()) == ["k"]
    assert list(Node("n", Role.USER, "a", ()).memory_keys()) == []
