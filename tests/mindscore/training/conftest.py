"""Candidates, samples, and settings with a store and a folder of the test's own."""

from dataclasses import replace

import pytest

from mindhooks import FinetuneCandidate
from mindscore.config.settings import StoreSettings
from mindscore.store import Review, Reviewed
from mindscore.training.outbox import sample_of

CANDIDATE = FinetuneCandidate(
    entry_idx=4,
    node_id="reply",
    divergence=2.5,
    response_text="said",
    prior_context="[user]\nasked",
    context_ids=(1, 9, 2),
    bare_context_ids=(1, 2),
    continuation_ids=(3, 4),
    alternate_text="else",
    alternate_ids=(5, 4),
    timestamp_ns=7,
    noise=0.25,
)


@pytest.fixture
def reviewed():
    """Makes a candidate of model ``m``: ``reviewed("accepted", "alternate", timestamp_ns=8)``."""

    def make(decision=None, answer="response", ids=None, sinks=(), **fields):
        review = Review(decision, answer, 1.0, None, ids) if decision else None
        return Reviewed(replace(CANDIDATE, **fields), "m", 0.0, review, sinks)

    return make


@pytest.fixture
def sample(reviewed):
    """Makes a sample of namespace ``n``, by the rules of ``reviewed``."""
    return lambda *given, context="bare", **fields: sample_of(
        reviewed(*given, **fields), context, "n"
    )


@pytest.fixture
def tables(tmp_path):
    """Settings: ``tables(sink="jsonl", format="messages")``."""

    def make(server=None, **train):
        return {
            "server": {"scorer": "toy", **(server or {})},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3", "namespace": "n"},
            "train": {"sink": "jsonl", "folder": str(tmp_path / "out"), **train},
        }

    return make


@pytest.fixture
def store_settings(tables):
    return StoreSettings(**tables()["store"])
