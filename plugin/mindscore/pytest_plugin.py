"""Fixtures for the tests of plugins and of hosts.

pytest loads this module wherever mindscore is installed, so it imports pytest and nothing else: a
fixture imports the rest when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mindhooks.testing import RecordingListener, StubMind
    from mindscore.scorers.toy import ToyScorer
    from mindscore.testing import ScoreServer


@pytest.fixture
def stub_mind() -> StubMind:
    """Return a host without a conversation; assign ``stub_mind.snapshot`` to give it one."""
    from mindhooks.testing import StubMind

    return StubMind()


@pytest.fixture
def heard() -> RecordingListener:
    """Return a listener that records what it hears, to be registered by hand."""
    from mindhooks.testing import RecordingListener

    return RecordingListener()


@pytest.fixture
def toy_scorer() -> ToyScorer:
    """Return a scorer without a model: exact, analytic, instant."""
    from mindscore.scorers.toy import ToyScorer

    return ToyScorer()


@pytest.fixture
def score_server() -> Iterator[ScoreServer]:
    """Start a model server that the test scripts; see ``mindscore.testing.ScoreServer``."""
    from mindscore.testing import ScoreServer

    with ScoreServer() as server:
        yield server
