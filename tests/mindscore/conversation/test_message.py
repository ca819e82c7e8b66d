"""Chat messages: OpenAI-style dicts, and ids that stay."""

from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Role
from mindscore.conversation.message import Message, with_ids

texts = st.sampled_from(["x", "x-2", "y", ""])
names = st.sampled_from(["", "x", "x-2", "x-3"])
messages = st.lists(
    st.builds(Message, st.sampled_from([Role.USER, Role.ASSISTANT]), texts, id=names), max_size=12
)


@given(messages)
def test_no_two_messages_have_one_id(messages):
    ids = [message.id for message in with_ids(messages)]
    assert len(set(ids)) == len(ids)


@given(messages, messages)
def test_ids_stay_as_a_conversation_goes_on(messages, more):
    assert with_ids([*messages, *more])[: len(messages)] == with_ids(messages)
