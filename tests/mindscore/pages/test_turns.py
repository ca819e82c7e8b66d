"""The memories that are shown beside a response."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Role
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.message import Message
from mindscore.pages.environment import MOST_SHOWN, turns

QUESTION, ANSWER = "Which tea do we have?", "Jasmine tea."


def transcript(**memories):
    said = [Message(Role.USER, QUESTION, id="u"), Message(Role.ASSISTANT, ANSWER, id="r")]
    told = [Message(Role.MEMORY, it, memory_key=key, id=f"m-{key}") for key, it in memories.items()]
    return Transcript(Path("talk.jsonl"), (), tuple(told), tuple(said))


def shown(talk, limit=0.5, **values):
    data = {
        "memories": [{"key": key} for key in values],
        "responses": [{"node_id": "r"}],
        "signed": [[value] for value in values.values()],
        "noise": None,
        "spread": [limit],
    }
    question, answer = turns(talk, data)
    assert (question["effects"], question["more"]) == ([], 0)
    return answer


def test_of_those_that_helped_the_one_that_is_about_it_comes_first():
    talk = transcript(near="Jasmine tea is on the shelf.", far="Rooms are warm.", bad="No.")
    found = shown(talk, far=2.0, near=1.5, bad=-9.0, none=None, little=0.4)
    assert found["effects"] == [(1.5, "near"), (2.0, "far"), (-9.0, "bad")]


@given(values=st.lists(st.floats(-9, 9), max_size=12))
def test_the_worst_is_shown_however_many_helped_and_the_rest_is_counted(values):
    named = {f"k{at}": value for at, value in enumerate(values)}
    found = shown(transcript(**dict.fromkeys(named, "A note.")), **named)
    clear = [it for it in values if abs(it) > 0.5]
    assert len(found["effects"]) == min(MOST_SHOWN, len(clear))
    assert found["more"] == len(clear) - len(found["effects"])
    if min(clear, default=0) < 0:
        assert min(clear) in [value for value, _ in found["effects"]]
    if max(clear, default=0) > 0:
        assert found["effects"][0][0] == max(clear)
