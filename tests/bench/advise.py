"""Print how long ``mindscore advise`` takes on an archive of a million effects.

``python tests/bench/advise.py [--cells N] [--memories N]``: the whole command, in a process of its
own, over a SQLite file in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mindscore.config.settings import StoreSettings
from mindscore.store import ConversationFacts, Evidence, MemoryText, Store

RESPONSES = 25
MIB = 1 << 10
DAY_S = 86400.0
BEGAN = 1.75e9


def cells(count: int, memories: int) -> Iterator[Evidence]:
    """Yield cells of conversations of 25 responses: a tenth of the memories help, a few harm."""
    chance = random.Random(1)
    for number in range(count):
        conversation, rest = divmod(number, memories * RESPONSES)
        key, response = divmod(rest, RESPONSES)
        effect = chance.gauss(0, 0.3)
        if key % 10 == 0 and chance.random() < 0.1:
            effect += 8.0
        elif key % 17 == 1 and chance.random() < 0.1:
            effect -= 5.0
        yield Evidence(
            conversation=f"conversation-{conversation:08d}",
            model="HuggingFaceTB/SmolLM2-135M-Instruct",
            key=f"memory-{key:03d}",
            text_hash=f"{key + 1:032x}",
            mode="full",
            node_id=f"{conversation:08x}-response-{response:04d}",
            entry_idx=2 * response + 1,
            divergence=max(0.0, effect),
            signed=effect,
            hold=None,
            noise=0.01,
            tokens=120,
            responded_at=BEGAN + conversation * DAY_S / 4,
            scored_at=BEGAN + 400 * DAY_S,
        )


async def fill(store: Store, count: int, memories: int) -> None:
    """Write the evidence, with the memories' texts and the conversations' facts."""
    rows = await store.add_evidence(cells(count, memories))
    texts = [
        MemoryText(f"memory-{key:03d}", f"{key + 1:032x}", f"Fact {key}.", 20, BEGAN, BEGAN)
        for key in range(memories)
    ]
    await store.record_texts(texts)
    facts = [
        ConversationFacts(f"conversation-{it:08d}", f"/talks/{it}.jsonl", "Hello", RESPONSES,
                          memories, 9000, None, None, BEGAN)
        for it in range(rows // (memories * RESPONSES))
    ]  # fmt: skip
    for it in facts:
        await store.record_conversation(it)


def timed(what: str, *arguments: str) -> None:
    """Run the command, and print its seconds and its peak of memory."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "mindscore", "advise", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / MIB
    sys.stdout.write(f"advise {what:<12} {seconds:5.1f} s, peak {peak:4.0f} MiB\n")


def main() -> None:
    """Fill a store, and time the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--memories", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/store.sqlite3"
        settings = StoreSettings(url=url, retention_days=0)
        asyncio.run(fill(Store(settings), given.cells, given.memories))
        for what in ("", "--json"):
            timed(what, *filter(None, [what]), "--set", f"store.url={url}")


if __name__ == "__main__":
    main()
