"""A listener: a plugin that hears each score as soon as it is known, and the end of each run.

An installed plugin is found by its entry point::

    [project.entry-points.mindhooks]
    journal = "your_package:Journal"

Here it is registered by hand, and an attached conversation is what is scored.
"""

import tempfile
from typing import Any

import mindscore
from mindhooks import FinetuneStats, MemoryScore, MemoryStats, Run, hookimpl

MESSAGES = [
    {"role": "system", "content": "You help Nora. She drinks rooibos. Her dog is called Max."},
    {"role": "user", "content": "What shall I drink?"},
    {"role": "assistant", "content": "A pot of rooibos, as always."},
]
MEMORIES = {"tea": "She drinks rooibos.", "dog": "Her dog is called Max."}


class Journal:
    """Writes a line for each memory that matters, and one for each run."""

    def __init__(self, table: dict[str, Any]) -> None:
        """Read ``[plugins.settings.journal]``: ``floor``, in nats."""
        self.floor = float(table.get("floor", 0.5))
        self.seen: dict[str, int] = {}

    @hookimpl
    async def on_score(self, score: MemoryScore, run: Run | None) -> None:
        """Take your time: an ``async def`` has a queue of its own, and no flow waits for it."""
        if run is not None:
            self.seen[run.id] = self.seen.get(run.id, 0) + 1
        if score.score >= self.floor:
            print(f"{score.key}: {score.score:.1f} nats")

    @hookimpl
    async def on_run_end(self, stats: MemoryStats | FinetuneStats | None, run: Run) -> None:
        """Print how a run ended; ``stats`` is what its flow reported, if it did."""
        how = "ended without statistics" if stats is None else stats.error or "done"
        heard = self.seen.pop(run.id, 0)
        print(f"{run.command} with {run.model}: {how}, {heard} scores")
        if stats is not None:
            print(f"{stats.calls} calls, {stats.prompt_tokens} tokens")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "server": {"scorer": "toy"},
            "store": {"url": f"sqlite:///{folder}/scores.sqlite3"},
        }
        with mindscore.attach(lambda: MESSAGES, MEMORIES, settings=settings) as mind:
            mind.registry.register(Journal({"floor": 1.0}), name="journal")
            mind.score("score-full").result()
            mind.registry.wait_idle()


main()
