"""Transcripts of other tools are read as every other file is."""

import pytest

from ..readers.conftest import read, refused

__all__ = ["read", "refused"]


@pytest.fixture
def one(read, request):
    """Read the only conversation of a file, in the format that the module's ``FORMAT`` names."""

    def one(content):
        conversations = read(content)
        assert conversations.format == request.module.FORMAT
        [conversation] = conversations.found
        return conversation

    return one


def said(conversation):
    """Return the roles and texts of a conversation."""
    return [(str(it.role), it.text) for it in conversation.messages]
