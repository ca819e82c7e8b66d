"""``mindscore train`` at a mindscore trainer: it waits, says the guard, and writes the ledger."""

import asyncio

import pytest

from mindscore.cli import rounds
from mindscore.config.settings import StoreSettings
from mindscore.measure.internalisation import Round
from mindscore.scorers.toy import ToyScorer
from mindscore.store import Ledger
from mindscore.training.guard import Losses
from mindscore.training.lora.job import Measures, Progress
from mindscore.training.sinks import peft

GUARD = {"before": 2.0, "after": 2.01, "base": 1.9, "limit": 0.05, "passed": True}
JOB = {
    "job_id": "j1",
    "status": "succeeded",
    "model": "m",
    "samples": 1,
    "tokens": 2,
    "epoch": 12,
    "epochs": 40,
    "loss": 1.25,
    "seconds": 7.0,
    "error": None,
    "adapter": "/somewhere/else/j1/adapter",
    "start": "",
    "sample_loss": {"before": 5.0, "after": 1.2},
    "guard": GUARD,
    "active": False,
}

WORDS = "+0.010, limit +0.05, 1.900 without any adapter"
UNWRITTEN = "is not on this machine: once it is activated, mindscore ledger --measure j1"


@pytest.fixture
def trainer(score_server):
    """A mindscore trainer: ``trainer(guard={…})`` scripts how its job goes."""

    def script(*states, **fields):
        accepted = score_server.reply({"job_id": "j1"}, headers={"Mindscore-Job": "j1"})
        score_server.script(accepted, *({**JOB, **it} for it in (*states, fields)))
        return score_server

    return script


@pytest.fixture
def train(cli, score_server):
    url = f"server.base_url={score_server.url}"
    return lambda *options: cli("train", *options, "--set", url, "--set", "server.max_attempts=1")


@pytest.fixture
def local(monkeypatch):
    """The adapters that the model was measured with, in order."""
    adopted = []

    class Local(ToyScorer):
        def __init__(self, table):
            super().__init__()
            adopted.append(table["adapter"])

        async def adopt(self, folder):
            adopted.append(str(folder))

    monkeypatch.setattr(rounds, "LocalScorer", Local)
    return adopted


@pytest.fixture
def ledger(tmp_path):
    url = f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3"
    return lambda: asyncio.run(Ledger(StoreSettings(url)).rounds("m"))


def test_it_waits_for_the_job_and_says_its_loss_guard_and_adapter(
    train, trainer, candidates, monkeypatch
):
    monkeypatch.setattr("mindscore.training.jobs.POLL_S", 0.001)
    candidates(one="accepted")
    server = trainer({"status": "queued"}, {"status": "running", "epoch": 3})
    ran = train()
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "http took 1 response (4 tokens): j1",
        "12 epochs in 7 s; loss of the last: 1.25 nats per token",
        "trained answers: 5.000 → 1.200 nats per token",
        f"unrelated answers: 2.000 → 2.010 nats per token ({WORDS})",
        "its adapter: /somewhere/else/j1/adapter",
        f"the ledger has no round of it: its adapter, {JOB['adapter']}, {UNWRITTEN}",
        "before it is used: mindscore compare CONVERSATION --with /somewhere/else/j1/adapter",
        f"POST {server.url}/train/j1/activate swaps it in",
    ]
    # It was not activated.
    assert server.paths == ["/train"] + ["/train/j1"] * 3


def test_a_job_that_has_not_passed_its_guard_is_an_error_with_the_numbers(
    train, trainer, candidates, local, ledger, cli, monkeypatch
):
    candidates(one="accepted")
    trainer(guard={**GUARD, "after": 2.5, "passed": False})
    ran = train()
    assert ran.status == 1
    assert ran.error.startswith("job j1 has not passed its guard (train.guard): ")
    assert "2.000 → 2.500 nats per token (+0.500, limit +0.05" in ran.error
    assert ran.error.endswith("its adapter is not used, and stays in /somewhere/else/j1/adapter")
    assert "activate" not in ran.out
    assert (local, ledger()) == ([], [])
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli("ledger")
    said = "refused by the guard, j1: unrelated answers: 2.000 → 2.500 nats per token (+0.500"
    assert (shown.status, shown.out.startswith(said)) == (0, True)
    [refused] = cli("ledger", "--json").document["refused"]
    assert (refused["round"], refused["adapter"]) == ("j1", "/somewhere/else/j1/adapter")


def test_a_job_that_fails_is_an_error(train, trainer, candidates):
    candidates(one="accepted")
    trainer(status="failed", error="no memory", guard=None, adapter=None)
    ran = train()
    assert (ran.status, ran.error.endswith("/train/j1: the server failed: no memory")) == (1, True)


def test_who_does_not_wait_is_told_where_to_ask(train, trainer, candidates):
    candidates(one="accepted")
    server = trainer()
    ran = train("--no-wait")
    assert ran.status == 0
    assert "GET " in ran.out
    assert server.paths == ["/train"]


def test_the_ledger_gets_the_round_before_and_the_new_one(
    train, trainer, candidates, local, ledger, tmp_path
):
    """No matrix was measured: on which memories the answers depend is not known, and is said."""
    candidates(one="accepted", two="rejected")
    adapter = tmp_path / "j1" / "adapter"
    adapter.mkdir(parents=True)
    trainer(adapter=str(adapter), start="/jobs/j0/adapter")
    ran = train()
    assert ran.status == 0
    assert "round j1 is in the ledger: mindscore ledger" in ran.out
    left = "the ledger leaves out 1 answer: it is not known on which memories they depend"
    assert left in ran.out
    assert local == ["/jobs/j0/adapter", str(adapter)]
    assert [(it.name, it.adapter) for it in ledger()] == [
        ("j0", "/jobs/j0/adapter"),
        ("j1", str(adapter)),
    ]


def test_after_a_change_of_the_weights_the_ledger_begins_anew(
    train, trainer, candidates, local, ledger, tmp_path
):
    """The adapter that the job went on from is of the old weights, in name, and on the new ones."""
    url = f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3"
    kept = Ledger(StoreSettings(url))
    for number, name in enumerate(("base", "j0")):
        old = Round(name, "", float(number), ((-1.0, 1),), ())
        asyncio.run(kept.record("m", old))
    candidates(one="accepted")
    adapter = tmp_path / "j1" / "adapter"
    adapter.mkdir(parents=True)
    trainer(adapter=str(adapter), start="/jobs/j0/adapter")
    ran = train()
    assert (ran.status, "round j1 is in the ledger" in ran.out) == (0, True)
    assert local == ["/jobs/j0/adapter", "None", "/jobs/j0/adapter", str(adapter)]
    assert [it.name for it in ledger()] == ["base", "j0", "j1"]
    [other] = kept.replaced(asyncio.run(kept.models()), "m")
    assert [it.measured_at for it in asyncio.run(kept.rounds(other))] == [0.0, 1.0]


def test_what_peft_refuses_is_in_the_ledger_too(cli, candidates, monkeypatch, tmp_path):
    async def harmful(job, folder, hear, measured):
        hear(Progress(3, 9, 0.5, 1.0))
        measured(Measures(Losses(4.0, 0.5), Losses(2.0, 2.5), 2.0))
        return folder / "adapter"

    monkeypatch.setattr(peft, "train_adapter", harmful)
    candidates(one="accepted")
    options = ("train.sink=peft", "server.model=m", f"train.folder={tmp_path}/peft")
    ran = cli("train", *(word for it in options for word in ("--set", it)))
    assert (ran.status, "2.000 → 2.500 nats per token (+0.500" in ran.error) == (1, True)
    [refused] = cli("ledger", "--json").document["refused"]
    assert refused["why"].startswith("unrelated answers: 2.000 → 2.500 nats per token (+0.500")


def test_candidates_of_another_model_than_the_sink_trains_are_refused_by_name(cli, candidates):
    candidates(one="accepted")
    ran = cli("train", "--set", "train.sink=peft", "--set", "server.model=another")
    assert ran.status == 1
    assert ran.error.startswith(
        "the candidates are of the model 'm', and peft would train 'another', as server.model says"
    )


def test_a_trainer_is_told_which_model_the_responses_are_of(train, trainer, candidates):
    candidates(one="accepted", model="näme m")
    server = trainer()
    assert train("--no-wait").status == 0
    assert server.requests[0].headers["Mindscore-Model"] == "n%C3%A4me%20m"


def test_the_document_has_the_job(train, trainer, candidates):
    candidates(one="accepted")
    trainer()
    ran = train("--json")
    [job] = ran.document["jobs"]
    assert (job["guard"], job["sample_loss"]) == (GUARD, JOB["sample_loss"])
    assert (job["adapter"], job["round"]) == (JOB["adapter"], None)
    assert "is not on this machine" in job["unwritten"]
