"""Fixtures for the tests of plugins and of hosts.

pytest loads this wherever mindscore is installed, for whatever is tested there. So it imports
pytest and nothing else: what a fixture needs is imported when a test asks for the fixture.
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
    """A host without a conversation; assign ``stub_mind.snapshot`` to give it one."""
    from mindhooks.testing import StubMind

    return StubMind()


@pytest.fixture
def heard() -> RecordingListener:
    """A listener that keeps what it hears, to be registered by hand."""
    from mindhooks.testing import RecordingListener

    return RecordingListener()


@pytest.fixture
def toy_scorer() -> ToyScorer:
    """A scorer without a model: exact, analytic, instant."""
    from mindscore.scorers.toy import ToyScorer

    return ToyScorer()


@pytest.fixture
def score_server() -> Iterator[ScoreServer]:
    """A model server on loopback that the test scripts; see ``mindscore.testing.ScoreServer``."""
    from mindscore.testing import ScoreServer

    with ScoreServer() as server:
        yield server
