"""Every reader gives back every text, byte for byte, and as much of it reaches the prompt."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindscore.readers.conversations import Conversations
from mindscore.scorers.toy import ToyScorer

from .written import WRITERS, long_talk

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
roles = st.sampled_from(["user", "assistant", "user", "assistant", "tool"])


@st.composite
def talks(draw, without):
    """Draw a system prompt or none, a user's message, then anything; tools answer responses."""
    said = [("system", draw(texts))] if draw(st.booleans()) and "system" not in without else []
    said.append(("user", draw(texts)))
    for role in draw(st.lists(roles, max_size=6)):
        if role not in without and (role != "tool" or said[-1][0] == "assistant"):
            said.append((role, draw(texts)))
    return said


def read_back(content, format_):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "talk")
        file.write_bytes(content)
        conversations = Conversations(file)
        assert conversations.format == format_
        return conversations.transcript(conversations.chosen(None))


def with_responses_merged(said):
    """Join what the model said in a row: there, items that follow each other are one response."""
    merged = []
    for role, text in said:
        if role == "assistant" and merged and merged[-1][0] == role:
            text = merged.pop()[1] + text
        merged.append((role, text))
    return merged


@pytest.mark.parametrize("name", WRITERS)
# Few of each of very many formats; `make slow` tries more.
@settings(max_examples=settings.default.max_examples // 3)
@given(data=st.data())
def test_what_was_written_is_read(name, data):
    format_, write, without = WRITERS[name]
    said = data.draw(talks(without))
    if name == "openai-responses":
        said = with_responses_merged(said)
    transcript = read_back(write(said), format_)
    messages = (*transcript.system, *transcript.identity, *transcript.conversation)
    assert [(it.role, it.text) for it in messages] == said
    assert transcript.keys() == []


@pytest.mark.parametrize("name", WRITERS)
async def test_the_prompt_is_that_of_the_same_conversation_in_any_format(name, tmp_path):
    format_, write, without = WRITERS[name]
    said = long_talk(10, without)
    context = await read_back(write(said), format_).context(ToyScorer().tokenize)
    nodes = (*context.system, *context.identity, *context.conversation)
    assert [(it.role, it.text) for it in nodes] == said
    prompt = context.wire_prompt(range(len(context.conversation)), lambda key: False)
    assert len(prompt.ranges) == sum(role == "assistant" for role, _ in said)
    text = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)
    assert await ToyScorer().tokenize(text) == list(prompt.tokens)
