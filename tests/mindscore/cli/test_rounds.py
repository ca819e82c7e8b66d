"""Rounds of training: each job is followed, and each adapter has a round of its own."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from mindscore._util.errors import TrainError
from mindscore.cli import rounds
from mindscore.cli.rounds import Follower, start_round
from mindscore.config.settings import StoreSettings
from mindscore.store import Ledger
from mindscore.training.guard import Guard, Losses
from mindscore.training.jobs import TrainingJob


@pytest.mark.parametrize(
    ("adapter", "name"),
    [
        ("", "base"),
        ("/trained/c51a5eacfd46/adapter", "c51a5eacfd46"),
        # Of one that no job made, its folder's name is no name: another may lie beside it.
        ("/adapters/first", "/adapters/first"),
        ("/adapters/second", "/adapters/second"),
        ("/base/mine", "/base/mine"),
    ],
)
def test_each_adapter_has_a_round_of_its_own(adapter, name):
    assert start_round(adapter) == name


async def test_a_job_that_does_not_pass_keeps_no_other_from_the_ledger(monkeypatch, tmp_path):
    class Client:
        def __init__(self, settings):
            pass

        async def finished(self, job_id, activity):
            if job_id == "gone":
                raise TrainError("job gone failed: no memory")
            guard = Guard.judge(Losses(2.0, 9.0 if job_id == "bad" else 2.0), 2.0, 0.05)
            return TrainingJob(job_id, "succeeded", "m", 1, 1, 0.5, 1.0, None, "/no/a", guard=guard)

        async def aclose(self):
            pass

    monkeypatch.setattr(rounds, "TrainerClient", Client)
    store = StoreSettings(f"sqlite:///{tmp_path}/store")
    configuration = SimpleNamespace(settings=SimpleNamespace(server=None, store=store))
    follower = Follower(configuration, SimpleNamespace(activity=lambda _: nullcontext()), "m")
    with pytest.raises(TrainError, match=r"job bad has not passed its guard.*; job gone failed"):
        await follower.follow(["bad", "gone", "good"])
    assert [it.job.job_id for it in follower.followed] == ["bad", "good"]
    assert follower.followed[-1].unwritten
    assert [it.name for it in await Ledger(store).refused("m")] == ["bad"]
