"""Two rounds of training with the ledger, and a poisoned third, on a tiny model in this process."""

import asyncio

import pytest

from mindhooks import FinetuneCandidate, MemoryScore, ResponseDivergence
from mindscore.config.settings import StoreSettings
from mindscore.measure.internalisation import accounts
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.session.session import SilentActivity
from mindscore.store import Ledger, Reviewed, Store
from mindscore.training.guard import Guard
from mindscore.training.ledger import BASE, Measurer
from mindscore.training.lora.job import Job, Recipe, Sample

from ..tiny_model import write_tiny_model

# Of PEFT, about its own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

LIMIT = 0.5
"""Of a model with random weights, whose losses are large."""

CAREFUL = Recipe(learning_rate=0.02, keep=20.0, epochs=25, target=0.3)
POISON = Recipe(learning_rate=0.05, keep=0.0, epochs=25, target=0.0)


class Rounds:
    """A model, its adapters, and its ledger."""

    def __init__(self, model, folder):
        self.model = model
        self.folder = folder
        self.settings = StoreSettings(f"sqlite:///{folder}/store")
        self.ledger = Ledger(self.settings)
        self.scorer = LocalScorer({"model": model})
        self.answers = []
        self.start = ""

    async def keep(self, key, memory, question, answer):
        """Keep a candidate that depends on the memory, by a matrix that was measured."""
        bare = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        texts = (f"<|im_start|>memory\n{memory}<|im_end|>\n{bare}", bare, f"{answer}<|im_end|>")
        ids = [tuple(await self.scorer.tokenize(it)) for it in texts]
        prior = f"[user]\n{question}"
        found = FinetuneCandidate(1, key, 9.0, answer, prior, *ids, None, None, len(self.answers))
        store = Store(self.settings)
        await store.record_candidate(found, "m")
        row = MemoryScore(key, 9.0, "full", (ResponseDivergence(1, key, 9.0, 9.0),))
        await store.record_row(row, "m", text_hash="h")
        self.answers.append(Reviewed(found, "m", 0.0, None, ("http",)))

    async def measure(self, name):
        measurer = Measurer(self.scorer, self.ledger, "m", SilentActivity())
        await measurer.measure(name, self.start, self.answers)

    async def train(self, name, sample, recipe):
        """Train one round, and return its guard; what passes is in use."""
        adapter = self.folder / name / "adapter"
        adapter.parent.mkdir()

        def carry_out():
            from mindscore.training.lora.training import Training

            training = Training(Job(self.model, [sample], recipe, self.start))
            found = training.measured(lambda: training.run(lambda _: None))
            training.save(adapter)
            return found

        # Without a loop, as in a process of its own.
        found = await asyncio.to_thread(carry_out)
        guard = Guard.judge(found.unrelated, found.base, LIMIT)
        if guard.passed:
            await self.scorer.adopt(adapter)
            self.start = str(adapter)
            await self.measure(name)
        return guard

    def sample(self, number):
        it = self.answers[number].candidate
        return Sample(it.bare_context_ids, it.continuation_ids)


async def test_the_ledger_shows_two_rounds_and_the_guard_refuses_a_poisoned_third(
    tmp_path, tokenizer_file
):
    model = str(write_tiny_model(tmp_path / "model", tokenizer_file, length=1024))
    it = Rounds(model, tmp_path)
    await it.keep("tea", "Rooibos.", "Which tea?", "Rooibos tea.")
    await it.keep("dog", "A dog: Rex.", "Any dog?", "Rex, a dog.")
    await it.measure(BASE)
    guards = [await it.train(f"job{n}", it.sample(n), CAREFUL) for n in range(2)]
    assert [guard.passed for guard in guards] == [True, True]
    assert guards[1].before == pytest.approx(guards[0].after, abs=1e-4)
    assert guards[1].base == pytest.approx(guards[0].base, abs=1e-4)

    nonsense = Sample(it.sample(0).context_ids[:2], tuple(range(40, 80)))
    poisoned = await it.train("job2", nonsense, POISON)
    assert not poisoned.passed
    assert poisoned.after - poisoned.before > LIMIT
    assert it.start == str(tmp_path / "job1" / "adapter")
    assert (tmp_path / "job2" / "adapter" / "adapter_config.json").exists()

    rounds = await it.ledger.rounds("m")
    assert [found.name for found in rounds] == [BASE, "job0", "job1"]
    dog, tea = accounts(rounds)
    first, taught, later = (round_.without_memories for round_ in tea.standings)
    assert taught > first + 3
    # What the first round has taught is not undone by the second.
    assert later > first + (taught - first) / 2
    first, other, taught = (round_.without_memories for round_ in dog.standings)
    assert taught > first + 3
    assert abs(other - first) < taught - first
    await it.scorer.aclose()
