"""A conversation of 1,000 turns is read in well under a second."""

import time

import pytest

from mindscore.readers.conversations import Conversations

from .written import WRITERS, long_talk

TURNS = 1000
PATIENCE_S = 30
"""Many times what it takes, for a machine that is busy."""


@pytest.mark.parametrize("name", WRITERS)
def test_a_thousand_turns_are_read_at_once(name, tmp_path, record_testsuite_property):
    format_, write, without = WRITERS[name]
    file = tmp_path / "talk"
    file.write_bytes(write(long_talk(TURNS, without)))
    began = time.perf_counter()
    conversations = Conversations(file)
    transcript = conversations.transcript(conversations.chosen(None))
    took = time.perf_counter() - began
    record_testsuite_property(f"{name}: {TURNS} turns, seconds", f"{took:.3f}")
    assert conversations.format == format_
    assert len(transcript.responses()) == TURNS + TURNS // 5
    assert took < PATIENCE_S
